"""Forms that are fitted to estimates: the turn-over of lr*, the trade-off of steps against examples, the noise scale."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lrscale.estimate.best_lr import BestLr, grid_errors
from lrscale.estimate.intervals import Array, Interval, exponential, log_means, seed_draws, stretched, widened


class TurnOver(NamedTuple):
    """The fit log lr_sum* = log eta_max - log(B + B_c). `at_bound`: no turn-over within the batch sizes."""

    eta_max: Interval
    b_c: Interval
    residual: float
    at_bound: bool


class TradeOff(NamedTuple):
    """The fit (S/S_min - 1)(E/E_min - 1) = 1 of steps against examples. `at_bound`: as in `TurnOver`."""

    s_min: Interval
    e_min: Interval
    b_crit: Interval
    residual: float
    at_bound: bool


def turn_over(batch_sizes: Array, best: list[BestLr]) -> TurnOver | None:
    """Fits lr_sum* = eta_max / (B + B_c), level below B_c and falling as 1/B above; None for fewer than three B.

    Args:
      batch_sizes: [cell].
      best: sum's best lrs, one a cell.
    """
    if len(set(batch_sizes)) < 3:
        return None
    drawn = np.array([b.drawn for b in best])
    jitter = np.random.default_rng(1).normal(size=drawn.shape) * grid_errors(best)[:, None] / 1.96
    log_eta, log_b_c, residual, at_bound = _levels_off(batch_sizes, np.array([[b.log_lr] for b in best]))
    drawn_eta, drawn_b_c, _, _ = _levels_off(batch_sizes, drawn + jitter)
    eta, b_c = (widened(float(v[0]), d, 0.0) for v, d in ((log_eta, drawn_eta), (log_b_c, drawn_b_c)))
    return TurnOver(exponential(eta), exponential(b_c), float(residual[0]), bool(at_bound[0]))


def form_residual(batch_sizes: Array, values: Array) -> float | None:
    """Root-mean-square residual, in ln v, of the form v = v_max / (1 + B_c/B); None for fewer than three B.

    Args:
      batch_sizes: [cell].
      values: [cell], each > 0.

    Example:
      >>> sizes = 2.0 ** np.arange(8)
      >>> form_residual(sizes, 3 / (1 + 10 / sizes)) < 0.01 < 0.1 < form_residual(sizes, sizes**0.5)
      True
    """
    if len(set(batch_sizes)) < 3:
        return None
    return float(_levels_off(batch_sizes, np.log(values / batch_sizes)[:, None])[2][0])


def _levels_off(batch_sizes: Array, y: Array) -> tuple[Array, Array, Array, NDArray[np.bool_]]:
    """Fits a - log(B + B_c) to each column of y, [cell, column], by least squares.

    Returns:
      a, log B_c, root-mean-square residual, and whether B_c ran into a bound of the search, [column].
    """
    candidates = np.geomspace(batch_sizes.min() / 30, batch_sizes.max() * 30, 2001)
    shape = np.log(batch_sizes[:, None] + candidates)
    centred = shape - shape.mean(0)
    # a's best value is a mean, so only B_c is searched; the errors' square is multiplied out, and y's own part left out
    k = (2 * (y - y.mean(0)).T @ centred + (centred**2).sum(0)).argmin(-1)
    a = (y + shape[:, k]).mean(0)
    residual = np.sqrt(((y - a + shape[:, k]) ** 2).mean(0))
    return a, np.log(candidates[k]), residual, (k < 2) | (k > len(candidates) - 3)


def trade_off(batch_sizes: Array, steps: Array) -> TradeOff | None:
    """Fits steps S against examples E = B S, both to the same target: fewer steps cost more examples.

        (S/S_min - 1) (E/E_min - 1) = 1,   that is   S = S_min (1 + B_crit/B),   B_crit = E_min/S_min

    By least squares in log S. The interval is a bootstrap over seeds; what the steps owe to the grid of lrs and to
    how often the target is looked for is not in it.

    Args:
      batch_sizes: [cell], each > 0.
      steps: steps to the target at the cell's best lr, [cell, seed]; inf where a run did not reach it, which
        leaves its cell out.

    Returns:
      The fit; None for fewer than three batch sizes that reach the target.

    Source:
      McCandlish et al. 2018, arXiv 1812.06162; bias and coverage are measured in
      `tests/estimate/test_coverage.py`.

    Example:
      >>> sizes = 2.0 ** np.arange(10)
      >>> fit = trade_off(sizes, 50 * (1 + 20 / sizes)[:, None])
      >>> round(fit.s_min.value), round(fit.e_min.value), round(fit.b_crit.value)
      (50, 1000, 20)
    """
    kept = np.isfinite(steps).all(1)
    sizes, steps = np.asarray(batch_sizes, dtype=float)[kept], steps[kept]
    if len(set(sizes)) < 3:
        return None
    log_steps, drawn = log_means(steps)
    rate, b_crit, residual, at_bound = _levels_off(sizes, -(log_steps + np.log(sizes))[:, None])
    drawn_rate, drawn_b_crit, _, _ = _levels_off(sizes, -(drawn + np.log(sizes)[:, None]))
    pairs = ((-rate, -drawn_rate), (b_crit - rate, drawn_b_crit - drawn_rate), (b_crit, drawn_b_crit))
    s_min, e_min, crit = (exponential(widened(float(v[0]), d, 0.0)) for v, d in pairs)
    return TradeOff(s_min, e_min, crit, float(residual[0]), bool(at_bound[0]))


def noise_scale(small_norms: Array, big_norms: Array, b1: float, b2: float) -> Interval:
    """Estimates B_simple = tr(Sigma)/|G|^2 from the norms of mean gradients over small and big batches.

        |G|^2 = (b2 |g2|^2 - b1 |g1|^2)/(b2 - b1),   tr(Sigma) = (|g1|^2 - |g2|^2)/(1/b1 - 1/b2)

    Both are unbiased, and averaged over all pairs before one is divided by the other. The interval is a bootstrap
    over pairs. Its end is infinite where the pairs do not tell |G|^2 from 0, as near an optimum.

    Args:
      small_norms: |g1|, norms of gradients of the mean loss over b1 examples, at one point, [pair].
      big_norms: |g2|, over b2 examples, [pair]; a pair's batches are fresh draws.
      b1: examples in a small batch.
      b2: examples in a big one; > b1.

    Source:
      McCandlish et al. 2018, arXiv 1812.06162, appendix A.1; bias and coverage are measured in
      `tests/estimate/test_coverage.py`.

    Example:
      >>> bool(np.isclose(noise_scale(np.full(5, 3**0.5), np.full(5, 1.5**0.5), 1, 4).value, 2))
      True
    """
    small, big = np.asarray(small_norms, dtype=float) ** 2, np.asarray(big_norms, dtype=float) ** 2
    signal, spread = (b2 * big - b1 * small) / (b2 - b1), (small - big) / (1 / b1 - 1 / b2)
    drawn = seed_draws(len(small))
    value = _log_ratio(spread.mean(keepdims=True), signal.mean(keepdims=True))
    drawn_values = _log_ratio(spread[drawn].mean(1), signal[drawn].mean(1))
    if np.isfinite(value).all():
        drawn_values = stretched(value, drawn_values, len(small))
    low, high = np.quantile(drawn_values, (0.025, 0.975), method="nearest")
    return exponential(Interval(float(value[0]), float(low), float(high)))


def _log_ratio(above: Array, below: Array) -> Array:
    """log(above / below), from -inf to inf: inf where below is not positive."""
    positive = below > 0
    with np.errstate(divide="ignore"):
        return np.where(positive, np.log(np.maximum(above, 0)) - np.log(np.where(positive, below, 1)), np.inf)
