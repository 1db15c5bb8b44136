"""Estimators on losses whose optimum is known: bias, coverage, and exact cases."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from lrscale.estimate.best_lr import BestLr, best_lr, grid_error, mean_slope, ratio_slope, slope
from lrscale.estimate.fits import turn_over
from lrscale.estimate.intervals import jackknife, seed_means

Array = NDArray[np.float64]
RATE = 2 * 3000 * 0.5
"""How fast the start is forgotten, per unit of lr: two times the examples seen, by an eigenvalue of 1/2."""


def fixed_epochs(lrs: Array, noise: Array) -> Array:
    """Losses shaped like those of fixed epochs, [trial, seed]: forgetting on one side, noise on the other."""
    return 16.6 * np.exp(-RATE * lrs)[:, None] + 7.5e-5 * lrs[:, None] * noise


def true_optimum() -> float:
    return math.log(16.6 * RATE / 7.5e-5) / RATE


def lattice(centre: float, step: float, offset: float) -> Array:
    return np.asarray(centre * np.exp(step * (np.arange(-8, 9) + offset)))


def chi_square(rng: np.random.Generator, trials: int, seeds: int) -> Array:
    """Each seed's noise level: what it shares over lrs, and a little of its own."""
    shared, own = rng.chisquare(3, seeds) / 3, rng.chisquare(3, (trials, seeds)) / 3
    return 0.9 * shared + 0.1 * own


def test_bias_is_small_and_the_interval_covers_the_truth() -> None:
    rng = np.random.default_rng(2)
    step = math.log(2) / 8
    errors, covered = [], []
    for _ in range(200):
        lrs = lattice(true_optimum(), step, rng.uniform(-0.5, 0.5))
        found = best_lr(lrs, fixed_epochs(lrs, chi_square(rng, len(lrs), 8)))
        assert found is not None and not found.at_edge
        errors.append(found.log_lr - math.log(true_optimum()))
        covered.append(found.interval.holds(true_optimum()))
    assert abs(float(np.mean(errors))) < 0.05
    assert float(np.mean(covered)) >= 0.9


def test_a_cliff_beside_the_optimum_does_not_move_it() -> None:
    lrs = lattice(true_optimum(), math.log(2) / 8, 0.1)
    calm = fixed_epochs(lrs, np.ones((len(lrs), 4)))
    wild = np.where(lrs[:, None] > 1.3 * true_optimum(), np.inf, calm)
    a, b = best_lr(lrs, calm), best_lr(lrs, wild)
    assert a is not None and b is not None
    assert abs(a.log_lr - b.log_lr) < 0.03


def test_one_diverged_seed_makes_the_trial_infinite() -> None:
    lrs, losses = np.array([1.0, 2.0, 4.0, 8.0, 16.0]), np.array([[5.0, 5], [3, 3], [2, 2], [1, np.inf], [4, 4]])
    found = best_lr(lrs, losses)
    assert found is not None and abs(found.log_lr - math.log(4)) < math.log(2)


def test_where_everything_diverged_there_is_no_estimate() -> None:
    assert best_lr(np.array([1.0, 2.0]), np.full((2, 3), np.inf)) is None


@pytest.mark.parametrize("losses", [np.zeros((5, 2)), np.ones((5, 2)), np.ones((5, 1))])
def test_constant_and_zero_losses_and_single_seeds_have_an_estimate(losses: Array) -> None:
    found = best_lr(np.array([1.0, 2, 4, 8, 16]), losses)
    assert found is not None and math.isfinite(found.log_lr)
    assert found.interval.low <= found.interval.value <= found.interval.high


@pytest.mark.parametrize(("place", "edge"), [(0, True), (1, True), (2, False), (3, True), (4, True)])
def test_fewer_than_two_points_beyond_the_best_mark_an_edge(place: int, edge: bool) -> None:
    lrs = 2.0 ** np.arange(5)
    losses = np.abs(np.arange(5) - place)[:, None] + np.ones((5, 2))
    found = best_lr(lrs, losses)
    assert found is not None and found.at_edge is edge


