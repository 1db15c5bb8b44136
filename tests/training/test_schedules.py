"""Schedules against torch.optim.lr_scheduler, and the laws of their factors."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from lrscale.errors import Refusal
from lrscale.spec import Training
from lrscale.study.config import identity, make_training
from lrscale.study.theory import theory_of
from lrscale.tasks.registry import make_task
from lrscale.training.engine import train, weights_after
from lrscale.training.schedules import SCHEDULES, lr_factor, schedule_in_words
from tests.configs import config, make
from tests.loops import train_plainly

PLAIN = 1e-10  # float64; sums are taken in another order
STEPS = 30
RUN: dict[str, Any] = {"budget": "steps", "budget__steps": STEPS}
GIVEN: dict[str, dict[str, Any]] = {
    "warm-up": {"schedule": "constant", "schedule__warmup_steps": 10},
    "linear": {"schedule": "linear"},
    "linear to a fifth": {"schedule": "linear", "schedule__final": 0.2, "schedule__warmup_fraction": 0.2},
    "cosine": {"schedule": "cosine"},
    "cosine with warm-up": {"schedule": "cosine", "schedule__warmup_epochs": 0.1, "schedule__final": 0.1},
    "wsd": {"schedule": "wsd", "schedule__decay_fraction": 0.3, "schedule__warmup_steps": 5},
}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "momentum": {"optimizer__weight_decay": 0.1},
    "adamw": {"optimizer__weight_decay": 0.5},
    "rprop": {},
    "asgd": {"optimizer__lambd": 0.1},
    "adafactor": {"optimizer__weight_decay": 0.5},
}


def factors(**given: Any) -> list[float]:
    made = make(**{**RUN, **given})
    factor = lr_factor(made)
    assert factor is not None
    return [factor(step) for step in range(1, made.steps + 1)]


def theirs(make_scheduler: Any, steps: int) -> list[float]:
    """The lr of each step of a scheduler of torch, for an lr of 1."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = make_scheduler(optimizer)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_run_equals_a_plain_loop_with_torchs_lambda_lr(optimizer: str, given: str) -> None:
    common = {**OPTIMIZERS[optimizer], **RUN, **GIVEN[given], "optimizer": optimizer}
    made = make(**common, task="linear", batch_size=64, seeds=[0, 5], optimizer__lr=[0.02, 0.002], points=10)
    data = make_task(made)
    curves = train(made, data)
    for trial, place in itertools.product(range(2), range(2)):
        losses, _ = train_plainly(made, data, made.seeds[place], trial)
        assert_allclose(curves.train_loss[:, 2 * trial + place], np.array(losses)[curves.steps], rtol=PLAIN)
    acts = optimizer != "rprop" or "warmup" in str(GIVEN[given])  # its lr is the size of the first step only
    constant = make(task="linear", batch_size=64, seeds=[0, 5], optimizer__lr=[0.02, 0.002], optimizer=optimizer, **RUN)
    assert (curves.train_loss[-1] != train(constant, data).train_loss[-1]).all() == acts


def test_linear_and_cosine_fall_as_torchs_do() -> None:
    from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR

    linear = theirs(lambda o: LinearLR(o, 1.0, 0.2, total_iters=STEPS), STEPS)
    assert_allclose(factors(schedule="linear", schedule__final=0.2), linear, rtol=1e-12)
    cosine = theirs(lambda o: CosineAnnealingLR(o, T_max=STEPS, eta_min=0.1), STEPS)
    assert_allclose(factors(schedule="cosine", schedule__final=0.1), cosine, rtol=1e-12)
    warmup = theirs(lambda o: LinearLR(o, 1 / 11, 1.0, total_iters=10), STEPS)
    assert_allclose(factors(schedule="constant", schedule__warmup_steps=10), warmup, rtol=1e-12)


