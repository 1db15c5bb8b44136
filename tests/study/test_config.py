"""Descriptions of trainings: what is refused, and that every option has a reader and every reader an option."""

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrscale.errors import Refusal
from lrscale.spec import Compute
from lrscale.study.config import (
    BUDGETS,
    COMPUTE_RULES,
    FIELDS,
    GROUPS,
    KEYS,
    MOVED,
    identity,
    make_compute,
    make_training,
)
from tests.configs import ROOT, config, load, make

BAD: list[tuple[dict[str, Any], str]] = [
    ({"batch_size": 0}, "`batch_size`"),
    ({"batch_size": -4}, "`batch_size`"),
    ({"batch_size": 2.5}, "`batch_size`"),
    ({"batch_size": "ten"}, "`batch_size`"),
    ({"batch_size": True}, "`batch_size`"),
    ({"batch_size": None}, "`batch_size`"),
    ({"batch_size": 1001}, "1000 training examples"),
    ({"batch_size": 10, "accumulation": 101}, "x accumulation=101"),
    ({"accumulation": 0}, "`accumulation`"),
    ({"drop_last": "yes"}, "`drop_last`"),
    ({"reduction": "median"}, "`reduction`"),
    ({"objective": "loss"}, "`objective`"),
    ({"objective": "valid_error"}, "needs a task with classes"),
    ({"objective": "steps_to_target"}, "belong together"),
    ({"task": "digits", "objective": "excess_risk"}, "whose optimum is known"),
    ({"task": "digits", "objective": "population_risk"}, "whose optimum is known"),
    ({"data_seeds": 2}, "`data_seeds` must be one of shared, own"),
    ({"task": "digits", "data_seeds": "own"}, "whose data are drawn (d2l, linear), got task digits"),
    ({"data_seeds": "own", "probe": {**GROUPS["probe"].config("last_batch")["probe"]}}, "got own with probe=last_batch"),
    ({"budget": "target"}, "belong together"),
    ({"budget__steps": 100}, "got epochs and steps"),
    ({"budget__epochs": None}, "got none"),
    ({"budget__epochs": 0}, "`budget.epochs`"),
    ({"budget": "target", "objective": "steps_to_target", "budget__target": float("nan")}, "`budget.target`"),
    ({"budget": "target", "objective": "steps_to_target", "budget__max_steps": -1}, "`budget.max_steps`"),
    ({"budget__epoch": 3}, "`budget.epoch`"),
    ({"optimizer__lr": 0}, "`optimizer.lr`"),
    ({"optimizer__lr": float("nan")}, "`optimizer.lr`"),
    ({"optimizer__lr": float("inf")}, "`optimizer.lr`"),
    ({"optimizer__lr": []}, "empty list"),
    ({"optimizer__lr": [0.1, -0.1]}, "`optimizer.lr`"),
    ({"optimizer__lr": [0.1, 0.2], "optimizer__momentum": [0.1, 0.2, 0.3]}, "equally long"),
    ({"optimizer__momentum": 1.0}, "`optimizer.momentum`"),
    ({"optimizer__weight_decay": -1e-4}, "`optimizer.weight_decay`"),
    ({"optimizer__nesterov": True}, "`optimizer.nesterov`"),
    ({"optimizer__betas": [0.9, 0.99]}, "`optimizer.betas` is not known"),
    ({"optimizer": "adam", "optimizer__betas": [0.9]}, "`optimizer.betas`"),
    ({"optimizer": "adam", "optimizer__betas": [0.9, 1.0]}, "`optimizer.betas`"),
    ({"optimizer__name": "lion"}, "`optimizer.name`"),
    ({"task__name": "cifar"}, "`task.name`"),
    ({"task": "linear", "task__features": 0}, "`task.features`"),
    ({"task": "linear", "task__spectrum": "white"}, "`task.spectrum`"),
    ({"task": "linear", "task__noise": -0.1}, "`task.noise`"),
    ({"task": "linear", "task__examples": 10**9}, "`task.examples`"),
    ({"seeds": 0}, "`seeds`"),
    ({"seeds": []}, "`seeds`"),
    ({"seeds": [1, 1]}, "`seeds` must differ"),
    ({"seeds": [-1]}, "`seeds`"),
    ({"seeds": 1000}, "`seeds`"),
    ({"seeds": "3"}, "`seeds`"),
    ({"dtype": "float16"}, "`dtype`"),
    ({"points": 1}, "`points`"),
]


