"""Tasks of least squares: their population's risk, and the data that seeds share or draw for themselves."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from numpy.testing import assert_allclose

from lrscale.tasks.least_squares import draw_examples
from lrscale.tasks.registry import make_task
from tests.configs import make

FRESH = 400_000
MONTE_CARLO = 0.02  # four standard errors of a mean of squares over so many examples
LINEAR: dict[str, Any] = {"task": "linear", "task__features": 4, "task__examples": 64, "task__spectrum": "power_law"}


@pytest.mark.parametrize("changes", [{}, LINEAR, {**LINEAR, "task__bias": True, "task__noise": 2.0}], ids=str)
def test_the_population_risk_is_the_mean_over_fresh_examples(changes: dict[str, Any]) -> None:
    source = make_task(make(**changes)).population
    assert source is not None
    weights = torch.randn(3, 2, len(source.weights), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x, y = draw_examples(source, FRESH, "fresh")
    loss = (weights @ x.T - y).square().mean(-1) / 2
    assert_allclose(source.excess([weights]), loss - source.noise**2 / 2, rtol=MONTE_CARLO)
    assert float(source.excess([source.weights.expand(1, 1, -1)])) == 0


def test_seeds_share_one_draw_unless_each_has_its_own() -> None:
    shared, own = make_task(make(**LINEAR, seeds=[5, 7])), make_task(make(**LINEAR, seeds=[5, 7], data_seeds="own"))
    source = shared.population
    assert source is not None
    x, y = draw_examples(source, 64, "linear", "train")
    assert torch.equal(shared.data.x, x) and torch.equal(shared.data.y, y)
    assert shared.data_of(1) is shared.data
    assert own.data.x.shape == (2, 64, 4) and own.data.y_valid.shape == (2, 1000)
    for part in own.data:
        assert not torch.isclose(part[0], part[1]).any()
    assert all(torch.equal(part, both[1]) for part, both in zip(own.data_of(1), own.data, strict=True))


def test_a_seeds_own_draw_and_its_optimum_do_not_depend_on_the_other_seeds() -> None:
    training = make(**LINEAR, seeds=[5, 7], data_seeds="own")
    both, alone = make_task(training), make_task(replace(training, seeds=(7,)))
    assert both.optimum is not None and alone.optimum is not None
    assert all(torch.equal(a, b) for a, b in zip(both.data_of(1), alone.data_of(0), strict=True))
    weights = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert_allclose(both.optimum.excess([weights])[1:], alone.optimum.excess([weights[1:]]), rtol=1e-12)
    data, loss = both.data_of(1), both.optimum.excess([weights]) + both.optimum.minimum
    assert_allclose(loss[1], (weights[1] @ data.x.T - data.y).square().mean(-1) / 2, rtol=1e-12)
