"""The update rules against torch.optim's own classes, with defaults and with other options."""

import inspect
import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn
from torch.nn.functional import cross_entropy

from lrscale.errors import Refusal
from lrscale.spec import Choice, Training
from lrscale.streams import generator
from lrscale.tasks.own import Task
from lrscale.tasks.registry import make_task
from lrscale.training.engine import train
from lrscale.training.minibatches import batch_order
from lrscale.training.optimizers import LEFT_OUT, OPTIMIZERS
from tests.configs import make
from tests.loops import CLASSES, train_plainly

PLAIN = 1e-10  # float64; sums are taken in another order
RULES: dict[str, dict[str, Any]] = {
    "adadelta": {},
    "adadelta decay": {"rho": 0.5, "eps": 0.01, "weight_decay": 0.1},
    "adamax": {},
    "adamax decay": {"betas": [0.5, 0.8], "eps": 0.01, "weight_decay": 0.1},
    "nadam": {},
    "nadam decay": {"momentum_decay": 0.5, "weight_decay": 0.1, "betas": [0.5, 0.8]},
    "nadam decoupled": {"decoupled_weight_decay": True, "weight_decay": 0.1, "eps": 0.01},
    "radam": {},
    "radam decay": {"betas": [0.5, 0.8], "weight_decay": 0.1, "eps": 0.01},
    "radam decoupled": {"decoupled_weight_decay": True, "weight_decay": 0.1},
    "asgd": {},
    "asgd decay": {"lambd": 0.5, "alpha": 2.0, "weight_decay": 0.1},
    "rprop": {},
    "rprop sizes": {"etas": [0.3, 1.5], "step_sizes": [1e-4, 5e-3]},
    "adafactor": {},
    "adafactor decay": {"beta2_decay": -0.5, "eps": [1e-3, 0.1], "d": 2.0, "weight_decay": 0.1},
}
TASKS: dict[str, dict[str, Any]] = {
    "linear": {"task": "linear", "task__spectrum": "power_law", "task__bias": True},
    "mlp": {"task": "digits", "task__model": "mlp", "task__hidden": 16},
}
MUON: dict[str, dict[str, Any]] = {
    "defaults": {},
    "plain": {"nesterov": False, "momentum": 0.5, "weight_decay": 0.0, "adjust_lr_fn": "original"},
    "like adamw": {"adjust_lr_fn": "match_rms_adamw", "ns_steps": 3, "ns_coefficients": [2.0, -1.5, 0.5], "eps": 0.5},
}


def options_of(name: str, given: dict[str, Any], lrs: list[float]) -> dict[str, Any]:
    return {"optimizer": name, "optimizer__lr": lrs} | {f"optimizer__{key}": value for key, value in given.items()}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("task", TASKS)
def test_every_rule_is_that_of_torch_optim(task: str, rule: str) -> None:
    """The weights of linear regression are a vector here, and one row in the plain loop: for Adafactor the same but for its
    first floor, which does not act in these steps."""
    is_large = (task, rule) == ("mlp", "adafactor decay")  # an lr above step^-0.5, which Adafactor limits
    common = options_of(rule.split()[0], RULES[rule], [0.5 if is_large else 0.01, 0.002])
    made = make(
        **TASKS[task], **common, batch_size=96, seeds=[0, 5], budget="steps", budget__steps=25, dtype="float64", points=20
    )
    data = make_task(made)
    curves = train(made, data)
    for trial, place in itertools.product(range(2), range(2)):
        losses, norms = train_plainly(made, data, made.seeds[place], trial)
        column = trial * 2 + place
        assert_allclose(curves.train_loss[:, column], np.array(losses)[curves.steps], rtol=PLAIN)
        assert_allclose(curves.grad_norm[1:, column], np.array(norms)[curves.steps[1:] - 1], rtol=PLAIN)
    assert len(np.unique(curves.train_loss[-1])) == 4 and (curves.train_loss[-1] != curves.train_loss[0]).all()


def matrices() -> nn.Module:
    """Two layers, one with more rows than columns and one with fewer."""
    return nn.Sequential(nn.Linear(6, 16, bias=False), nn.ReLU(), nn.Linear(16, 3, bias=False))


def task_of_matrices() -> Task:
    stream = torch.Generator().manual_seed(1)
    x = torch.randn(64, 6, generator=stream, dtype=torch.float64)
    y = torch.randint(0, 3, (64,), generator=stream)
    return Task(matrices, cross_entropy, (x, y), (x, y))


def training_of_muon(given: dict[str, Any], **changes: Any) -> Training:
    """A training with Muon; the tasks of the program have parameters that are no matrices, so the config has another task."""
    made = make(batch_size=16, seeds=[0, 5], budget="steps", budget__steps=20, dtype="float64", points=20, **changes)
    options = {key: option.default for key, option in OPTIMIZERS["muon"].options.items()} | given
    return replace(made, optimizer=Choice("muon", {**options, "lr": (0.05, 0.002)}), examples=64)


def muon_losses(made: Training, task: Task, seed: int, trial: int) -> list[float]:
    """Whole-data losses before each step, of a plain loop."""
    module = task.fresh(generator("init", seed)).double()
    options = {**made.optimizer.options, "lr": made.optimizer.options["lr"][trial]}
    optimizer, losses = torch.optim.Muon(module.parameters(), **options), []
    x, y = (tree.double() if tree.is_floating_point() else tree for tree in (task.train.x, task.train.y))
    step = 0
    for epoch in itertools.count():
        for indices in batch_order(seed, epoch, made.examples).split(made.step_examples):
            with torch.no_grad():
                losses.append(float(cross_entropy(module(x), y)))
            if step == made.steps:
                return losses
            optimizer.zero_grad()
            cross_entropy(module(x[indices]), y[indices]).backward()
            optimizer.step()
            step += 1
    raise AssertionError


