"""Estimates from losses over a grid of lrs: the best lr of a cell, and slopes over batch size, with intervals.

Each interval is widened in quadrature by the error of the grid of lrs.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lrscale.estimate.intervals import Array, Interval, log_means, seed_draws, stretched, widened

_TINY = 1e-300
"""Stands for a loss of exactly 0, which has no logarithm."""


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


def grid_error(step: float) -> float:
    """Returns the 95 % error of the interpolant's minimum, for lrs that lie a step apart in the logarithm.

    From 0.22 of the step at an eighth of an octave to half of it from half an octave on: about twice the
    root-mean-square error on noise-free curves of fixed epochs; see `test_the_grid_leaves_open_what_is_said`.

    Example:
      >>> [round(grid_error(octaves * math.log(2)) / math.log(2), 4) for octaves in (0.125, 0.25, 0.5, 1)]
      [0.0275, 0.0625, 0.25, 0.5]
    """
    return step * min(max(step / math.log(2), 0.22), 0.5)


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
      Bias and coverage are measured in `tests/estimate/test_best_lr.py`.
    """
    order = np.argsort(lrs)
    x, values = np.log(lrs[order]), np.maximum(objectives[order], _TINY)
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
    return _slope(log_x, np.array([b.log_lr for b in best]), np.array([b.drawn for b in best]), grid_errors(best))


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
    error = np.hypot(grid_errors(by_sum), grid_errors(by_mean))
    if len(set(log_c)) == 1 and log_c[0] != 0:
        log_c, ratio, drawn, error = (np.concatenate([a, np.zeros_like(a)]) for a in (log_c, ratio, drawn, error))
    return _slope(log_c, ratio, drawn, error)


def grid_errors(best: list[BestLr]) -> Array:
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


def mean_slope(log_x: Array, values: Array) -> Interval | None:
    """Slope of the log of the seed-mean over log x, by least squares, its interval a bootstrap over seeds.

    Args:
      log_x: [cell].
      values: [cell, seed], each > 0; cells with one that is not finite are left out.

    Returns:
      The slope; None for fewer than two different x.
    """
    kept = np.isfinite(values).all(1)
    x, (logs, drawn) = np.asarray(log_x)[kept], log_means(values[kept])
    return _slope(x, logs, drawn, np.zeros(len(x)))
