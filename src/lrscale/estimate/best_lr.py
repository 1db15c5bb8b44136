"""Estimates from losses over a grid of lrs: the best lr of a cell, and its slope over batch size, with intervals.

The grid of lrs has an error of its own. Each interval is widened by it, in quadrature.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lrscale.estimate.intervals import Array, Interval, log_means, seed_draws, stretched, widened

_TINY = 1e-300
"""Replaces a loss of exactly 0, because 0 has no logarithm."""


class BestLr(NamedTuple):
    """The estimate of the lr at which the objective is least, in natural logarithms.

    `log_lr` is the estimate, and `draws` [draw] is the estimate from each bootstrap draw of seeds. `spacing` is the
    distance between the grid's points around it. `log_objective` is the log of the objective there. `at_edge` is True
    where fewer than two smaller lrs were tried, or fewer than two larger lrs while none of those diverged.
    """

    log_lr: float
    draws: Array
    spacing: float
    log_objective: float
    at_edge: bool

    @property
    def interval(self) -> Interval:
        """The best lr with its 95 % interval."""
        log = widened(self.log_lr, self.draws, grid_error(self.spacing))
        return Interval(*(float(x) for x in np.exp(log)))


def grid_error(spacing: float) -> float:
    """Returns the 95 % error of the interpolant's minimum, in ln lr, for a grid of lrs with this spacing in ln lr.

    The error is 0.22 of the spacing at an eighth of an octave, and half of the spacing from half an octave on. It is
    about twice the root-mean-square error on noise-free curves of fixed epochs; see
    `test_the_grid_leaves_open_what_is_said`.

    Example:
      >>> [round(grid_error(octaves * math.log(2)) / math.log(2), 4) for octaves in (0.125, 0.25, 0.5, 1)]
      [0.0275, 0.0625, 0.25, 0.5]
    """
    return spacing * min(max(spacing / math.log(2), 0.22), 0.5)


def best_lr(lrs: Array, objectives: Array) -> BestLr | None:
    """Returns an estimate of the lr at which the mean objective over seeds is least.

    It minimises a local cubic (Akima) interpolant of the log of the mean over log lr, between the two neighbours of the
    best lr that was tried. A parabola over a wider range would be biased: the loss is a slope on one side and a cliff
    on the other.

    Args:
      lrs: the learning rates that were tried, [trial]; each > 0, all different.
      objectives: the objective of each run, [trial, seed]; inf where the run diverged.

    Returns:
      The estimate; None where every trial has a run that diverged.

    Source:
      Bias and coverage are measured in `tests/estimate/test_best_lr.py`.
    """
    order = np.argsort(lrs)
    x, values = np.log(lrs[order]), np.maximum(objectives[order], _TINY)
    with np.errstate(over="ignore"):
        means = values.mean(1)
        means_of_draws = values[:, seed_draws(values.shape[1])].mean(-1)
    if not np.isfinite(means).any():
        return None
    log_lr, log_objective = minimum(x, np.log(means)[:, None])
    draws = stretched(log_lr, minimum(x, np.log(means_of_draws))[0], values.shape[1])
    best = int(np.argmin(means))
    spacings = np.diff(x[max(best - 1, 0) : best + 2])
    above = means[best + 1 : best + 3]
    at_edge = best < 2 or (len(above) < 2 and bool(np.isfinite(above).all()))
    spacing = float(spacings.mean()) if len(spacings) else 0.0
    return BestLr(float(log_lr[0]), draws, spacing, float(log_objective[0]), at_edge)


def minimum(x: Array, y: Array) -> tuple[Array, Array]:
    """Returns the minimum of the Akima interpolant of each column, between the neighbours of the column's least point.

    Args:
      x: increasing values, [point].
      y: values of each column at x, [point, column]; inf where a run diverged, which makes a cliff of finite height.

    Returns:
      The x and the y of each column's minimum, each [column].
    """
    best = np.argmin(y, 0)
    finite = np.where(np.isfinite(y), y, -np.inf)
    cliff = np.minimum(y, finite.max(0) + 1)
    if len(x) < 3:
        return x[best], np.take_along_axis(y, best[None], 0)[0]
    best_x, best_y = x[best].copy(), np.take_along_axis(cliff, best[None], 0)[0]
    for i in np.unique(best):
        columns = np.flatnonzero(best == i)
        fine = np.linspace(x[max(i - 1, 0)], x[min(i + 1, len(x) - 1)], 129)
        dense = _akima(x, cliff[:, columns], fine)
        least = np.argmin(dense, 0)
        best_x[columns], best_y[columns] = fine[least], dense[least, np.arange(len(columns))]
    return best_x, best_y


def _akima(x: Array, y: Array, points: Array) -> Array:
    """Returns the Akima interpolant of (x, y) at some points, for each column of y."""
    from scipy.interpolate import Akima1DInterpolator  # takes 0.4 s to import, so it is imported only when it is used

    return np.asarray(Akima1DInterpolator(x, y, axis=0)(points), dtype=np.float64)


def slope(log_x: Array, best: list[BestLr]) -> Interval | None:
    """Returns the slope of log lr* over log x, by least squares; None for fewer than two different x.

    Args:
      log_x: log of the x of each cell, [cell].
      best: the best lr of each cell, [cell].
    """
    return _slope(log_x, np.array([b.log_lr for b in best]), np.array([b.draws for b in best]), grid_errors(best))


def ratio_slope(log_c: Array, by_sum: list[BestLr], by_mean: list[BestLr]) -> Interval | None:
    """Returns the slope of log(lr_sum*/lr_mean*) over log c; None for c = 1 alone.

    Where all pairs have the same c, the line goes through ratio 1 at c = 1.

    Args:
      log_c: log of c, the gradient scale of sum divided by that of mean, [pair].
      by_sum: the best lr under sum, [pair].
      by_mean: the best lr under mean, [pair].
    """
    pairs = list(zip(by_sum, by_mean, strict=True))
    ratio = np.array([s.log_lr - m.log_lr for s, m in pairs])
    draws = np.array([s.draws - m.draws for s, m in pairs])
    error = np.hypot(grid_errors(by_sum), grid_errors(by_mean))
    if len(set(log_c)) == 1 and log_c[0] != 0:
        log_c, ratio, draws, error = (np.concatenate([a, np.zeros_like(a)]) for a in (log_c, ratio, draws, error))
    return _slope(log_c, ratio, draws, error)


def grid_errors(best: list[BestLr]) -> Array:
    """Returns the `grid_error` of each best lr, [cell]."""
    return np.array([grid_error(b.spacing) for b in best])


def _slope(x: Array, y: Array, draws: Array, error: Array) -> Interval | None:
    """Returns the least-squares slope of y over x; None for fewer than two different x.

    Args:
      x: [point].
      y: [point].
      draws: y of each bootstrap draw, [point, draw].
      error: the 95 % error of the grid in each y, [point].
    """
    if len(set(x)) < 2:
        return None
    centred = x - x.mean()
    weights = centred / (centred @ centred)
    return widened(float(weights @ y), weights @ draws, float(np.hypot.reduce(weights * error)))


def pooled_slope(x: Array, y: Array, groups: Sequence[str]) -> Interval | None:
    """Returns the least-squares slope of y over x, with an intercept for each group and Student's t interval.

    Args:
      x: [point].
      y: [point].
      groups: name of each point's group, [point].

    Returns:
      The slope; None where no group has two different x, or where nothing is left over to estimate an interval from.
    """
    from scipy.special import stdtrit  # takes 0.2 s to import, so it is imported only when it is used

    _, group = np.unique(np.asarray(groups), return_inverse=True)
    centred_x, centred_y = (v - (np.bincount(group, v) / np.bincount(group))[group] if len(v) else v for v in (x, y))
    spread = float(centred_x @ centred_x)
    freedom = len(x) - len(set(groups)) - 1
    if spread == 0 or freedom < 1:
        return None
    value = float(centred_x @ centred_y) / spread
    residuals = centred_y - value * centred_x
    margin = float(stdtrit(freedom, 0.975)) * math.sqrt(float(residuals @ residuals) / freedom / spread)
    return Interval(value, value - margin, value + margin)


def mean_slope(log_x: Array, values: Array) -> Interval | None:
    """Returns the least-squares slope, over log x, of the log of the mean over seeds. The interval is a bootstrap over seeds.

    Args:
      log_x: log of the x of each cell, [cell].
      values: [cell, seed], each > 0; a cell with a value that is not finite is left out.

    Returns:
      The slope; None for fewer than two different x.
    """
    is_finite = np.isfinite(values).all(1)
    x, (logs, draws) = np.asarray(log_x)[is_finite], log_means(values[is_finite])
    return _slope(x, logs, draws, np.zeros(len(x)))
