"""Probes of what is exact: translated trajectories, and how updates answer to the gradient's size."""

import inspect
from typing import Any

import pytest
import torch
import yaml

from lrscale.errors import Refusal
from lrscale.law.homogeneity import RESPONSES
from lrscale.law.least_squares import expected_excess
from lrscale.probes import PROBES, translate
from lrscale.probes import last_batch as last_batch_probe
from lrscale.probes.homogeneity import TORCH_OPTIMIZERS
from lrscale.study.config import make_training
from lrscale.tasks.registry import make_task
from lrscale.training.quantity import Quantity
from lrscale.training.reference_loop import make_module
from tests.configs import ROOT, config

ROUNDING = 1e-12


def measured(name: str, task: str = "d2l", batch_size: int = 16, accumulation: int = 1, **options: Any) -> dict[str, Quantity]:
    given = config(task=task, batch_size=batch_size, accumulation=accumulation)
    made = make_training(given | {"probe": {"name": name, **options}})
    return {quantity.name: quantity for quantity in PROBES[name].measure(made, make_task(made))}


def axis(sweep: str, key: str) -> list[str]:
    text: str = yaml.safe_load((ROOT / f"sweeps/{sweep}.yaml").read_text())["hydra"]["sweeper"]["params"][key]
    return text.split(",")


def test_every_optimizer_of_torch_with_dense_gradients_is_measured() -> None:
    chosen = [o for o in vars(torch.optim).values() if inspect.isclass(o) and issubclass(o, torch.optim.Optimizer)]
    dense = {o.__name__.lower() for o in chosen} - {"optimizer", "sparseadam"}
    assert dense == set(TORCH_OPTIMIZERS)
    assert dense | {"clipped_sgd"} == set(axis("homogeneity", "probe.optimizer"))
    assert set(translate.CASES) == set(axis("translate", "probe.optimizer"))
    for probe in ("homogeneity", "translate"):
        rule = PROBES[probe].options["optimizer"].rule
        assert set(filter(rule.holds, {*dense, *translate.CASES, "clipped_sgd"})) == set(axis(probe, "probe.optimizer"))


@pytest.mark.parametrize("size", [1.0, 1e-8])
@pytest.mark.parametrize("name", [*TORCH_OPTIMIZERS, "clipped_sgd"])
def test_p_is_what_the_update_rule_says(name: str, size: float) -> None:
    found = measured("homogeneity", optimizer=name, size=size)
    assert set(found) == {"p_first", "p_step_50", "p_first_50"}
    for quantity in found.values():
        assert quantity.expected is None or abs(quantity.value - quantity.expected) < 1e-4
    if size == 1 and name != "clipped_sgd":
        assert abs(found["p_step_50"].value - RESPONSES[name].p) < 1e-3


def test_the_same_cell_gives_the_same_numbers() -> None:
    assert measured("homogeneity", optimizer="adagrad", size=1e-8) == measured("homogeneity", optimizer="adagrad", size=1e-8)
    assert measured("translate", optimizer="sgd") == measured("translate", optimizer="sgd")


def test_mixed_cases_show_as_such() -> None:
    radam = measured("homogeneity", optimizer="radam", size=1.0)
    assert radam["p_first"].value == 1 and radam["p_step_50"].value < 1e-3 < radam["p_first_50"].value
    adam = [measured("homogeneity", optimizer="adam", size=size)["p_first"].value for size in (1.0, 1e-8, 1e-12)]
    assert adam[0] < 1e-6 and 0.4 < adam[1] < 0.45 and adam[2] > 0.999


@pytest.mark.parametrize("name", [name for name in translate.CASES if name not in ("muon", "asgd")])
def test_sum_translated_is_mean_and_no_knob_may_stay(name: str) -> None:
    exact = measured("translate", optimizer=name)
    assert exact["difference"].value == 0
    rounded = measured("translate", optimizer=name, batch_size=10)
    assert rounded["difference"].value < ROUNDING
    left = {key: quantity.value for key, quantity in exact.items() if key.endswith("left alone")}
    knobs = {"l1", "l2", "clip_value", "clip_norm", "weight_decay"} if name != "rprop" else set()
    knobs |= {"lr"} if RESPONSES[translate.CASES[name].optimizer.lower()].p else set()
    knobs |= {"eps"} if RESPONSES[translate.CASES[name].optimizer.lower()].eps and knobs else set()
    assert set(left) == {f"{knob} left alone" for knob in knobs - ({"weight_decay"} if name == "adamw" else set())}
    assert all(value > 1e-3 for value in left.values())


def test_a_trajectory_that_blows_up_is_apart() -> None:
    one = torch.ones(3, 2)
    assert translate.difference(one, one) == 0
    assert translate.difference(one, torch.tensor([[1.0, 1], [1, torch.inf], [torch.nan, 1]])) == 2
    assert translate.difference(one, -one) == 2


def test_the_loop_starts_at_a_seeds_weights() -> None:
    made = make_training(config())
    task = make_task(made)
    assert torch.equal(make_module(task, 3).weight, make_module(task, 3).weight)
    assert not torch.equal(make_module(task, 3).weight, make_module(task, 4).weight)


def last_batch(examples: int, **changes: Any) -> dict[str, Quantity]:
    given = config(task="linear", batch_size=32, task__features=8, task__examples=examples, budget__epochs=1, seeds=32, **changes)
    made = make_training(given | {"probe": {"name": "last_batch", "lr": 0.2}})
    return {quantity.name: quantity for quantity in last_batch_probe.measure(made, make_task(made))}


def test_a_short_last_batch_parts_mean_from_sum_and_not_the_nominal_sum() -> None:
    whole, short = last_batch(288), last_batch(264)
    assert whole["ln loss ratio"].value == whole["ln loss ratio"].expected == whole["ln lr ratio"].value == 0
    assert short["nominal difference"].value == 0
    ratio = short["ln loss ratio"]
    assert ratio.expected is not None and ratio.value < -0.1 and abs(ratio.value - ratio.expected) < 0.1
    assert short["ln lr ratio"].value < 0


def test_without_a_short_batch_the_recursion_is_theorys() -> None:
    made = make_training(config(task="linear", batch_size=32, task__features=8, task__examples=288, budget__epochs=2))
    source = make_task(made).population
    assert source is not None
    start = source.weights.numpy() ** 2 + last_batch_probe.INIT
    known = expected_excess(source.spectrum.numpy(), False, 32, 0.2, 18, start, source.noise)
    assert last_batch_probe.expected(made, source, 0.2, mean=True) == pytest.approx(known, rel=1e-12)


def test_a_last_batch_is_measured_where_theory_speaks() -> None:
    for changes in ({"task": "digits"}, {"task": "linear", "optimizer": "adam"}, {"task": "linear", "optimizer__momentum": 0.9}):
        with pytest.raises(Refusal, match="last_batch needs"):
            make_training(config(**changes) | {"probe": {"name": "last_batch", "lr": 0.2}})
