"""Estimates from losses over a grid of lrs: the best lr, slopes over batch size, the turn-over batch size, with intervals.

Every estimate is carried through the same bootstrap: `draws` of seeds are taken once and used for all
lrs, batch sizes and reductions, so that what the seeds share cancels in ratios and slopes. An interval is
the bootstrap's 2.5 to 97.5 %, stretched for few seeds and widened in quadrature by what the grid of lrs leaves open.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
DRAWS = 1000
TINY = 1e-300
"""Stands for a loss of exactly 0, which has no logarithm."""


class Interval(NamedTuple):
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float

    def holds(self, number: float) -> bool:
        """Whether a number lies in the interval."""
        return bool(self.low <= number <= self.high)


class BestLr(NamedTuple):
    """Where the objective is least over lr, in natural logarithms.

    `log_lr`: the estimate; `drawn` [draw]: the same for each draw of seeds; `step`: distance of the grid's
    points around it; `log_objective`: the objective there; `at_edge`: fewer than two points were tried
    below it, or above it with no cliff there.
    """

    log_lr: float
    drawn: Array
    step: float
    log_objective: float
    at_edge: bool

    @property
    def interval(self) -> Interval:
        """The best lr with its interval."""
        log = widened(self.log_lr, self.drawn, grid_error(self.step))
        return Interval(*(float(x) for x in np.exp(log)))


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


def seed_draws(seeds: int, draws: int = DRAWS) -> NDArray[np.int64]:
    """Places of the seeds in each bootstrap draw, [draw, seed]; the same numbers every time."""
    return np.random.default_rng(0).integers(0, seeds, (draws, seeds))


def widened(value: float, drawn: Array, more: float) -> Interval:
    """95 % interval of the draws around a value, widened in quadrature by another error's 95 %."""
    low, high = (float(np.quantile(drawn, q)) for q in (0.025, 0.975))
    return Interval(value, value - np.hypot(max(value - low, 0), more), value + np.hypot(max(high - value, 0), more))


def grid_error(step: float) -> float:
    """How far the interpolant's minimum may be off, 95 %, for lrs a step apart in the logarithm.

    From 0.22 of the step at an eighth of an octave to half of it from half an octave on: about twice the
    root-mean-square error on noise-free curves of fixed epochs; see `test_the_grid_leaves_open_what_is_said`.

    Example:
      >>> [round(grid_error(octaves * math.log(2)) / math.log(2), 4) for octaves in (0.125, 0.25, 0.5, 1)]
      [0.0275, 0.0625, 0.25, 0.5]
    """
    return step * min(max(step / math.log(2), 0.22), 0.5)


def stretched(value: Array, drawn: Array, sample: int) -> Array:
    """Draws moved away from the value, as far as a bootstrap of a small sample falls short.

    A bootstrap of n values spreads too little, by sqrt((n - 1)/n), and its quantiles are those of a normal
    distribution where Student's t with n - 1 degrees of freedom is meant: together 1.29 at n = 8, 1.10 at n = 20.

    Args:
      value: the estimate, or one for each row of `drawn`.
      drawn: [.., draw].
      sample: how many values were drawn from, n. With one there is no spread to correct.
    """
    from scipy.special import stdtrit  # 0.2 s to import: only where it is needed

    if sample < 2:
        return drawn
    factor = float(stdtrit(sample - 1, 0.975)) / 1.959964 * (sample / (sample - 1)) ** 0.5
    return np.asarray(value + factor * (drawn - value), dtype=np.float64)


def jackknife(of: Callable[[Array], float], parts: Array) -> Interval:
    """An estimate from the mean of independent parts, with Student's t interval from leaving each part out in turn.

    Args:
      of: a smooth function of the mean over parts.
      parts: [part, ...], at least two.

    Example:
      >>> found = jackknife(lambda mean: float(mean**2), np.array([1.0, 2.0, 3.0]))
      >>> round(found.value, 6), round(found.high - found.value, 3)
      (4.0, 9.938)
    """
    from scipy.special import stdtrit  # 0.2 s to import: only where it is needed

    count, total = len(parts), parts.sum(0)
    without = np.array([of((total - part) / (count - 1)) for part in parts])
    error = math.sqrt((count - 1) * float(((without - without.mean()) ** 2).mean()))
    value, margin = of(total / count), float(stdtrit(count - 1, 0.975)) * error
    return Interval(value, value - margin, value + margin)


