"""Estimators on losses whose optimum is known: bias, coverage, and exact cases."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from lrscale.estimate.best_lr import BestLr, best_lr, grid_error, mean_slope, ratio_slope, slope
from lrscale.estimate.fits import turn_over
from lrscale.estimate.intervals import jackknife, seed_means
from lrscale.estimate.unseen import is_rugged

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
def test_a_level_curve_shows_nothing(losses: Array) -> None:
    found = best_lr(np.array([1.0, 2, 4, 8, 16]), losses)
    assert found is not None and math.isfinite(found.log_lr)
    assert found.edge == "both" and found.interval is None and found.bound == ""


def test_one_seed_has_an_estimate_and_no_interval() -> None:
    lrs = 2.0 ** np.arange(7)
    found = best_lr(lrs, 1 + np.log2(lrs / 8)[:, None] ** 2)
    assert found is not None and found.interval is None and not found.at_edge and found.seeds == 1
    assert_allclose(found.lr, 8)
    x = np.array([0.0, 1.0])
    for line in (slope(x, [found, found]), ratio_slope(x, [found, found], [found, found])):
        assert line is not None and line[1:] == (-math.inf, math.inf)


@pytest.mark.parametrize(
    ("place", "edge", "bound"), [(0, "low", "<= "), (1, "", ""), (2, "", ""), (3, "", ""), (4, "high", ">= ")]
)
def test_a_best_at_the_last_lr_is_at_an_edge_and_gives_a_bound(place: int, edge: str, bound: str) -> None:
    lrs = 2.0 ** (np.arange(5) / 2)
    losses = np.abs(np.arange(5) - place)[:, None] + np.ones((5, 2))
    found = best_lr(lrs, losses)
    assert found is not None and found.edge == edge and found.bound.startswith(bound)
    assert (found.interval is None) == bool(edge) == bool(found.bound)


def test_the_bound_holds_the_point_where_the_loss_falls_no_more() -> None:
    lrs = 2.0 ** (np.arange(9) / 8)
    found = best_lr(lrs, np.repeat(lrs[:, None], 4, 1))
    assert found is not None
    sign, value = found.bound.split()
    assert sign == "<=" and 1 <= float(value) <= 1.1


def test_an_edge_that_many_draws_of_the_seeds_reach_is_an_edge() -> None:
    lrs = 2.0 ** (np.arange(5) / 8)
    losses = np.abs(np.arange(5)[:, None] - np.array([0, 0, 0, 2, 2, 2, 2])) + 1.0
    found = best_lr(lrs, losses)
    assert found is not None and found.edge == "low"


def test_a_cliff_above_the_best_is_no_edge() -> None:
    found = best_lr(2.0 ** np.arange(4), np.array([[4.0], [3.0], [1.0], [np.inf]]))
    assert found is not None and not found.at_edge


def two_valleys(depth: float, noise: float) -> Array:
    """Objectives of 8 seeds with valleys at 2^-2 and 2^2, the second shallower by `depth`; seeds disagree by `noise` on it."""
    x = np.arange(-32, 33) / 8
    curve = 0.1 + np.minimum((x + 2) ** 2, depth + (x - 2) ** 2)
    seeds = noise * np.array([-3, -2, -1, -0.5, 0.5, 1, 2, 3])
    return np.asarray(curve[:, None] + np.where(x[:, None] > 0, seeds, 0) * 0.1)


def test_a_second_minimum_within_the_noise_is_a_rival_and_lies_in_the_interval() -> None:
    lrs = 2.0 ** (np.arange(-32, 33) / 8)
    near, far = best_lr(lrs, two_valleys(0.01, 0.2)), best_lr(lrs, two_valleys(0.1, 0.2))
    assert near is not None and near.interval is not None and far is not None and far.interval is not None
    assert_allclose([near.lr, *near.rivals], [0.25, 4], rtol=0.01)
    assert near.interval.holds(0.25) and near.interval.holds(4)
    assert far.rivals == () and far.interval.high < 0.3 and near.remark == "or 4"


def test_a_gap_that_may_hide_a_lower_minimum_widens_the_interval() -> None:
    """Objectives that swing, as momentum's do: between 2^1 and 2^3 there is room for another of the minima."""
    x = np.arange(-32, 33) / 8
    losses = np.repeat(0.01 * (1 + np.abs(x[:, None] + 1)) + np.cos(math.pi * x[:, None] / 2) ** 2, 4, 1)
    is_tried = (x <= 2.01) | (x >= 3.99)
    whole, part = best_lr(2.0**x, losses), best_lr(2.0 ** x[is_tried], losses[is_tried])
    assert whole is not None and whole.interval is not None and part is not None and part.interval is not None
    assert abs(whole.lr - 0.5) < 0.01 and whole.interval.high < 0.52
    assert part.interval.high > 4


@pytest.mark.parametrize("c", [2.0, 3.0, 10.0, 60.0, 256.0, 1000.0])
def test_twins_whose_curve_swings_have_their_ratio_to_rounding(c: float) -> None:
    """Minima, rivals and hidden gaps are chosen alike under sum and mean, whatever c does to the floats."""
    x = np.array([*np.arange(-32, 9, 2), *np.arange(12, 33, 4)]) / 8
    rng = np.random.default_rng(0)
    losses = (0.02 + np.cos(math.pi * x[:, None] / 2) ** 2) * np.exp(0.3 * rng.normal(size=(len(x), 8)))
    by_sum, by_mean = best_lr(2.0**x / c, losses * (1 + 1e-7 * rng.normal(size=losses.shape))), best_lr(2.0**x, losses)
    assert by_sum is not None and by_mean is not None and by_mean.rivals
    line = ratio_slope(np.log([c]), [by_sum], [by_mean])
    assert line is not None
    assert abs(line.value + 1) < 1e-6 and line.holds(-1) and line.high - line.low < 1e-3