def test_a_cliff_above_the_best_is_no_edge() -> None:
    found = best_lr(2.0 ** np.arange(4), np.array([[4.0], [3.0], [1.0], [np.inf]]))
    assert found is not None and not found.at_edge


def made(log_lrs: Array) -> list[BestLr]:
    return [BestLr(float(x), np.full(1000, x), 0.0, 0.0, False) for x in log_lrs]


def test_slopes_of_exact_power_laws_are_exact() -> None:
    x = np.log([1.0, 4, 16, 64])
    found = slope(x, made(3 - 0.7 * x))
    assert found is not None
    assert_allclose(found, [-0.7] * 3, atol=1e-12)
    assert slope(x[:1], made(x[:1])) is None


def test_the_ratio_at_a_single_c_goes_through_one() -> None:
    found = ratio_slope(np.log([8.0]), made(np.log([0.01])), made(np.log([0.08])))
    assert found is not None
    assert_allclose(found.value, -1)


@pytest.mark.parametrize("b_c", [3.0, 20.0, 300.0])
def test_the_turn_over_of_an_exact_law_is_found(b_c: float) -> None:
    sizes = 2.0 ** np.arange(0, 11)
    found = turn_over(sizes, made(np.log(0.5 / (sizes + b_c))))
    assert found is not None and not found.at_bound
    assert abs(math.log(found.b_c.value / b_c)) < 0.02
    assert abs(math.log(found.eta_max.value / 0.5)) < 0.02
    assert found.residual < 0.01


def test_a_law_without_turn_over_is_marked() -> None:
    sizes = 2.0 ** np.arange(0, 11)
    for exponent in (0.0, -1.0):
        found = turn_over(sizes, made(exponent * np.log(sizes)))
        assert found is not None and found.at_bound


def test_an_interval_is_widened_by_what_the_grid_leaves_open() -> None:
    error = grid_error(0.2)
    found = BestLr(0.0, np.zeros(1000), 0.2, 0.0, False)
    assert_allclose(np.log(found.interval), [0, -error, error], atol=1e-12)
    x = np.array([0.0, 1.0, 2.0])
    line = slope(x, [BestLr(v, np.full(1000, v), 0.2, 0.0, False) for v in x])
    assert line is not None
    assert_allclose(line, [1, 1 - error / 2**0.5, 1 + error / 2**0.5], atol=1e-12)


def test_seeds_that_disagree_widen_the_interval() -> None:
    lrs = 2.0 ** np.arange(7)
    alike = np.abs(np.log(lrs / 8))[:, None] + np.ones((7, 6))
    apart = np.abs(np.log(lrs[:, None] / np.array([2.0, 4, 8, 8, 16, 32]))) + 1
    narrow, wide = best_lr(lrs, alike), best_lr(lrs, apart)
    assert narrow is not None and wide is not None
    assert wide.interval.high / wide.interval.low > 1.5 * narrow.interval.high / narrow.interval.low


def test_the_slope_of_seed_means_of_an_exact_power_law_is_exact() -> None:
    x, seeds = np.log([1.0, 4, 16]), np.array([0.5, 1.0, 1.5])
    values = np.exp(2 - 0.7 * x)[:, None] * seeds
    found = mean_slope(x, values)
    assert found is not None
    assert_allclose(found, [-0.7] * 3, atol=1e-12)
    missed = np.vstack([values, np.full(3, np.inf)])
    assert mean_slope(np.append(x, 9.0), missed) == found
    assert mean_slope(x[:1], values[:1]) is None
    means, ends = seed_means(values)
    assert_allclose(means, np.exp(2 - 0.7 * x))
    assert (ends[0] < means).all() and (means < ends[1]).all()


def test_the_jackknife_of_a_mean_is_students_interval() -> None:
    from scipy.stats import t

    parts = np.random.default_rng(0).normal(3, 2, 12)
    found = jackknife(lambda mean: float(mean), parts)
    assert_allclose(found[1:], t.interval(0.95, 11, parts.mean(), parts.std(ddof=1) / 12**0.5))
