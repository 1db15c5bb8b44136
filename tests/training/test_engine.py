"""The engine against the plain loop, and the laws of the run axis."""

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from lrscale.errors import Refusal
from lrscale.spec import Compute, Training
from lrscale.tasks.registry import make_task
from lrscale.training.engine import Curves, recording_steps, train, trials_in_memory, weights_after
from lrscale.training.minibatches import batch_order, minibatches
from lrscale.training.optimizers import OPTIMIZERS as OPTIMIZER_TABLE
from lrscale.training.results import results
from tests.configs import make
from tests.loops import train_plainly

PLAIN = 1e-10  # float64; sums are taken in another order
CHUNKS = 1e-12  # float64; a product of other sizes may add up in another order

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "sgd decay": {"optimizer__weight_decay": 0.01},
    "sgd momentum": {"optimizer__momentum": 0.9, "optimizer__dampening": 0.1, "optimizer__weight_decay": 0.01},
    "sgd nesterov": {"optimizer__momentum": 0.9, "optimizer__nesterov": True},
    "adam": {"optimizer__weight_decay": 0.01},
    "adam amsgrad": {"optimizer__amsgrad": True},
    "adamw": {},
    "rmsprop": {},
    "rmsprop centered": {"optimizer__centered": True, "optimizer__momentum": 0.9},
    "adagrad": {"optimizer__lr_decay": 0.01, "optimizer__initial_accumulator_value": 0.1},
}
TASKS: dict[str, dict[str, Any]] = {
    "d2l": {"task": "d2l"},
    "linear": {"task": "linear", "task__spectrum": "power_law", "task__bias": True},
    "digits softmax": {"task": "digits"},
    "digits mlp": {"task": "digits", "task__model": "mlp", "task__hidden": 16},
}


def run(training: Training) -> Curves:
    return train(training, make_task(training))


@pytest.mark.parametrize("reduction", ["mean", "sum", "sum_over_nominal"])
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("task", TASKS)
def test_every_run_equals_a_plain_loop_of_torch_optim(task: str, name: str, reduction: str) -> None:
    small = name.startswith("sgd") and reduction == "sum"
    made = make(
        **TASKS[task],
        **OPTIMIZERS[name],
        optimizer=name.split()[0],
        optimizer__lr=[1e-4, 2e-5] if small else [0.01, 0.002],
        reduction=reduction,
        batch_size=48,
        accumulation=2,
        seeds=[0, 5],
        budget="steps",
        budget__steps=25,
        dtype="float64",
    )
    curves = run(made)
    for trial, place in itertools.product(range(2), range(2)):
        task_made = make_task(made)
        losses, norms = train_plainly(made, task_made, made.seeds[place], trial)
        column = trial * 2 + place
        assert_allclose(curves.train_loss[:, column], np.array(losses)[curves.steps], rtol=PLAIN)
        assert_allclose(curves.grad_norm[1:, column], np.array(norms)[curves.steps[1:] - 1], rtol=PLAIN)


def test_fashion_mnist_equals_a_plain_loop() -> None:
    common: dict[str, Any] = {"task": "fashion_mnist", "task__examples": 600, "dtype": "float64", "optimizer__lr": 0.1}
    for model in ("softmax", "mlp"):
        made = make(**common, task__model=model, batch_size=64, budget="steps", budget__steps=12)
        task = make_task(made)
        losses, _ = train_plainly(made, task, 0)
        curves = train(made, task)
        assert_allclose(curves.train_loss[:, 0], np.array(losses)[curves.steps], rtol=PLAIN)


@pytest.mark.parametrize("drop_last", [False, True])
def test_short_last_batches_equal_a_plain_loop(drop_last: bool) -> None:
    made = make(batch_size=96, accumulation=3, drop_last=drop_last, optimizer__lr=0.02, budget__epochs=2)
    losses, _ = train_plainly(made, make_task(made), 0)
    curves = run(made)
    assert curves.steps[-1] == made.steps == len(losses) - 1 == (6 if drop_last else 8)
    assert_allclose(curves.train_loss[:, 0], np.array(losses)[curves.steps], rtol=PLAIN)


OWN: dict[str, dict[str, Any]] = {
    "strides": {"batch_size": 16},
    "short last batch": {"batch_size": 48, "accumulation": 2},
    "adam": {"batch_size": 16, "optimizer": "adam", "task__bias": True, "task__spectrum": "power_law"},
    "memory for one lr": {"batch_size": 16, "points": 250},
}


