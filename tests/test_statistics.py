"""Bias and coverage of every estimate, by simulation: the truth is known, and a 95 % interval should hold it 95 % of the time."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from lrscale import theory
from lrscale.estimate import Interval, noise_scale, trade_off

Array = NDArray[np.float64]
REPETITIONS = 240
BIAS = 0.05
COVERAGE = (0.90, 0.99)


def trusted(found: list[Interval], truth: float) -> None:
    """Fails unless the estimates are unbiased in the logarithm and their intervals hold the truth as often as they say."""
    bias = float(np.mean(np.log([f.value for f in found])) - np.log(truth))
    coverage = float(np.mean([f.holds(truth) for f in found]))
    assert len(found) >= 200
    assert abs(bias) < BIAS and COVERAGE[0] <= coverage <= COVERAGE[1], f"bias {bias:+.3f}, coverage {coverage:.3f}"


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


@pytest.mark.parametrize("seeds", [8, 20])
@pytest.mark.parametrize("b_crit", [8.0, 60.0])
def test_the_trade_off_is_unbiased_and_its_intervals_honest(seeds: int, b_crit: float) -> None:
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