@pytest.mark.parametrize("given", GIVEN)
def test_factors_are_above_0_and_at_most_1_and_rise_before_they_fall(given: str) -> None:
    found = np.array(factors(**GIVEN[given]))
    assert (found > 0).all() and (found <= 1).all() and found.max() == 1
    signs = np.sign(np.diff(found))
    assert (np.diff(signs[signs != 0]) <= 0).all()


def test_wsd_whose_decay_follows_the_warm_up_is_linear_and_a_fall_to_1_is_constant() -> None:
    wsd = factors(schedule="wsd", schedule__warmup_steps=6, schedule__decay_steps=STEPS - 6, schedule__final=0.3)
    assert wsd == factors(schedule="linear", schedule__warmup_steps=6, schedule__final=0.3)
    assert set(factors(schedule="cosine", schedule__final=1)) == {1.0}


@pytest.mark.parametrize("name", ["warmup", "decay"])
def test_a_length_is_the_same_in_every_unit(name: str) -> None:
    """With 10 steps an epoch, 15 steps are 1.5 epochs and half of the run."""
    common: dict[str, Any] = {"schedule": "wsd", "batch_size": 100} | ({"schedule__decay_steps": 3} if name == "warmup" else {})
    given = [{f"schedule__{name}_steps": 15}, {f"schedule__{name}_epochs": 1.5}, {f"schedule__{name}_fraction": 0.5}]
    one, *others = (factors(**common, **length) for length in given)
    assert others == [one, one] and len(set(one)) > 3


def test_constant_is_the_default_and_changes_nothing() -> None:
    without = {key: value for key, value in config().items() if key != "schedule"}
    spelled = [without, {**without, "schedule": None}, config(), config(schedule__warmup_steps=0)]
    assert len({identity(values) for values in spelled}) == 1
    assert all(make_training(values) == make() and make().schedule is None for values in spelled)
    assert lr_factor(make()) is None
    others = [config(**{**RUN, **given}) for given in GIVEN.values()]
    assert len({identity(values) for values in [*others, config(**RUN)]}) == len(others) + 1


def test_plain_sgd_takes_strides_only_where_the_lr_is_constant() -> None:
    """Steps of few examples are taken several at once, with one lr."""
    made = make(task="linear", task__examples=64, batch_size=2, optimizer__lr=0.05, schedule="linear", schedule__final=0.1)
    losses, _ = train_plainly(made, make_task(made), 0)
    curves = train(made, make_task(made))
    assert_allclose(curves.train_loss[:, 0], np.array(losses)[curves.steps], rtol=PLAIN)


def test_weights_after_some_steps_are_those_of_the_schedule() -> None:
    made = make(**RUN, task="linear", schedule="cosine", schedule__warmup_steps=5, optimizer__lr=0.02, batch_size=64)
    task = make_task(made)
    assert task.optimum is not None
    excess = task.optimum.excess(weights_after(made, task, STEPS))
    assert_allclose(excess[0], train(made, task).excess_risk[-1], rtol=PLAIN)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_sum_at_lr_over_b_is_mean_at_lr_bit_for_bit(optimizer: str) -> None:
    common: dict[str, Any] = {**RUN, "task": "linear", "batch_size": 64, "drop_last": True, "schedule": "cosine"}
    common |= {"schedule__warmup_fraction": 0.2, "optimizer": optimizer}
    p = 0 if optimizer == "adam" else 1
    scaled = {"optimizer__eps": 64e-8} if optimizer == "adam" else {}
    by_mean = make(**common, reduction="mean", optimizer__lr=0.01)
    by_sum = make(**common, **scaled, reduction="sum", optimizer__lr=0.01 / 64**p)
    assert_array_equal(*(train(made, make_task(made)).train_loss for made in (by_mean, by_sum)))


def test_theory_is_withheld_where_the_lr_is_not_constant() -> None:
    assert theory_of(make(task="linear", objective="population_risk", task__noise=0.0), 1).best_lr is not None
    theory = theory_of(make(task="linear", objective="population_risk", task__noise=0.0, schedule="cosine"), 1)
    assert theory == (None, None, "it is known for a constant lr without warm-up only, got schedule cosine.")


