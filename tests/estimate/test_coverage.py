"""Bias and coverage of every estimate, by simulation: the truth is known, and a 95 % interval should hold it 95 % of the time."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from lrscale.estimate.best_lr import BestLr, best_lr, grid_errors, ratio_slope, slope
from lrscale.estimate.fits import noise_scale, trade_off, turn_over
from lrscale.estimate.intervals import Interval
from lrscale.law import least_squares as theory
from tests.simulated import Problem

Array = NDArray[np.float64]
REPETITIONS = 240
START = np.array([2.0, -3.4, 4.2]) ** 2
BIAS = 0.05
COVERAGE = (0.90, 0.99)


def trusted(found: list[Interval], truth: float) -> None:
    """Fails unless the estimates are unbiased in the logarithm and their intervals hold the truth as often as they say."""
    bias = float(np.mean(np.log([f.value for f in found])) - np.log(truth))
    coverage = float(np.mean([f.holds(truth) for f in found]))
    assert len(found) >= 200
    assert abs(bias) < BIAS and COVERAGE[0] <= coverage <= COVERAGE[1], f"bias {bias:+.3f}, coverage {coverage:.3f}"


Found = dict[str, tuple[Interval, float]]
SIZES = (3, 12, 50, 200, 800)


def exact(log_lr: float) -> BestLr:
    return BestLr(log_lr, np.full(1000, log_lr), 0.0, 0.0)


def measured(problem: Problem, trials: int) -> Found:
    """Every estimate of a study of one problem, with the truth: lr* by batch size; slopes exponentiated, as they are signed."""
    tuned = [problem.best(size, trials) for size in SIZES]
    truth, x = np.log([problem.truth(size) for size in SIZES]), np.log(SIZES)
    by_sum, by_mean = [s for s, _ in tuned], [m for _, m in tuned]
    line, ratio = slope(x, by_sum), ratio_slope(x, by_sum, by_mean)
    turn, true_turn = turn_over(np.array(SIZES), by_sum), turn_over(np.array(SIZES), [exact(t) for t in truth])
    assert line is not None and ratio is not None and turn is not None and true_turn is not None
    found: Found = {}
    for size, b, t in zip(SIZES, by_sum, truth, strict=True):
        assert b.interval is not None
        found[f"lr at {size}"] = b.interval, float(np.exp(t))
    found["slope"] = Interval(*np.exp(line).tolist()), float(np.exp(np.polyfit(x, truth, 1)[0]))
    found["ratio"] = Interval(*np.exp(ratio).tolist()), float(np.exp(-1))
    found["b_c"] = turn.b_c, true_turn.b_c.value
    found["eta_max"] = turn.eta_max, true_turn.eta_max.value
    return found


@pytest.fixture(scope="module")
def studies() -> list[Found]:
    rng = np.random.default_rng(3)
    return [measured(Problem(rng, seeds=8), trials=16) for _ in range(200)]


def test_twins_on_one_lattice_have_their_ratio_exactly(studies: list[Found]) -> None:
    ratios = [study["ratio"] for study in studies]
    assert all(interval.holds(truth) and abs(np.log(interval.value / truth)) < 1e-9 for interval, truth in ratios)
    assert max(interval.high / interval.low for interval, _ in ratios) < 1.001


@pytest.mark.parametrize("name", ["lr at", "slope", "b_c", "eta_max"])
def test_what_a_study_estimates_is_unbiased_and_its_intervals_honest(studies: list[Found], name: str) -> None:
    """Bias and coverage relative to each problem's own truth; lr* over all batch sizes together."""
    found = [pair for study in studies for key, pair in study.items() if key.startswith(name)]
    trusted([Interval(*(end / truth for end in interval)) for interval, truth in found], 1.0)