def test_lrs_far_apart_around_the_best_are_marked() -> None:
    for octaves, coarse in ((0.5, False), (1.0, True)):
        x = octaves * np.arange(-4, 5)
        found = best_lr(2.0**x, np.repeat(1 + (x[:, None] - 0.1) ** 2, 4, 1))
        assert found is not None and found.is_coarse is coarse and (found.remark == "coarse") is coarse


def made(log_lrs: Array) -> list[BestLr]:
    return [BestLr(float(x), np.full(1000, x), 0.0, 0.0) for x in log_lrs]


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
    assert found.residual.value < 0.01


def test_lrs_more_than_an_octave_apart_give_no_interval() -> None:
    lrs = 2.0 ** np.arange(-8, 1, 2)
    values = (np.log2(lrs)[:, None] + 4.2) ** 2 + 1 + 0.01 * np.random.default_rng(0).normal(size=(5, 8))
    wide = best_lr(lrs, values)
    assert wide is not None and wide.interval is None and wide.remark == "coarse"
    assert wide._replace(spacing=math.log(2)).interval is not None


def test_a_rugged_curve_may_have_its_best_where_no_lr_was_tried() -> None:
    """The curve of momentum 0.9 at B = 100 of d2l, with 12 lrs: its best lr is 0.0076, between two that were tried."""
    lrs = 2.0 ** (np.array([-91, -77, -63, -49, -35, -21, -13, -9, -7, -5, -3, 0]) / 8)
    means = np.array([13.98, 9.308, 1.582, 0.7741, 0.6975, 0.7696, 0.2821, 0.4036, 0.1232, 0.7173, 1.12, 1.215])
    noise = np.random.default_rng(0).lognormal(sigma=0.7, size=(12, 4))
    found = best_lr(lrs, means[:, None] * noise / noise.mean(1, keepdims=True))
    assert is_rugged(means) and found is not None
    assert found.interval is not None and found.interval.low < 0.0077 < 0.5 < found.interval.high <= 1.0


def test_a_residual_that_noise_explains_is_not_told_from_none() -> None:
    sizes, shift = 2.0 ** np.arange(0, 11), 0.5 * (-1.0) ** np.arange(11)
    law = np.log(0.5 / (sizes + 20))
    noisy, sharp = ([b._replace(log_lr=b.log_lr + s, draws=b.draws + s + e * wide) for b, s in zip(made(law), shift, strict=True)]
                    for e, wide in ((0.4, np.random.default_rng(1).normal(size=1000)), (0.0, 0.0)))  # fmt: skip
    found, exact = turn_over(sizes, noisy), turn_over(sizes, sharp)
    assert found is not None and found.residual.value > 0.4 and found.residual.low < 0.05  # a curve passes through all intervals
    assert exact is not None and exact.residual.low > 0.4  # and through none that is narrow


def test_a_law_without_turn_over_is_marked() -> None:
    sizes = 2.0 ** np.arange(0, 11)
    for exponent in (0.0, -1.0):
        found = turn_over(sizes, made(exponent * np.log(sizes)))
        assert found is not None and found.at_bound


def test_an_interval_is_widened_by_what_the_grid_leaves_open() -> None:
    error = math.hypot(grid_error(0.2), 0.1)
    found = BestLr(0.0, np.zeros(1000), 0.2, 0.0, disagreement=0.1)
    assert found.interval is not None
    assert_allclose(np.log(found.interval), [0, -error, error], atol=1e-12)
    x = np.array([0.0, 1.0, 2.0])
    line = slope(x, [BestLr(v, np.full(1000, v), 0.2, 0.0, disagreement=0.1) for v in x])
    assert line is not None
    assert_allclose(line, [1, 1 - error / 2**0.5, 1 + error / 2**0.5], atol=1e-12)


def on_lattice(log_lr: float, first: float, c: float = 1.0) -> BestLr:
    lattice = tuple(first + 0.1 * np.arange(9) - math.log(c))
    return BestLr(log_lr - math.log(c), np.full(1000, log_lr - math.log(c)), 0.1, 0.0, log_lrs=lattice)


def test_the_error_of_a_shared_grid_cancels_in_the_ratio() -> None:
    log_c = np.log([4.0, 16.0])

    def width(log_lr: float, first: float) -> float:
        pairs = [(on_lattice(log_lr, first, c), on_lattice(0.4, 0.0)) for c in (4.0, 16.0)]
        line = ratio_slope(log_c, [s for s, _ in pairs], [m for _, m in pairs])
        assert line is not None
        return line.high - line.low

    assert width(0.4, 0.0) < 1e-3 < width(0.405, 0.0) < width(0.42, 0.0) < width(0.45, 0.0)
    assert width(0.4, 0.05) == pytest.approx(width(0.45, 0.0))


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


def test_the_turn_over_of_single_seeds_has_no_interval() -> None:
    sizes = 2.0 ** np.arange(0, 11)
    found = turn_over(sizes, [best._replace(seeds=1) for best in made(np.log(0.5 / (sizes + 20)))])
    assert found is not None and found.b_c[1:] == (0, math.inf)


def test_the_minimum_of_a_curve_whose_root_is_a_quartic_is_exact() -> None:
    x = np.arange(-8, 9.0)
    for place in (-0.4, 0.0, 0.31):
        roots = 0.1 + (x - place) ** 2 + 0.2 * (x - place) ** 4
        found = best_lr(np.exp(x), np.repeat(roots[:, None] ** 2, 4, 1))
        assert found is not None
        assert_allclose(found.log_lr, place, atol=2e-3)