def best_lr(lrs: Array, objectives: Array) -> BestLr | None:
    """Estimates the lr at which the seed-mean objective is least.

    Minimises a local cubic (Akima) interpolant of the log of the seed-mean over log lr, between the
    neighbours of the best point tried. Wide parabolas would be biased: the loss is a slope on one side
    and a cliff on the other.

    Args:
      lrs: learning rates tried, [trial], each > 0 and different.
      objectives: one for each seed, [trial, seed]; inf where a run diverged.

    Returns:
      The estimate, or None where every trial has a run that diverged.

    Source:
      Bias and coverage are measured in `tests/test_estimate.py`.
    """
    order = np.argsort(lrs)
    x, values = np.log(lrs[order]), np.maximum(objectives[order], TINY)
    with np.errstate(over="ignore"):
        means = values.mean(1)
        drawn_means = values[:, seed_draws(values.shape[1])].mean(-1)
    if not np.isfinite(means).any():
        return None
    place, lowest = minimum(x, np.log(means)[:, None])
    drawn = stretched(place, minimum(x, np.log(drawn_means))[0], values.shape[1])
    best = int(np.argmin(means))
    near = np.diff(x[max(best - 1, 0) : best + 2])
    beyond = means[best + 1 : best + 3]
    at_edge = best < 2 or (len(beyond) < 2 and bool(np.isfinite(beyond).all()))
    return BestLr(float(place[0]), drawn, float(near.mean()) if len(near) else 0.0, float(lowest[0]), at_edge)


def minimum(x: Array, y: Array) -> tuple[Array, Array]:
    """Minimises the Akima interpolant of each column between the neighbours of its least point.

    Args:
      x: increasing, [point].
      y: [point, column]; inf where a run diverged, which counts as a cliff.

    Returns:
      Place and value of each column's minimum, [column].
    """
    best = np.argmin(y, 0)
    finite = np.where(np.isfinite(y), y, -np.inf)
    cliff = np.minimum(y, finite.max(0) + 1)
    if len(x) < 3:
        return x[best], np.take_along_axis(y, best[None], 0)[0]
    places, values = x[best].copy(), np.take_along_axis(cliff, best[None], 0)[0]
    for i in np.unique(best):
        columns = np.flatnonzero(best == i)
        fine = np.linspace(x[max(i - 1, 0)], x[min(i + 1, len(x) - 1)], 129)
        dense = _akima(x, cliff[:, columns], fine)
        least = np.argmin(dense, 0)
        places[columns], values[columns] = fine[least], dense[least, np.arange(len(columns))]
    return places, values


def _akima(x: Array, y: Array, at: Array) -> Array:
    from scipy.interpolate import Akima1DInterpolator  # 0.4 s to import: only where it is needed

    return np.asarray(Akima1DInterpolator(x, y, axis=0)(at), dtype=np.float64)


def slope(log_x: Array, best: list[BestLr]) -> Interval | None:
    """Slope of log lr* over log x, by least squares; None for fewer than two different x.

    Args:
      log_x: [cell].
      best: one a cell.
    """
    return _slope(log_x, np.array([b.log_lr for b in best]), np.array([b.drawn for b in best]), _grid_errors(best))


def ratio_slope(log_c: Array, by_sum: list[BestLr], by_mean: list[BestLr]) -> Interval | None:
    """Slope of log(lr_sum*/lr_mean*) over log c; with a single c, through ratio 1 at c = 1.

    Args:
      log_c: log of sum's gradient scale over mean's, [pair].
      by_sum: sum's best lrs, one a pair.
      by_mean: mean's, one a pair.
    """
    pairs = list(zip(by_sum, by_mean, strict=True))
    ratio = np.array([s.log_lr - m.log_lr for s, m in pairs])
    drawn = np.array([s.drawn - m.drawn for s, m in pairs])
    error = np.hypot(_grid_errors(by_sum), _grid_errors(by_mean))
    if len(set(log_c)) == 1 and log_c[0] != 0:
        log_c, ratio, drawn, error = (np.concatenate([a, np.zeros_like(a)]) for a in (log_c, ratio, drawn, error))
    return _slope(log_c, ratio, drawn, error)


def _grid_errors(best: list[BestLr]) -> Array:
    return np.array([grid_error(b.step) for b in best])


def _slope(x: Array, y: Array, drawn: Array, error: Array) -> Interval | None:
    if len(set(x)) < 2:
        return None
    off = x - x.mean()
    pull = off / (off @ off)
    return widened(float(pull @ y), pull @ drawn, float(np.hypot.reduce(pull * error)))


