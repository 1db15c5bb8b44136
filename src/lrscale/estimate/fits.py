"""Fits of known forms: the turn-over of lr*, the trade-off of steps against examples, and the noise scale."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lrscale.estimate.best_lr import BestLr, grid_errors
from lrscale.estimate.intervals import Array, Interval, exponential, log_means, seed_draws, stretched, widened

_TERNARY = 60
"""Steps of a ternary search; each takes away a third of what is searched."""


class TurnOver(NamedTuple):
    """The fit of log lr_sum* = log eta_max - log(B + B_c).

    B_c is the batch size at which lr_sum* is half of its level at small B: at 0.6 B_c it is already down by 3/8, and at
    B_c/10 by a tenth. `residual` is the root-mean-square residual in ln lr; see `residual_interval`. `at_bound` is True
    where B_c is at a bound of the search, so that the batch sizes do not contain the turn-over.
    """

    eta_max: Interval
    b_c: Interval
    residual: Interval
    at_bound: bool


class TradeOff(NamedTuple):
    """The fit of (S/S_min - 1)(E/E_min - 1) = 1 to steps S and examples E. `b_crit` is E_min/S_min.

    `residual` is the root-mean-square residual in ln S. `at_bound` is as in `TurnOver`.
    """

    s_min: Interval
    e_min: Interval
    b_crit: Interval
    residual: Interval
    at_bound: bool


def turn_over(batch_sizes: Array, best: list[BestLr]) -> TurnOver | None:
    """Returns the fit of lr_sum* = eta_max / (B + B_c); None for fewer than three different batch sizes.

    The form is level far below B_c and falls as 1/B far above. Intervals have no ends where a best lr has one seed.

    Args:
      batch_sizes: batch size of each cell, [cell].
      best: the best lr under sum, [cell].
    """
    if len(set(batch_sizes)) < 3:
        return None
    draws = np.array([b.draws for b in best])
    jitter = np.random.default_rng(1).normal(size=draws.shape) * grid_errors(best)[:, None] / 1.96
    log_eta, log_b_c, residual, at_bound = _fit_turn_over(batch_sizes, np.array([[b.log_lr] for b in best]))
    eta_draws, b_c_draws, _, _ = _fit_turn_over(batch_sizes, draws + jitter)
    eta, b_c = (widened(float(v[0]), d, 0.0) for v, d in ((log_eta, eta_draws), (log_b_c, b_c_draws)))
    ends = [widened(b.log_lr, b.draws, float(grid_errors([b])[0])) for b in best]
    misfit = residual_interval(batch_sizes, float(residual[0]), [(i.low, i.high) for i in ends])
    if any(b.seeds < 2 for b in best):
        eta, b_c = (Interval(i.value, -math.inf, math.inf) for i in (eta, b_c))
        misfit = Interval(misfit.value, 0.0, math.inf)
    return TurnOver(exponential(eta), exponential(b_c), misfit, bool(at_bound[0]))


def residual_interval(batch_sizes: Array, residual: float, ends: Sequence[tuple[float, float]]) -> Interval:
    """Returns the residual of a fit of a - log(B + B_c), with an interval.

    The lower end is the least residual of a curve against the intervals of the points: it is 0 where a curve passes
    through all of them. Noise adds to a residual, so the upper end is that of the fit itself.

    Args:
      batch_sizes: batch size of each point, [point].
      residual: the root-mean-square residual of the fit.
      ends: the ends of the 95 % interval of each point, in the log.
    """
    low, high = (np.array(side)[:, None] for side in zip(*ends, strict=True))
    shape = np.log(batch_sizes[:, None] + _candidates(batch_sizes))

    def misfits(a: Array) -> Array:
        distance = np.maximum(low - (a - shape), 0) + np.maximum((a - shape) - high, 0)
        return np.asarray((distance**2).mean(0), dtype=np.float64)

    left, right = (low + shape).min(0), (high + shape).max(0)
    for _ in range(_TERNARY):  # the misfit is convex in a
        thirds = left + (right - left) / 3, right - (right - left) / 3
        is_lower = misfits(thirds[0]) < misfits(thirds[1])
        left, right = np.where(is_lower, left, thirds[0]), np.where(is_lower, thirds[1], right)
    least = math.sqrt(misfits((left + right) / 2).min())
    return Interval(residual, min(least, residual), residual)


class FormFit(NamedTuple):
    """The fit of v = v_max / (1 + B_c/B), with its root-mean-square residual in ln v."""

    v_max: float
    b_c: float
    residual: float


def form_fit(batch_sizes: Array, values: Array) -> FormFit | None:
    """Returns the fit of v = v_max / (1 + B_c/B); None for fewer than three different batch sizes.

    Args:
      batch_sizes: batch size of each cell, [cell].
      values: the values v, [cell], each > 0.

    Example:
      >>> sizes = 2.0 ** np.arange(8)
      >>> fits = [form_fit(sizes, values) for values in (3 / (1 + 10 / sizes), sizes**0.5)]
      >>> fits[0].residual < 0.01 < 0.1 < fits[1].residual, abs(fits[0].b_c - 10) < 0.1
      (True, True)
    """
    if len(set(batch_sizes)) < 3:
        return None
    log_max, log_b_c, residual, _ = _fit_turn_over(batch_sizes, np.log(values / batch_sizes)[:, None])
    return FormFit(math.exp(log_max[0]), math.exp(log_b_c[0]), float(residual[0]))


def _candidates(batch_sizes: Array) -> Array:
    """Returns the values of B_c among which the fit searches."""
    return np.geomspace(batch_sizes.min() / 30, batch_sizes.max() * 30, 2001)


def _fit_turn_over(batch_sizes: Array, y: Array) -> tuple[Array, Array, Array, NDArray[np.bool_]]:
    """Fits a - log(B + B_c) to each column of y, [cell, column], by least squares.

    Returns:
      a, log B_c, the root-mean-square residual, and whether B_c is at a bound of the search, each [column].
    """
    candidates = _candidates(batch_sizes)
    shape = np.log(batch_sizes[:, None] + candidates)
    centred = shape - shape.mean(0)
    # The best a is a mean, so only B_c is searched. The square of the error is multiplied out, without its constant term in y^2.
    k = (2 * (y - y.mean(0)).T @ centred + (centred**2).sum(0)).argmin(-1)
    a = (y + shape[:, k]).mean(0)
    residual = np.sqrt(((y - a + shape[:, k]) ** 2).mean(0))
    return a, np.log(candidates[k]), residual, (k < 2) | (k > len(candidates) - 3)


def trade_off(batch_sizes: Array, steps: Array) -> TradeOff | None:
    """Returns the fit of steps S against examples E = B S to the same target: fewer steps cost more examples.

        (S/S_min - 1) (E/E_min - 1) = 1,   that is   S = S_min (1 + B_crit/B),   B_crit = E_min/S_min

    The fit is by least squares in log S, and its interval is a bootstrap over seeds. The interval does not include two
    errors of the steps: that of the grid of lrs, and that of how often the loss is compared with the target.

    Args:
      batch_sizes: batch size of each cell, [cell], each > 0.
      steps: steps to the target at the cell's best lr, [cell, seed]; inf where a run did not reach the target, and then
        its cell is left out.

    Returns:
      The fit; None where fewer than three batch sizes reach the target.

    Source:
      McCandlish et al. 2018, arXiv 1812.06162; bias and coverage are measured in
      `tests/estimate/test_coverage.py`.

    Example:
      >>> sizes = 2.0 ** np.arange(10)
      >>> fit = trade_off(sizes, 50 * (1 + 20 / sizes)[:, None])
      >>> round(fit.s_min.value), round(fit.e_min.value), round(fit.b_crit.value)
      (50, 1000, 20)
    """
    is_reached = np.isfinite(steps).all(1)
    sizes, steps = np.asarray(batch_sizes, dtype=float)[is_reached], steps[is_reached]
    if len(set(sizes)) < 3:
        return None
    log_steps, draws = log_means(steps)
    rate, b_crit, residual, at_bound = _fit_turn_over(sizes, -(log_steps + np.log(sizes))[:, None])
    rate_draws, b_crit_draws, _, _ = _fit_turn_over(sizes, -(draws + np.log(sizes)[:, None]))
    pairs = ((-rate, -rate_draws), (b_crit - rate, b_crit_draws - rate_draws), (b_crit, b_crit_draws))
    s_min, e_min, crit = (exponential(widened(float(v[0]), d, 0.0)) for v, d in pairs)
    ends = [widened(float(value), row, 0.0) for value, row in zip(log_steps, draws, strict=True)]
    of_rate = [(-i.high - math.log(size), -i.low - math.log(size)) for i, size in zip(ends, sizes, strict=True)]
    misfit = residual_interval(sizes, float(residual[0]), of_rate)
    return TradeOff(s_min, e_min, crit, misfit, bool(at_bound[0]))


def noise_scale(small_norms: Array, big_norms: Array, b1: float, b2: float) -> Interval:
    """Returns an estimate of B_simple = tr(Sigma)/|G|^2 from the norms of mean gradients over small and big batches.

        |G|^2 = (b2 |g2|^2 - b1 |g1|^2)/(b2 - b1),   tr(Sigma) = (|g1|^2 - |g2|^2)/(1/b1 - 1/b2)

    Both estimates are unbiased. Each is averaged over all pairs before one mean is divided by the other. The interval is a
    bootstrap over pairs. Its upper end is infinite where the pairs cannot distinguish |G|^2 from 0, as near an optimum.

    Args:
      small_norms: |g1|, norms of gradients of the mean loss over b1 examples, at one point, [pair].
      big_norms: |g2|, the same over b2 examples, [pair]; each pair has newly drawn batches.
      b1: number of examples in a small batch.
      b2: number of examples in a big batch; > b1.

    Source:
      McCandlish et al. 2018, arXiv 1812.06162, appendix A.1; bias and coverage are measured in
      `tests/estimate/test_coverage.py`.

    Example:
      >>> bool(np.isclose(noise_scale(np.full(5, 3**0.5), np.full(5, 1.5**0.5), 1, 4).value, 2))
      True
    """
    small, big = np.asarray(small_norms, dtype=float) ** 2, np.asarray(big_norms, dtype=float) ** 2
    signal, spread = (b2 * big - b1 * small) / (b2 - b1), (small - big) / (1 / b1 - 1 / b2)
    indices = seed_draws(len(small))
    value = _log_ratio(spread.mean(keepdims=True), signal.mean(keepdims=True))
    draws = _log_ratio(spread[indices].mean(1), signal[indices].mean(1))
    if np.isfinite(value).all():
        draws = stretched(value, draws, len(small))
    low, high = np.quantile(draws, (0.025, 0.975), method="nearest")
    return exponential(Interval(float(value[0]), float(low), float(high)))


def _log_ratio(numerator: Array, denominator: Array) -> Array:
    """Returns log(numerator / denominator): inf where the denominator is not positive, else -inf where the numerator is not."""
    positive = denominator > 0
    with np.errstate(divide="ignore"):
        return np.where(positive, np.log(np.maximum(numerator, 0)) - np.log(np.where(positive, denominator, 1)), np.inf)
