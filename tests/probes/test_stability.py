"""The probe of stability: what it simulates agrees with theory, and knows nothing of it."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from lrscale.errors import Refusal
from lrscale.law import least_squares as theory
from lrscale.law import stability as edges
from lrscale.law.moments import Momentum
from lrscale.probes.stability import measure, simulated_almost_sure_edge, simulated_mean_square_edge, simulated_momentum_edge
from lrscale.tasks.built_in import Population
from lrscale.tasks.registry import make_task
from lrscale.training.quantity import Quantity
from tests.configs import make

OPTIONS = {"name": "stability", "examples": 60_000, "momentum": 0.9}
LINEAR = {"task": "linear", "task__features": 2, "task__examples": 32, "probe": OPTIONS, "budget": "steps"}


def measured(**changes: object) -> dict[str, Quantity]:
    made = make(**LINEAR | changes)
    return {q.name: q for q in measure(made, make_task(made))}


def population(spectrum: list[float], bias: bool) -> Population:
    lam = torch.tensor(spectrum, dtype=torch.float64)
    return Population(lam, torch.zeros(len(lam) + bias, dtype=torch.float64), 0.0, bias)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_the_edges_are_theorys(batch_size: int, bias: bool) -> None:
    found = measured(batch_size=batch_size, task__bias=bias)
    for name in ("mean_square_edge", "almost_sure_edge", "edge_ratio"):
        q = found[name]
        assert q.expected is not None and q.low is not None and q.high is not None
        assert abs(np.log(q.value / q.expected)) < 0.03
        width = q.high - q.low
        assert q.low - width < q.expected < q.high + width
    assert found["edge_ratio"].value > 1
    assert ("momentum_edge" in found) is (batch_size == 32)


@pytest.mark.parametrize("batch_size", [1, 8])
def test_the_mean_square_edge_holds_for_any_spectrum(batch_size: int) -> None:
    spectrum = [1.0, 0.5, 0.1]
    for bias in (False, True):
        found = simulated_mean_square_edge(population(spectrum, bias), batch_size, 100_000)
        assert_allclose(found.value, theory.mean_square_edge(np.array(spectrum), bias, batch_size), rtol=0.03)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize(("batch_size", "bias"), [(1, False), (8, True), (32, False)])
def test_the_mean_square_edge_with_momentum_is_theorys(batch_size: int, bias: bool, nesterov: bool) -> None:
    momentum = {"optimizer__momentum": 0.9, "optimizer__nesterov": nesterov}
    found = measured(batch_size=batch_size, task__bias=bias, **momentum)
    edge, expected = found["mean_square_edge"].value, found["mean_square_edge"].expected
    known = theory.mean_square_edge(np.ones(2), bias, batch_size, Momentum(0.9, nesterov))
    assert expected is not None
    assert_allclose([edge, expected], [known, known], rtol=0.04)
    assert_allclose(expected, known, rtol=1e-6)
    assert "almost_sure_edge" not in found and "edge_ratio" not in found


def test_the_intervals_of_the_mean_square_edge_are_honest() -> None:
    scaled = [(population([s, s], False), theory.mean_square_edge(np.full(2, s), False, 2)) for s in np.linspace(0.5, 2, 40)]
    held = [simulated_mean_square_edge(source, 2, 2000 + 40 * k).holds(edge) for k, (source, edge) in enumerate(scaled)]
    assert np.mean(held) >= 0.8


def test_edges_scale_with_the_curvature() -> None:
    one, four = (population([s, s], False) for s in (1.0, 4.0))
    edges = [simulated_mean_square_edge(source, 4, 20_000) for source in (one, four)]
    assert_allclose(np.array(edges[0]), 4 * np.array(edges[1]), rtol=1e-10)
    typical = [simulated_almost_sure_edge(source, 4, 20_000, e.value) for source, e in zip((one, four), edges, strict=True)]
    assert typical[0] is not None and typical[1] is not None
    assert_allclose(np.array(typical[0]), 4 * np.array(typical[1]), rtol=1e-8)


def test_edges_are_in_the_trainings_own_reduction_and_equal_cells_give_equal_numbers() -> None:
    by_mean, by_sum, again = (measured(batch_size=32, reduction=r) for r in ("mean", "sum", "sum"))
    assert by_sum == again
    for name in ("mean_square_edge", "almost_sure_edge", "momentum_edge"):
        assert_allclose(by_sum[name].value, by_mean[name].value / 32, rtol=1e-12)
        assert_allclose(by_sum[name].expected or 0, (by_mean[name].expected or 0) / 32, rtol=1e-12)
    assert by_sum["edge_ratio"] == by_mean["edge_ratio"]


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_the_edge_with_momentum_is_bracketed(momentum: float) -> None:
    made = make(**LINEAR | {"batch_size": 32, "task__features": 5, "task__bias": True})
    task = make_task(made)
    assert task.optimum is not None
    found = simulated_momentum_edge(made, task, momentum, 0.3)
    expected = edges.momentum_edge(float(torch.linalg.eigvalsh(task.optimum.gram)[-1]), momentum)
    assert found.high / found.low < 1.002
    assert_allclose(found.value, expected, rtol=0.002)


def test_other_tasks_are_refused() -> None:
    with pytest.raises(Refusal, match="`probe` stability needs least squares"):
        make(task="digits", probe=OPTIONS)