def pooled_slope(x: Array, y: Array, groups: Sequence[str]) -> Interval | None:
    """Slope of y over x by least squares, with an intercept for each group and Student's t interval.

    Args:
      x: [point].
      y: [point].
      groups: each point's group.

    Returns:
      The slope; None where no group has two different x.
    """
    from scipy.special import stdtrit  # 0.2 s to import: only where it is needed

    _, group = np.unique(np.asarray(groups), return_inverse=True)
    off_x, off_y = (v - (np.bincount(group, v) / np.bincount(group))[group] if len(v) else v for v in (x, y))
    spread = float(off_x @ off_x)
    if spread == 0:
        return None
    value = float(off_x @ off_y) / spread
    freedom = len(x) - len(set(groups)) - 1
    rest = off_y - value * off_x
    margin = float(stdtrit(freedom, 0.975)) * math.sqrt(float(rest @ rest) / freedom / spread) if freedom > 0 else 0.0
    return Interval(value, value - margin, value + margin)


def turn_over(batch_sizes: Array, best: list[BestLr]) -> TurnOver | None:
    """Fits lr_sum* = eta_max / (B + B_c), level below B_c and falling as 1/B above; None for fewer than three B.

    Args:
      batch_sizes: [cell].
      best: sum's best lrs, one a cell.
    """
    if len(set(batch_sizes)) < 3:
        return None
    drawn = np.array([b.drawn for b in best])
    jitter = np.random.default_rng(1).normal(size=drawn.shape) * _grid_errors(best)[:, None] / 1.96
    log_eta, log_b_c, residual, at_bound = _levels_off(batch_sizes, np.array([[b.log_lr] for b in best]))
    drawn_eta, drawn_b_c, _, _ = _levels_off(batch_sizes, drawn + jitter)
    eta, b_c = (widened(float(v[0]), d, 0.0) for v, d in ((log_eta, drawn_eta), (log_b_c, drawn_b_c)))
    return TurnOver(_exponential(eta), _exponential(b_c), float(residual[0]), bool(at_bound[0]))


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


def _exponential(log: Interval) -> Interval:
    return Interval(*np.exp(log).tolist())


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


def mean_slope(log_x: Array, values: Array) -> Interval | None:
    """Slope of the log of the seed-mean over log x, by least squares, its interval a bootstrap over seeds.

    Args:
      log_x: [cell].
      values: [cell, seed], each > 0; cells with one that is not finite are left out.

    Returns:
      The slope; None for fewer than two different x.
    """
    kept = np.isfinite(values).all(1)
    x, (log_means, drawn) = np.asarray(log_x)[kept], _log_means(values[kept])
    return _slope(x, log_means, drawn, np.zeros(len(x)))


def seed_means(values: Array) -> tuple[Array, Array]:
    """Means over seeds, [cell], and the ends of their 95 % intervals, [end, cell], of positive values [cell, seed]."""
    log_means, drawn = _log_means(values)
    return np.exp(log_means), np.exp(np.quantile(drawn, (0.025, 0.975), axis=1))


def _log_means(values: Array) -> tuple[Array, Array]:
    """Log of the seed-means, [cell], and of their bootstrap draws, [cell, draw]."""
    seeds = values.shape[1]
    log_means = np.log(values.mean(1))
    return log_means, stretched(log_means[:, None], np.log(values[:, seed_draws(seeds)].mean(-1)), seeds)


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
      `tests/test_statistics.py`.

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
    log_steps, drawn = _log_means(steps)
    rate, b_crit, residual, at_bound = _levels_off(sizes, -(log_steps + np.log(sizes))[:, None])
    drawn_rate, drawn_b_crit, _, _ = _levels_off(sizes, -(drawn + np.log(sizes)[:, None]))
    pairs = ((-rate, -drawn_rate), (b_crit - rate, drawn_b_crit - drawn_rate), (b_crit, drawn_b_crit))
    s_min, e_min, crit = (_exponential(widened(float(v[0]), d, 0.0)) for v, d in pairs)
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
      `tests/test_statistics.py`.

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
    return _exponential(Interval(float(value[0]), float(low), float(high)))


def _log_ratio(above: Array, below: Array) -> Array:
    """log(above / below), from -inf to inf: inf where below is not positive."""
    positive = below > 0
    with np.errstate(divide="ignore"):
        return np.where(positive, np.log(np.maximum(above, 0)) - np.log(np.where(positive, below, 1)), np.inf)