@pytest.mark.parametrize("octaves", [1 / 8, 1 / 4, 1 / 2, 1])
def test_the_grid_leaves_open_what_is_said(octaves: float) -> None:
    errors = []
    for size in (1, 16, 256):
        lr = theory.best_lr_after_steps(np.ones(2), True, size, 3000 // size, START, 0.01)
        for shift in np.linspace(-0.5, 0.5, 20, endpoint=False):
            lrs = lr * 2 ** (octaves * (np.arange(-6, 5) + shift))
            losses = [theory.expected_excess(np.ones(2), True, size, x, 3000 // size, START, 0.01) for x in lrs]
            found = best_lr(lrs, np.array(losses)[:, None])
            assert found is not None
            errors.append((found.log_lr - np.log(lr)) / grid_errors([found])[0])
    assert 0.1 < np.sqrt(np.mean(np.square(errors))) < 0.6
    assert np.quantile(np.abs(errors), 0.95) < 1


@pytest.mark.parametrize("pairs", [8, 20, 200])
@pytest.mark.parametrize("truth", [2.0, 20.0])
def test_the_noise_scale_is_unbiased_and_its_interval_honest(pairs: int, truth: float) -> None:
    rng, b1, b2, weights = np.random.default_rng(1), 2, 32, 20
    mean, sd = np.eye(weights)[0], (truth / weights) ** 0.5
    found = []
    for _ in range(REPETITIONS):
        small = np.linalg.norm(mean + sd / b1**0.5 * rng.normal(size=(pairs, weights)), axis=1)
        big = np.linalg.norm(mean + sd / b2**0.5 * rng.normal(size=(pairs, weights)), axis=1)
        found.append(noise_scale(small, big, b1, b2))
    trusted(found, truth)


def test_the_noise_scale_of_sampled_gradients_is_theorys() -> None:
    rng, spectrum, error = np.random.default_rng(2), np.array([1.0, 0.3]), np.array([2.0, -3.4, 4.2])

    def norms(size: int) -> Array:
        x = np.concatenate([rng.normal(size=(20_000, size, 2)) * spectrum**0.5, np.ones((20_000, size, 1))], -1)
        return np.linalg.norm(np.einsum("nbd,nb->nd", x, x @ error + 0.5 * rng.normal(size=x.shape[:2])), axis=1) / size

    found = noise_scale(norms(2), norms(16), 2, 16)
    expected = theory.noise_scales(spectrum, True, error, 0.5).b_simple
    assert found.holds(expected) and found.high / found.low < 1.2


def test_where_the_gradient_is_lost_in_noise_the_noise_scale_has_no_upper_end() -> None:
    rng = np.random.default_rng(3)
    small, big = (np.linalg.norm(rng.normal(size=(200, 10)), axis=1) / size**0.5 for size in (2, 32))
    assert noise_scale(small, big, 2, 32).high == np.inf


@pytest.mark.parametrize(("seeds", "b_crit"), [(8, 60.0), (20, 8.0)])
def test_the_trade_off_is_unbiased_and_its_intervals_honest(seeds: int, b_crit: float) -> None:
    assert_trade_off_honest(seeds, b_crit)


def assert_trade_off_honest(seeds: int, b_crit: float) -> None:
    """The fit of simulated studies of steps is unbiased, and its intervals hold the truth as often as they say."""
    rng, sizes = np.random.default_rng(1), 2.0 ** np.arange(10)
    found = []
    for _ in range(REPETITIONS):
        noise = 0.1 * rng.normal(size=seeds) + 0.1 * rng.normal(size=(len(sizes), seeds)) - 0.01
        fit = trade_off(sizes, 50 * (1 + b_crit / sizes)[:, None] * np.exp(noise))
        assert fit is not None and not fit.at_bound
        found.append(fit)
    trusted([f.s_min for f in found], 50)
    trusted([f.e_min for f in found], 50 * b_crit)
    trusted([f.b_crit for f in found], b_crit)


def test_the_trade_off_leaves_out_what_missed_the_target() -> None:
    sizes = 2.0 ** np.arange(6)
    steps = 50 * (1 + 8 / sizes)[:, None] * np.ones((6, 4))
    steps[0, 2] = np.inf
    fit = trade_off(sizes, steps)
    assert fit is not None
    assert_allclose([fit.s_min.value, fit.b_crit.value], [50, 8], rtol=0.01)
    assert trade_off(sizes[:3], steps[:3]) is None