@pytest.mark.parametrize(("changes", "says"), BAD, ids=[str(changes) for changes, _ in BAD])
def test_a_bad_value_is_refused_in_one_line_that_names_it(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(Refusal) as refusal:
        make(**changes)
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


@settings(deadline=None)  # the first call imports what it needs
@given(st.dictionaries(st.sampled_from(KEYS), st.none() | st.integers() | st.floats() | st.text() | st.lists(st.integers())))
def test_whatever_a_config_holds_it_is_taken_or_refused(changes: dict[str, Any]) -> None:
    with contextlib.suppress(Refusal):
        make_training({**config(), **changes})


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"memory_mb": 0}, "`compute.memory_mb`"),
        ({"threads": 0}, "`compute.threads`"),
        ({"threads": True}, "`compute.threads`"),
        ({"processes": 2}, "`compute.processes` is not known"),
        ({"device": "gpu"}, "`compute.device` must be one of auto, cpu, cuda, mps, got 'gpu'"),
        ({"device": None}, "`compute.device`"),
        ({"tf32": 1}, "`compute.tf32`"),
        ({"tf32": True}, "`compute.tf32` true needs compute.device=cuda, got cpu. Leave it out."),
    ],
)
def test_bad_settings_of_the_machine_are_refused_in_one_line(values: dict[str, Any], says: str) -> None:
    with pytest.raises(Refusal) as refusal:
        make_compute({**Compute()._asdict(), **values})
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("key", COMPUTE_RULES)
def test_each_setting_of_the_machine_must_be_given(key: str) -> None:
    with pytest.raises(Refusal, match=rf"`compute\.{key}` is missing"):
        make_compute({name: value for name, value in Compute()._asdict().items() if name != key})


def test_zero_is_a_seed() -> None:
    assert make(seeds=[0]).seeds == (0,)
    assert make(seeds=3).seeds == (0, 1, 2)


def test_each_budget_in_conf_has_its_rules_options_and_each_rule_an_option() -> None:
    files = {path.stem: load(f"budget/{path.name}") for path in (ROOT / "conf/budget").glob("*.yaml")}
    assert {file: set(content) for file, content in files.items()} == {name: set(rules) for name, rules in BUDGETS.items()}


NAMED_BESIDE = {"sgd": ["momentum", "nesterov"], "digits": ["digits_mlp"], "fashion_mnist": ["fashion_mnist_mlp"]}
"""Choices that set another default of what is declared, to be swept beside it."""


@pytest.mark.parametrize("group", GROUPS)
def test_each_choice_has_its_declarations_options_and_each_default_keeps_its_rule(group: str) -> None:
    registry = GROUPS[group]
    assert set(registry.names()) <= set(registry.choices())
    for choice in registry.choices():
        made = registry.config(choice)
        options, presets = made[group], set(made) - {group}
        known = registry[options["name"]].options
        assert set(options) - {"name"} == set(known)
        assert choice in (options["name"], *NAMED_BESIDE.get(options["name"], []))
        assert all(option.rule.holds(options[key]) for key, option in known.items())
        assert presets <= set(FIELDS) and all(FIELDS[key].holds(made[key]) for key in presets)


def test_each_field_in_conf_has_a_rule_and_each_rule_a_field() -> None:
    top = set(load("config.yaml")) - {"defaults", "study", "hydra", "seeds", "cells", "probe"}
    assert top == {"reduction", *FIELDS}
    assert set(load("compute/local.yaml")) == set(COMPUTE_RULES) == set(MOVED)
    assert load("compute/local.yaml") == Compute()._asdict()


def test_the_identity_of_a_cell_is_its_config_without_what_is_tuned() -> None:
    tuned = ("optimizer.lr",)
    assert identity(config(optimizer__lr=0.1), tuned) == identity(config(optimizer__lr=[0.2, 0.3]), tuned)
    assert identity(config(optimizer__lr=0.1)) != identity(config(optimizer__lr=0.2))
    others = [config(seeds=2), config(batch_size=11), config(points=7), config(optimizer__momentum=0.5)]
    assert len({identity(c, tuned) for c in [config(), *others]}) == 5
    assert {identity({**config(), key: 7}, tuned) for key in COMPUTE_RULES} == {identity(config(), tuned)}


def test_a_record_without_data_seeds_is_of_one_draw_for_all_seeds() -> None:
    now, own = config(), config(data_seeds="own")
    before = {key: value for key, value in now.items() if key != "data_seeds"}
    assert make_training(before) == make_training(now) and make_training(now).data_seeds == "shared"
    assert identity(now) != identity(own)


def test_a_refusal_is_one_line_whatever_it_quotes() -> None:
    assert str(Refusal("`x` must be short, got 'a\n  b'.\n")) == "`x` must be short, got 'a b'."