@pytest.mark.parametrize("name", OWN)
def test_runs_on_data_of_their_own_equal_a_plain_loop(name: str) -> None:
    common: dict[str, Any] = {"task": "linear", "task__examples": 200, "data_seeds": "own", "seeds": [0, 5, 3]}
    made = make(**common, **OWN[name], optimizer__lr=[0.01, 0.02])
    task = make_task(made)
    curves = train(made, task, Compute(memory_mb=1 if name == "memory for one lr" else 1024))
    population = task.population
    assert population is not None
    for trial, place in itertools.product(range(2), range(3)):
        column = 3 * trial + place
        losses, _ = train_plainly(made, task, made.seeds[place], trial)
        assert_allclose(curves.train_loss[:, column], np.array(losses)[curves.steps], rtol=PLAIN)
        weights = weights_after(made, task, made.steps)[0][place, trial]
        x, y = task.data_of(place).x_valid, task.data_of(place).y_valid
        assert_allclose(curves.valid_loss[column], (x @ weights - y).square().mean() / 2, rtol=PLAIN)
        assert_allclose(curves.population_risk[-1, column], population.excess([weights]), rtol=PLAIN)
    assert len(set(curves.minibatch_loss[0])) == 3  # all lrs of a seed have one draw


def test_a_task_with_other_data_draws_is_refused() -> None:
    shared, own = make(seeds=2), make(seeds=2, data_seeds="own")
    for training, task in ((shared, make_task(own)), (own, make_task(shared)), (make(seeds=3, data_seeds="own"), make_task(own))):
        with pytest.raises(Refusal, match="`task` must have the data draws"):
            train(training, task)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("batch_size", [1, 8, 128, 1024])
def test_sum_at_lr_over_b_is_mean_at_lr_bit_for_bit(dtype: str, momentum: float, batch_size: int) -> None:
    common: dict[str, Any] = {"task": "linear", "dtype": dtype, "batch_size": batch_size, "seeds": 3, "budget__epochs": 2}
    common["optimizer__momentum"] = momentum
    lrs = [0.0001, 0.001, 0.003]
    by_mean = run(make(**common, reduction="mean", optimizer__lr=lrs))
    by_sum = run(make(**common, reduction="sum", optimizer__lr=[lr / batch_size for lr in lrs]))
    assert np.isfinite(by_mean.train_loss).all()
    assert_array_equal(by_sum.train_loss, by_mean.train_loss)
    assert_array_equal(by_sum.grad_norm, by_mean.grad_norm * batch_size)


def test_other_batch_sizes_agree_to_rounding() -> None:
    common: dict[str, Any] = {"batch_size": 10, "seeds": 2}
    by_mean = run(make(**common, reduction="mean", optimizer__lr=0.03))
    by_sum = run(make(**common, reduction="sum", optimizer__lr=0.003))
    assert_allclose(by_sum.train_loss, by_mean.train_loss, rtol=PLAIN)
    assert not np.array_equal(by_sum.train_loss, by_mean.train_loss)


@pytest.mark.parametrize("task", ["d2l", "digits mlp"])
def test_a_diverging_run_changes_nothing_in_its_neighbours(task: str) -> None:
    common: dict[str, Any] = {**TASKS[task], "batch_size": 16, "seeds": 2, "budget": "steps", "budget__steps": 60}
    calm = run(make(**common, optimizer__lr=[0.01, 0.02, 0.03]))
    wild = run(make(**common, optimizer__lr=[0.01, 1e200 if task == "d2l" else 1e30, 0.03]))
    assert not np.isfinite(wild.train_loss[-1, 2:4]).any()
    for line in ("train_loss", "minibatch_loss", "grad_norm", "valid_loss"):
        outer = [0, 1, 4, 5]
        assert_array_equal(getattr(wild, line)[..., outer], getattr(calm, line)[..., outer])


def test_order_of_trials_and_seeds_does_not_matter() -> None:
    forth = run(make(optimizer__lr=[0.01, 0.02, 0.04], seeds=[3, 7]))
    back = run(make(optimizer__lr=[0.04, 0.02, 0.01], seeds=[7, 3]))
    assert_array_equal(forth.train_loss, back.train_loss[:, ::-1])


@pytest.mark.parametrize("task", TASKS)
def test_chunks_that_fit_the_memory_change_numbers_by_rounding_only(task: str) -> None:
    common: dict[str, Any] = {**TASKS[task], "dtype": "float64", "batch_size": 100, "budget": "steps", "budget__steps": 20}
    trials = 12 if task.startswith("digits") else 1000
    common |= {"seeds": 8, "optimizer__lr": np.geomspace(1e-3, 0.1, trials).tolist()}
    made = make(**common)
    data = make_task(made)
    assert trials_in_memory(made, data, Compute(memory_mb=100_000)) >= trials > trials_in_memory(made, data, Compute(memory_mb=1))
    whole, parts, again = (train(made, data, Compute(memory_mb=memory_mb)).train_loss for memory_mb in (100_000, 1, 1))
    assert_allclose(parts, whole, rtol=CHUNKS)
    assert_array_equal(parts, again)