@pytest.mark.parametrize("given", MUON)
def test_muon_is_that_of_torch_optim_for_matrices(given: str) -> None:
    made, task = training_of_muon(MUON[given]), task_of_matrices()
    curves = train(made, task)
    for trial, place in itertools.product(range(2), range(2)):
        losses = muon_losses(made, task, made.seeds[place], trial)
        assert_allclose(curves.train_loss[:, trial * 2 + place], np.array(losses)[curves.steps], rtol=PLAIN)


def test_muon_refuses_what_is_no_matrix() -> None:
    made = training_of_muon({})
    x = torch.randn(64, 6, dtype=torch.float64)
    rows = (x, x[:, 0])
    task = Task(lambda: nn.Linear(6, 1), lambda out, y: (out.squeeze(-1) - y).abs(), rows, rows)
    with pytest.raises(Refusal, match=r"`optimizer` muon takes parameters that are matrices only, got one of shape \(1,\)"):
        train(made, task)
    with pytest.raises(Refusal, match=r"`optimizer` muon takes parameters that are matrices only, .* got task digits"):
        make(task="digits", optimizer="muon")


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_options_and_defaults_are_those_of_torch(name: str) -> None:
    theirs = {key: p.default for key, p in inspect.signature(CLASSES[name]).parameters.items()}
    theirs = {key: default for key, default in theirs.items() if key not in ("params", *LEFT_OUT)}
    if name in ("adam", "adamw"):
        theirs.pop("decoupled_weight_decay", None)  # adam with it is adamw
    ours = {key: option.default for key, option in OPTIMIZERS[name].options.items()}
    assert ours == {key: list(value) if isinstance(value, tuple) else value for key, value in theirs.items()}


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS.names() if name != "muon"])
def test_runs_do_not_know_their_neighbours(name: str) -> None:
    """Also where a rule has a norm or a mean over a whole parameter: it is that of one run."""
    common: dict[str, Any] = {"optimizer": name, "task": "digits_mlp", "seeds": 2, "budget": "steps", "budget__steps": 8}
    calm = train(made := make(**common, optimizer__lr=[0.01, 0.02, 0.03]), make_task(made))
    wild = train(made := make(**common, optimizer__lr=[0.01, 1e30, 0.03]), make_task(made))
    outer = [0, 1, 4, 5]
    assert_array_equal(wild.train_loss[:, outer], calm.train_loss[:, outer])
    assert not np.array_equal(wild.train_loss, calm.train_loss)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS.names() if name != "muon"])
def test_options_of_their_own_for_each_trial_equal_separate_trainings(name: str) -> None:
    declared = OPTIMIZERS[name].options
    common: dict[str, Any] = {"optimizer": name, "task": "digits_mlp", "budget": "steps", "budget__steps": 8, "dtype": "float64"}
    values = {key: ([0.01, 0.02] if key == "lr" else [0.1, 0.3]) for key, option in declared.items() if option.tunable}
    both = train(made := make(**common, **{f"optimizer__{key}": value for key, value in values.items()}), make_task(made))
    for trial in range(2):
        own = {f"optimizer__{key}": value[trial] for key, value in values.items()}
        one = train(made := make(**common, **own), make_task(made))
        assert_allclose(both.train_loss[:, [trial]], one.train_loss, rtol=1e-12)


@pytest.mark.parametrize("name", ["adamax", "nadam", "asgd", "rprop", "adadelta", "radam", "adafactor"])
def test_a_gradient_times_s_is_made_good_by_an_lr_times_s_to_the_minus_p(name: str) -> None:
    """Exactly where the declaration says so. Adafactor has a floor here that acts, and RAdam has p = 1 in its first steps."""
    size, rule = 64, OPTIMIZERS[name]
    knobs = {key: 0.01 for key in rule.companions if key in rule.options}
    common: dict[str, Any] = {"optimizer": name, "task": "digits_mlp", "batch_size": size, "drop_last": True}
    common |= {"budget": "steps", "budget__steps": 20, "dtype": "float64"}
    common |= {"optimizer__eps": [0.001, 0.001]} if name == "adafactor" else {}
    curves = []
    for reduction, s in (("mean", 1), ("sum", size)):
        own = {f"optimizer__{key}": value * s ** rule.companions[key] for key, value in knobs.items()}
        made = make(**common, **own, reduction=reduction, optimizer__lr=0.01 * s**-rule.homogeneity)
        curves.append(train(made, make_task(made)).train_loss)
    assert np.array_equal(*curves) == rule.is_exact
    assert name in ("radam", "adafactor") or np.allclose(*curves, rtol=0.02)


def test_a_decoupled_decay_goes_with_the_lr() -> None:
    nadam = OPTIMIZERS["nadam"]
    assert nadam.powers({"decoupled_weight_decay": False}) == {"weight_decay": 1, "eps": 1}
    assert nadam.powers({"decoupled_weight_decay": True}) == {"weight_decay": 0, "eps": 1}


@pytest.mark.parametrize("name", ["sparse_adam", "sparseadam", "lbfgs"])
def test_what_cannot_be_chosen_says_why(name: str) -> None:
    reason = {"lbfgs": "a closure"}.get(name, "sparse gradients")
    with pytest.raises(Refusal, match=f"`optimizer` cannot be {name}: .*{reason}.* Take optimizer="):
        OPTIMIZERS.check_choice(name)
