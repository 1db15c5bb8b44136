"""The probe of noise scales: its estimates are theory's on least squares, and its gradients are autograd's."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from lrscale.errors import Refusal
from lrscale.probes.noise_scale import fresh, gradient_norms, measure, one_step_lr
from lrscale.spec import Training
from lrscale.tasks.built_in import BuiltInTask
from lrscale.tasks.registry import make_task
from lrscale.training.built_in_runs import batch_gradients
from lrscale.training.engine import train, weights_after
from lrscale.training.quantity import Quantity
from tests.configs import make

OPTIONS = {"name": "noise_scale", "fraction": 0.0, "small": 8, "big": 256, "pairs": 200, "steps": 100}
LINEAR = {"task": "linear", "task__features": 6, "task__bias": True, "optimizer__lr": 0.1, "seeds": 2}


def cell(fraction: float, **changes: object) -> tuple[Training, BuiltInTask]:
    made = make(**LINEAR | {"probe": OPTIONS | {"fraction": fraction}} | changes)
    return made, make_task(made)


def measured(fraction: float, **changes: object) -> dict[str, Quantity]:
    return {q.name: q for q in measure(*cell(fraction, **changes))}


@pytest.mark.parametrize("fraction", [0.0, 0.02, 0.1])
def test_b_simple_is_theorys_along_training(fraction: float) -> None:
    found = measured(fraction)["b_simple"]
    assert found.expected is not None and found.low is not None and found.high is not None
    assert abs(np.log(found.value / found.expected)) < 0.25
    width = found.high - found.low
    assert found.low - width < found.expected < found.high + width


@pytest.mark.parametrize("batch_size", [1, 8, 64])
@pytest.mark.parametrize("bias", [False, True])
def test_the_best_lr_of_one_step_is_theorys(batch_size: int, bias: bool) -> None:
    found = measured(0.0, batch_size=batch_size, task__bias=bias)["one_step_lr"]
    assert found.expected is not None
    assert abs(np.log(found.value / found.expected)) < 0.12


def test_the_lr_is_in_the_trainings_own_reduction_and_the_noise_scale_of_none() -> None:
    by_mean, by_sum = (measured(0.0, batch_size=8, reduction=reduction) for reduction in ("mean", "sum"))
    assert by_sum["b_simple"] == by_mean["b_simple"]
    for end in ("value", "low", "high", "expected"):
        assert_allclose(8 * getattr(by_sum["one_step_lr"], end), getattr(by_mean["one_step_lr"], end), rtol=1e-12)


def test_one_step_is_measured_at_the_start_alone_and_equal_cells_give_equal_numbers() -> None:
    first = measured(0.1)
    assert set(first) == {"b_simple"} and first == measured(0.1)


def test_an_interval_without_an_end_is_left_out() -> None:
    found = measured(1.0, probe=OPTIONS | {"fraction": 1.0, "pairs": 3, "small": 1, "big": 2}, optimizer__lr=0.3, task__noise=1.0)
    assert all(q.high is None or np.isfinite(q.high) for q in found.values())


@pytest.mark.parametrize("task", ["digits", "digits_mlp", "linear"])
def test_the_gradients_of_batches_are_autograds(task: str) -> None:
    changes = {"task": task, "dtype": "float64", "optimizer__lr": 0.1}
    made = make(**changes)
    known = make_task(made)
    start = [w[0] for w in weights_after(made, known, 3)]
    before = [w.clone() for w in start]
    x, y = fresh(known, 5 * 4, "here")
    found = batch_gradients(known, start, x.view(5, 4, -1), y.view(5, 4))
    norms = gradient_norms(known, start, 5, 4, "here")
    for k in range(5):
        leaves = [w.unsqueeze(0).clone().requires_grad_() for w in start]
        part = slice(4 * k, 4 * k + 4)
        known.model.losses(leaves, x[None, part], y[None, part]).mean().backward()
        for leaf, gradient in zip(leaves, found, strict=True):
            assert leaf.grad is not None
            assert_allclose(gradient[k], leaf.grad[0], atol=1e-12)
        square = sum(float(leaf.grad.square().sum()) for leaf in leaves if leaf.grad is not None)
        assert_allclose(norms[k], square**0.5, rtol=1e-10)
    assert all(torch.equal(a, b) for a, b in zip(start, before, strict=True))


@pytest.mark.parametrize("task", ["digits", "linear"])
def test_the_weights_after_some_steps_are_those_of_training(task: str) -> None:
    changes = {"task": task, "optimizer": "momentum", "optimizer__lr": 0.05, "seeds": 2, "budget": "steps", "budget__steps": 7}
    made = make(**changes, dtype="float64")
    known = make_task(made)
    weights = weights_after(made, known, 7)
    losses = known.model.losses([w.flatten(0, 1).unsqueeze(0) for w in weights], known.data.x[None], known.data.y[None]).mean(-1)
    assert_allclose(losses[0], train(made, known).train_loss[-1], rtol=1e-10)


def test_a_networks_best_step_grows_with_the_batch() -> None:
    made = make(task="digits", seeds=2)
    known = make_task(made)
    weights = weights_after(made, known, 0)
    lrs = [one_step_lr(known, weights, size, 24, made.seeds).value for size in (4, 32, 256)]
    assert lrs == sorted(lrs) and 1 < lrs[1] / lrs[0] < 8


def test_batches_of_one_size_are_refused() -> None:
    with pytest.raises(Refusal, match="must be below probe"):
        make(probe=OPTIONS | {"small": 256})