def test_tuned_hyperparameters_have_one_value_a_trial() -> None:
    both = run(make(optimizer__lr=[0.01, 0.02], optimizer__momentum=[0.5, 0.9], optimizer__weight_decay=0.01, seeds=2))
    second = run(make(optimizer__lr=0.02, optimizer__momentum=0.9, optimizer__weight_decay=0.01, seeds=2))
    assert_allclose(both.train_loss[:, 2:], second.train_loss, rtol=CHUNKS)


def test_steps_to_a_target_are_those_of_the_plain_loop() -> None:
    made = make(
        budget="target", budget__target=0.05, budget__max_steps=400, objective="steps_to_target", optimizer__lr=[0.03, 1e-6]
    )
    curves = run(made)
    losses, _ = train_plainly(made, make_task(made), 0)
    first = next(step for step, loss in enumerate(losses) if loss <= 0.05)
    before, after = np.log(losses[first - 1 : first + 1])
    crossing = first - 1 + (before - np.log(0.05)) / (before - after)
    assert_allclose(curves.steps_to_target, [crossing, np.inf], rtol=1e-9)


def test_training_stops_when_every_run_has_reached_the_target() -> None:
    common: dict[str, Any] = {"budget": "target", "budget__target": 0.05, "objective": "steps_to_target", "optimizer__lr": 0.03}
    soon, late = (run(make(**common, budget__max_steps=limit)) for limit in (400, 40_000_000))
    assert soon.steps_to_target == late.steps_to_target


def test_curves_have_a_point_at_each_epochs_end() -> None:
    made = make(batch_size=10, points=5, budget__epochs=3)
    assert {0, 1, 100, 200, 300} <= set(recording_steps(made))
    assert run(made).steps.tolist() == recording_steps(made)
    assert len(recording_steps(make(batch_size=10, points=5, budget__epochs=5000))) <= 108


def test_a_record_is_cut_where_a_seed_diverges() -> None:
    made = make(optimizer__lr=[0.03, 2.5], seeds=2)
    calm, wild = results(made, run(made))
    assert calm.diverged == (False, False) and len(calm.curves["train_loss"]) == len(calm.steps) == len(recording_steps(made))
    assert wild.diverged == (True, True) and wild.objectives == (np.inf, np.inf) and wild.objective == np.inf
    assert 1 <= len(wild.curves["train_loss"]) < len(calm.steps) and np.isfinite(wild.curves["train_loss"]).all()


def test_an_objective_is_that_of_each_seed() -> None:
    made = make(optimizer__lr=[0.03, 0.01], seeds=3)
    curves = run(made)
    for trial, result in enumerate(results(made, curves)):
        assert result.objectives == tuple(curves.excess_risk[-1, 3 * trial : 3 * trial + 3])
        assert result.objective == pytest.approx(np.mean(result.objectives))
        assert result.examples[-1] == 3000
        assert result.ends["population_risk"] == pytest.approx(curves.population_risk[-1, 3 * trial : 3 * trial + 3].mean())
        assert len(result.curves["population_risk"]) == len(result.curves["excess_risk"]) == len(result.steps)


def test_risks_are_left_out_where_they_are_unknown() -> None:
    made = make(task="digits", budget="steps", budget__steps=2)
    (result,) = results(made, run(made))
    assert not {"population_risk", "excess_risk"} & {*result.curves, *result.ends}


def test_the_population_risk_can_be_the_objective() -> None:
    made = make(optimizer__lr=0.03, seeds=2, objective="population_risk", data_seeds="own")
    curves = run(made)
    (result,) = results(made, curves)
    assert result.objectives == tuple(curves.population_risk[-1])


def test_each_seed_and_epoch_has_an_order_of_its_own_and_all_batch_sizes_share_it() -> None:
    orders = {tuple(batch_order(seed, epoch, 50).tolist()) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9 and all(sorted(order) == list(range(50)) for order in orders)
    made = make(task="linear", task__examples=64, batch_size=8, seeds=[0, 4])
    whole = make(task="linear", task__examples=64, batch_size=16, seeds=[0, 4])
    small, large = (minibatches(m, make_task(m)) for m in (made, whole))
    first, second, both = next(small), next(small), next(large)
    assert_array_equal(np.concatenate([first.x, second.x], 1), both.x)
    assert not np.array_equal(both.x[0], both.x[1])


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop", "adagrad"])
def test_a_gradient_times_s_is_made_good_by_an_lr_times_s_to_the_minus_p(name: str) -> None:
    p, size = OPTIMIZER_TABLE[name].homogeneity, 50
    common: dict[str, Any] = {"optimizer": name, "batch_size": size, "seeds": 2}
    common |= {} if name == "sgd" else {"optimizer__eps": 0.0}
    curves = run(make(**common, reduction="sum", optimizer__lr=[0.01 * size**-p]))
    assert_allclose(curves.train_loss, run(make(**common, optimizer__lr=[0.01])).train_loss, rtol=1e-9)
    assert not np.allclose(curves.train_loss[-1], curves.train_loss[0], rtol=1e-3)
