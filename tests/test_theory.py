"""Theory against Monte Carlo and against its own other forms."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from lrscale import theory

SAMPLES = 400_000
MONTE_CARLO = 0.01  # five standard errors at this many samples


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("batch_size", [1, 3, 10])
def test_the_map_is_one_step_of_sgd(bias: bool, batch_size: int) -> None:
    rng = np.random.default_rng(batch_size)
    spectrum, lr, noise = np.array([1.0, 0.5, 0.2]), 0.3, 0.5
    error = np.array([1.0, 2.0, -1.0, 0.7][: 3 + bias])
    x = rng.normal(size=(SAMPLES, batch_size, 3)) * np.sqrt(spectrum)
    if bias:
        x = np.concatenate([x, np.ones((SAMPLES, batch_size, 1))], -1)
    residual = x @ error - noise * rng.normal(size=(SAMPLES, batch_size))
    after = error - lr * np.einsum("nbd,nb->nd", x, residual) / batch_size
    a, v = theory.moment_map(spectrum, bias, batch_size, lr)
    assert_allclose((after**2).mean(0), a @ error**2 + noise**2 * v, rtol=MONTE_CARLO)


@pytest.mark.parametrize("batch_size", [1, 2, 16, 500])
@pytest.mark.parametrize("features", [1, 2, 10])
def test_the_edge_is_where_the_map_stops_contracting(batch_size: int, features: int) -> None:
    ones = np.ones(features)
    with_bias = theory.stability_edge(batch_size, theory.fourth_moment(features))
    assert_allclose(theory.mean_square_edge(ones, True, batch_size), with_bias, rtol=1e-6)
    assert_allclose(theory.mean_square_edge(ones, False, batch_size), 2 * batch_size / (batch_size + features + 1), rtol=1e-6)


def test_the_edge_of_any_covariance_is_the_papers_condition() -> None:
    spectrum, size = 1 / np.arange(1, 9), 4
    edge = theory.mean_square_edge(spectrum, False, size)
    assert_allclose(edge / size * (spectrum / (2 - edge * spectrum * (1 + 1 / size))).sum(), 1, rtol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_contraction_is_fastest_at_half_the_edge(batch_size: int) -> None:
    edge = theory.mean_square_edge(np.ones(3), True, batch_size)
    assert_allclose(theory.fastest_lr(np.ones(3), True, batch_size), edge / 2, rtol=1e-3)


@pytest.mark.parametrize("batch_size", [1, 4, 16, 64, 256])
def test_the_closed_form_of_fixed_epochs_is_the_minimum_of_the_recursion(batch_size: int) -> None:
    start = np.array([2.0, -3.4, 4.2]) ** 2
    steps = math.ceil(3 * 1000 / batch_size)
    exact = theory.best_lr(np.ones(2), True, batch_size, steps, start, 0.01) / batch_size
    closed = theory.best_lr_after_epochs(batch_size, 3, 1000, 2, float(start.sum()) / 2, 0.01)
    assert abs(math.log(exact / closed)) < 0.02


def test_expected_excess_is_infinite_where_it_overflows() -> None:
    assert theory.expected_excess(np.ones(2), False, 1, 5.0, 10_000, np.ones(2), 0.0) == math.inf