TARGET: dict[str, Any] = {"budget": "target", "objective": "steps_to_target"}
NONSENSE: list[tuple[dict[str, Any], str]] = [
    (
        {"schedule__warmup_steps": 31},
        "`schedule` constant must fit in the run's 30 steps, got 31 steps of warm-up.",
    ),
    ({"schedule__warmup_epochs": 1.0}, "must fit in the run's 30 steps, got 100 steps of warm-up"),
    ({"schedule": "cosine", "schedule__warmup_steps": 31}, "must fit in the run's 30 steps, got 31 steps of warm-up"),
    ({"schedule": "linear", "schedule__warmup_steps": 30}, "`schedule` linear needs a decay of at least 1 step, got 0"),
    ({"schedule": "wsd", "schedule__warmup_steps": 20, "schedule__decay_steps": 11}, "got 20 steps of warm-up and 11 of decay"),
    ({"schedule": "wsd"}, "`schedule` wsd needs the length of its decay, got none. Take schedule.decay_fraction=0.2."),
    ({"schedule": "wsd", "schedule__decay_steps": 0}, "`schedule` wsd needs a decay of at least 1 step, got 0"),
    (
        {"schedule__warmup_steps": 3, "schedule__warmup_fraction": 0.1},
        "a schedule's warmup must be given once, got schedule.warmup_steps and schedule.warmup_fraction. Set all",
    ),
    ({"schedule": "linear", "schedule__final": 1.5}, "`schedule.final` must be >= 0 and <= 1, got 1.5"),
    ({"schedule__warmup_steps": -1}, "`schedule.warmup_steps` must be a whole number"),
    ({"schedule__warmup_epochs": 1e308}, "`schedule.warmup_epochs` must be >= 0 and <= 1000000"),
    ({"schedule__warmup_fraction": math.nan}, "`schedule.warmup_fraction` must be >= 0 and <= 1"),
    ({**TARGET, "schedule__warmup_fraction": 0.1}, "`schedule.warmup_fraction` needs a run whose length is known"),
    ({**TARGET, "schedule": "cosine"}, "`schedule` cosine needs a run whose length is known, got budget=target"),
]


@pytest.mark.parametrize(("given", "says"), NONSENSE)
def test_nonsense_is_refused(given: dict[str, Any], says: str) -> None:
    run = {} if given.get("budget") == "target" else RUN
    with pytest.raises(Refusal) as refused:
        make(**{**run, "schedule": "constant", **given})
    assert says in str(refused.value)


def test_a_probe_needs_a_constant_lr() -> None:
    probe = {"name": "homogeneity", "optimizer": "adam", "size": 1.0}
    assert isinstance(make(probe=probe), Training)
    with pytest.raises(Refusal, match="`probe` homogeneity measures at a constant lr, got schedule cosine"):
        make(probe=probe, schedule="cosine")


def test_a_target_can_be_reached_with_a_warm_up() -> None:
    made = make(**TARGET, budget__target=0.05, budget__max_steps=400, optimizer__lr=0.03, schedule__warmup_steps=50)
    curves = train(made, make_task(made))
    losses, _ = train_plainly(made, make_task(made), 0)
    first = next(step for step, loss in enumerate(losses) if loss <= 0.05)
    assert first - 1 <= curves.steps_to_target[0] <= first and first > 25


def test_words_name_what_is_given() -> None:
    assert schedule_in_words(None) == schedule_in_words(config()["schedule"]) == ""
    assert schedule_in_words(config(**GIVEN["wsd"])["schedule"]) == "wsd warmup_steps=5 decay_fraction=0.3 final=0.0"
    assert set(SCHEDULES.names()) == {"constant", "linear", "cosine", "wsd"}
