"""The probe of curvature: its eigenvalues are those of dense Hessians, and its noise scale that of autograd's gradients."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor

from lrscale.probes.curvature import measure
from lrscale.spec import Training
from lrscale.tasks.built_in import BuiltInTask
from lrscale.tasks.registry import make_task
from lrscale.training.engine import weights_after
from lrscale.training.lanczos import Array, largest_eigenvalues
from lrscale.training.landscape import BuiltInLandscape
from lrscale.training.quantity import Quantity
from tests.configs import make

OPTIONS = {"name": "curvature", "fraction": 0.5, "iterations": 200}
SMALL = {"task": "digits_mlp", "task__hidden": 3, "dtype": "float64", "optimizer__lr": 0.2, "batch_size": 8, "seeds": 2}
RTOL = 1e-5
"""The error of an eigenvalue is about the square of its residual, 1e-6."""


def cell(**changes: object) -> tuple[Training, BuiltInTask]:
    training = make(**SMALL | {"probe": OPTIONS, "budget": "steps", "budget__steps": 100} | changes)
    task = make_task(training)
    assert isinstance(task, BuiltInTask)
    return training, task


def measured(training: Training, task: BuiltInTask) -> dict[str, Quantity]:
    return {q.name: q for q in measure(training, task)}


def mean_loss(task: BuiltInTask, shapes: list[torch.Size], flat: Tensor, part: slice = slice(None)) -> Tensor:
    parts = flat.split([shape.numel() for shape in shapes])
    parameters = [p.view(1, 1, *shape) for p, shape in zip(parts, shapes, strict=True)]
    return task.model.losses(parameters, task.data.x[None, part], task.data.y[None, part]).mean()


def curvatures(task: BuiltInTask, weights: Sequence[Tensor], seeds: tuple[int, ...], iterations: int = 200) -> Array:
    return BuiltInLandscape(task, [w[:, 0] for w in weights]).largest_curvatures(seeds, iterations)


def at(training: Training, task: BuiltInTask, steps: int) -> tuple[list[torch.Size], list[Tensor]]:
    """The shapes of the parameters, and the weights of each seed as one vector."""
    weights = weights_after(training, task, steps)
    flat = [torch.cat([w[i, 0].flatten() for w in weights]) for i in range(len(training.seeds))]
    return [w.shape[2:] for w in weights], flat


@pytest.mark.parametrize("changes", [{}, {"task": "digits", "task__hidden": 64}], ids=["perceptron", "softmax"])
def test_a_networks_curvature_is_that_of_its_dense_hessian(changes: dict[str, object]) -> None:
    training, task = cell(**changes)
    shapes, flat = at(training, task, 50)
    dense = [torch.autograd.functional.hessian(lambda w: mean_loss(task, shapes, w), w) for w in flat]
    expected = [float(torch.linalg.eigvalsh(hessian)[-1]) for hessian in dense]
    assert expected[0] != pytest.approx(expected[1], rel=1e-3)
    found = curvatures(task, weights_after(training, task, 50), training.seeds)
    assert_allclose(found, expected, rtol=RTOL)
    quantities = measured(training, task)
    assert quantities["lam_max"].value == pytest.approx(math.prod(expected) ** 0.5, rel=RTOL)
    assert quantities["lr_lam_max"].value == pytest.approx(0.2 * math.prod(expected) ** 0.5, rel=RTOL)


def test_the_noise_scale_is_that_of_each_examples_gradient() -> None:
    training, task = cell()
    shapes, flat = at(training, task, 50)
    spreads, signals = [], []
    for w in flat:
        rows = torch.func.vmap(
            torch.func.grad(
                lambda v, x, y: mean_loss(
                    BuiltInTask(task.data._replace(x=x[None], y=y[None]), None, task.model, None, None), shapes, v
                )
            ),
            (None, 0, 0),
        )(w, task.data.x, task.data.y)
        signals.append(float(rows.mean(0).square().sum()))
        spreads.append(float((rows - rows.mean(0)).square().sum(1).mean()))
    assert measured(training, task)["b_simple"].value == pytest.approx(sum(spreads) / sum(signals), rel=1e-9)


@pytest.mark.parametrize("spectrum", ["isotropic", "power_law"])
@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_least_squares_has_the_curvature_of_its_data_everywhere(spectrum: str, fraction: float) -> None:
    changes = {"task": "linear", "task__features": 12, "task__spectrum": spectrum, "task__bias": True, "optimizer__lr": 0.05}
    changes |= {"probe": OPTIONS | {"fraction": fraction}}
    training = make(**changes, seeds=3)
    found = measured(training, make_task(training))
    assert found["lam_max"].expected is not None
    assert found["lam_max"].value == pytest.approx(found["lam_max"].expected, rel=RTOL)


def test_intervals_are_over_seeds_and_one_seed_has_none() -> None:
    alone, several = (measured(*cell(seeds=seeds)) for seeds in (1, 6))
    assert set(alone) == set(several) == {"lam_max", "lr_lam_max", "b_simple"}
    assert all(q.low is None and q.high is None for q in alone.values())
    assert all(q.low is not None and q.high is not None and q.low < q.value < q.high for q in several.values())


def test_lr_times_curvature_is_of_the_lr_under_mean_and_of_sgd_alone() -> None:
    by_mean, by_sum = measured(*cell()), measured(*cell(reduction="sum", optimizer__lr=0.2 / 8))
    for name in ("lam_max", "lr_lam_max", "b_simple"):
        assert by_sum[name].value == pytest.approx(by_mean[name].value, rel=1e-9)
    assert set(measured(*cell(optimizer="adam", optimizer__lr=0.01))) == {"lam_max", "b_simple"}


def test_runs_do_not_influence_each_other_and_equal_cells_give_equal_numbers() -> None:
    training, task = cell(seeds=3)
    weights = weights_after(training, task, 50)
    together = curvatures(task, weights, training.seeds)
    alone = [curvatures(task, [w[i : i + 1] for w in weights], training.seeds[i : i + 1])[0] for i in range(3)]
    assert_allclose(together, alone, rtol=RTOL)
    assert measured(training, task) == measured(training, task)


def test_a_diverged_run_leaves_its_neighbours_alone_and_its_quantity_out() -> None:
    training, task = cell()
    weights = weights_after(training, task, 50)
    expected = curvatures(task, weights, training.seeds)
    weights[0][1] = math.inf
    found = curvatures(task, weights, training.seeds)
    assert found[0] == pytest.approx(expected[0], rel=RTOL) and np.isnan(found[1])
    assert measured(*cell(optimizer__lr=1e300)) == {}


def test_too_few_products_give_no_number() -> None:
    training, task = cell()
    assert set(measured(*cell(probe=OPTIONS | {"iterations": 2}))) == {"b_simple"}
    assert np.isnan(curvatures(task, weights_after(training, task, 50), training.seeds, 2)).all()


@pytest.mark.parametrize("size", [1, 2, 30])
def test_lanczos_finds_the_largest_eigenvalue_and_not_that_of_largest_size(size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    first, roots = (torch.randn(5, *shape, generator=generator, dtype=torch.float64) for shape in ((size,), (size, size)))
    matrices = (roots + roots.mT) / 2 - 3 * torch.eye(size)
    found = largest_eigenvalues(lambda v: (matrices @ v.unsqueeze(-1)).squeeze(-1), first, 200)
    assert_allclose(found, torch.linalg.eigvalsh(matrices)[:, -1], rtol=RTOL)
