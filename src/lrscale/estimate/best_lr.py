"""Estimates from losses over a grid of lrs: the best lr of a cell, and its slope over batch size, with intervals.

The grid of lrs has an error of its own. Each interval is widened by it, in quadrature.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lrscale.estimate.basins import COARSE_SPACING, basins, disagreement, minimum
from lrscale.estimate.intervals import DRAWS, Array, Interval, log_means, seed_draws, stretched, widened
from lrscale.estimate.unseen import unseen

RIVAL_SHARE = 0.025
"""The share of bootstrap draws in which another basin must have the lowest bottom for it to count as a rival."""

WIDEST_SPACING = 1.01 * math.log(2)
"""Where the lrs around the best are further apart, in ln lr, no interval is given."""
_ROUNDING = 1e-4
"""Differences of ln lr that rounding of the training may make."""


class BestLr(NamedTuple):
    """The estimate of the lr at which the objective is least, in natural logarithms.

    `log_lr` is the estimate, and `draws` [draw] is the estimate from each bootstrap draw of seeds: where several minima
    could be the lowest, the draws lie at all of them. `spacing` is the larger distance between the best point of the grid and
    its neighbours. `log_objective` is the log of the objective there. `edge` is `low` where the
    objective may still fall below the smallest lr that was tried, `high` where it may above the largest, `both` where
    either may be, and else empty.
    `rivals` are the lrs of other local minima that could be the lowest within the noise of the seeds. `seeds` is their
    number. `log_lrs` are the logs of the lrs that were tried, increasing. `disagreement` is how far two interpolants are
    apart; see `lrscale.estimate.basins.disagreement`.
    """

    log_lr: float
    draws: Array
    spacing: float
    log_objective: float
    edge: str = ""
    rivals: tuple[float, ...] = ()
    seeds: int = 2
    log_lrs: tuple[float, ...] = ()
    disagreement: float = 0.0

    @property
    def lr(self) -> float:
        """The best lr."""
        return math.exp(self.log_lr)

    @property
    def at_edge(self) -> bool:
        """Whether the best lr is at an edge of the lrs that were tried, so that only a bound is known."""
        return bool(self.edge)

    @property
    def is_coarse(self) -> bool:
        """Whether the lrs around the best are more than half an octave apart, too far to interpolate between them."""
        return bool(self.spacing > COARSE_SPACING)

    @property
    def is_unsure(self) -> bool:
        """Whether the lrs around the best are more than an octave apart: another minimum may lie between them."""
        return self.spacing > WIDEST_SPACING

    @property
    def interval(self) -> Interval | None:
        """The best lr with its 95 % interval.

        It lies among the lrs that were tried. None at an edge, where there is a bound; for one seed, which shows no noise;
        and where `is_unsure`.
        """
        if self.edge or self.seeds < 2 or self.is_unsure:
            return None
        around = self._around()
        if not self.log_lrs:
            return around
        low, high = math.exp(self.log_lrs[0]), math.exp(self.log_lrs[-1])  # it is at no edge, so it lies between them
        return Interval(around.value, min(max(around.low, low), around.value), max(min(around.high, high), around.value))

    @property
    def bound(self) -> str:
        """What is known of the best lr at an edge, in words, as in `<= 0.0031`; empty elsewhere, and at both edges."""
        ends = self._around()
        return {"low": f"<= {ends.high:.2g}", "high": f">= {ends.low:.2g}"}.get(self.edge, "")

    @property
    def drawn(self) -> Interval:
        """The interval as a figure shows it: of width zero where there is none."""
        return self.interval or Interval(self.lr, self.lr, self.lr)

    @property
    def remark(self) -> str:
        """What limits the estimate, in a few words; empty where nothing does."""
        return "edge" if self.edge else "coarse" if self.is_coarse else f"or {self.rivals[0]:.2g}" if self.rivals else ""

    def times(self, factor: float) -> "BestLr":
        """Returns the estimate for the same curve over lrs that are all multiplied by a factor."""
        shift = math.log(factor)
        return self._replace(
            log_lr=self.log_lr + shift,
            draws=self.draws + shift,
            rivals=tuple(lr * factor for lr in self.rivals),
            log_lrs=tuple(log_lr + shift for log_lr in self.log_lrs),
        )

    def _around(self) -> Interval:
        log = widened(self.log_lr, self.draws, float(grid_errors([self])[0]))
        return Interval(*(float(x) for x in np.exp(log)))


def grid_error(spacing: float) -> float:
    """Returns the 95 % error of the interpolant's minimum, in ln lr, for a grid of lrs with this spacing in ln lr.

    The error is an eighth of the spacing at an eighth of an octave, and grows to the whole spacing at an octave. It holds
    for smooth curves; how far two interpolants disagree is added to it in quadrature. See
    `test_the_grid_leaves_open_what_is_said`.

    Example:
      >>> [round(grid_error(octaves * math.log(2)) / math.log(2), 4) for octaves in (0.125, 0.25, 0.5, 1, 2)]
      [0.0156, 0.0625, 0.25, 1.0, 2.0]
    """
    return spacing * min(max(spacing / math.log(2), 0.1), 1.0)


def best_lr(lrs: Array, objectives: Array) -> BestLr | None:
    """Returns an estimate of the lr at which the mean objective over seeds is least.

    It minimises a local interpolant of the mean over log lr; see `lrscale.estimate.basins.minimum`. A parabola over a wider
    range would be biased: the loss is a slope on one side and a cliff on the other. Each bootstrap draw of seeds chooses
    the lowest basin anew.

    Args:
      lrs: the learning rates that were tried, [trial]; each > 0, all different.
      objectives: the objective of each run, [trial, seed]; inf where the run diverged.

    Returns:
      The estimate; None where every trial has a run that diverged.

    Source:
      Bias and coverage are measured in `tests/estimate/test_best_lr.py` and `tests/benchmarks/coverage.py`.
    """
    order = np.argsort(lrs)
    x, values, seeds = np.log(lrs[order]), objectives[order], objectives.shape[1]
    with np.errstate(over="ignore"):
        means = values.mean(1)
        draws = values[:, seed_draws(seeds)].mean(-1) if seeds > 1 else np.repeat(means[:, None], DRAWS, 1)
    if not np.isfinite(means).any():
        return None
    found = basins(means, draws, seeds)
    log_lrs, heights = np.array([minimum(x, means[:, None], basin) for basin in found])[:, :, 0].T
    log_lrs_of_draws, heights_of_draws = np.array([minimum(x, draws, basin) for basin in found]).transpose(1, 0, 2)
    places = stretched(log_lrs[:, None], log_lrs_of_draws, seeds)
    depths, gaps = unseen(x, means, found, heights)
    rng = np.random.default_rng(2)
    heights_of_draws = stretched(heights[:, None], heights_of_draws, seeds) - depths[:, None] * rng.random(heights_of_draws.shape)
    best = int(heights.argmin())
    errors = [(grid_error(_spacing(x, basin.lowest)), disagreement(x, means, basin.lowest)) for basin in found]
    for i in range(len(found)):
        if i != best:  # the error of the best is in its interval
            places[i] += rng.normal(size=DRAWS) * np.hypot(*errors[i]) / 1.96
    lowest = heights_of_draws.argmin(0)
    for gap in gaps:
        places = np.vstack([places, rng.uniform(gap.low, gap.high, DRAWS)])
    chosen = rng.integers(0, len(gaps) + 1, DRAWS)  # nothing says whether a gap holds the best
    lowest = np.where(chosen > 0, len(found) - 1 + chosen, lowest)
    shares = np.bincount(lowest, minlength=len(places)) / DRAWS
    rivals = [i for i in np.argsort(heights) if i != best and shares[i] >= RIVAL_SHARE]
    return BestLr(
        float(log_lrs[best]),
        places[lowest, np.arange(DRAWS)],
        _spacing(x, found[best].lowest),
        float(heights[best]),
        _edge(means, draws, [found[i].lowest for i in (best, *rivals)]),
        tuple(float(np.exp(log_lrs[i])) for i in rivals),
        seeds,
        tuple(x.tolist()),
        errors[best][1],
    )


def _spacing(x: Array, k: int) -> float:
    """Returns the larger distance from point k to a neighbour; 0 for a single point."""
    return float(np.diff(x[max(k - 1, 0) : k + 2]).max(initial=0.0))


def _edge(means: Array, draws: Array, lowest: Sequence[int]) -> str:
    """Returns which edge the minimum may lie beyond: where the last point is the lowest of a basin, or of many draws.

    A run that diverged above the best closes the upper edge.
    """
    is_least = draws <= draws.min(0)
    low, high = (
        bool(np.isfinite(means[k])) and (k in lowest or float(is_least[k].mean()) >= RIVAL_SHARE) for k in (0, len(means) - 1)
    )
    return "both" if low and high else "low" if low else "high" if high else ""


def slope(log_x: Array, best: list[BestLr]) -> Interval | None:
    """Returns the slope of log lr* over log x, by least squares; None for fewer than two different x.

    The interval is infinite where a best lr has one seed, which shows no noise.

    Args:
      log_x: log of the x of each cell, [cell].
      best: the best lr of each cell, [cell].
    """
    found = _slope(log_x, np.array([b.log_lr for b in best]), np.array([b.draws for b in best]), grid_errors(best))
    return _open(found, best)


def ratio_slope(log_c: Array, by_sum: list[BestLr], by_mean: list[BestLr]) -> Interval | None:
    """Returns the slope of log(lr_sum*/lr_mean*) over log c; None for c = 1 alone.

    Where all pairs have the same c, the line goes through ratio 1 at c = 1. Where both cells of a pair tried the same
    lrs up to a factor, the error of the grid cancels as far as their minima lie at the same place between the points. The
    interval is infinite where a best lr has one seed, which shows no noise.

    Args:
      log_c: log of c, the gradient scale of sum divided by that of mean, [pair].
      by_sum: the best lr under sum, [pair].
      by_mean: the best lr under mean, [pair].
    """
    pairs = list(zip(by_sum, by_mean, strict=True))
    ratio = np.array([s.log_lr - m.log_lr for s, m in pairs])
    draws = np.array([s.draws - m.draws for s, m in pairs])
    error = np.array([_pair_error(s, m) for s, m in pairs])
    if len(set(log_c)) == 1 and log_c[0] != 0:
        log_c, ratio, draws, error = (np.concatenate([a, np.zeros_like(a)]) for a in (log_c, ratio, draws, error))
    return _open(_slope(log_c, ratio, draws, error), by_sum + by_mean)


def _pair_error(one: BestLr, other: BestLr) -> float:
    """Returns the 95 % error of the grid in log(lr/other lr); at least _ROUNDING.

    On a lattice that both share up to a factor, the error of the minimum is a function of its place between two points.
    It varies over a spacing like a sine, so the difference of two such errors is small where the places are.
    """
    apart = math.hypot(grid_error(one.spacing), grid_error(other.spacing))
    shifts = np.subtract(one.log_lrs, other.log_lrs) if len(one.log_lrs) == len(other.log_lrs) else np.empty(0)
    if len(shifts) == 0 or np.ptp(shifts) > _ROUNDING:
        return max(math.hypot(apart, one.disagreement, other.disagreement), _ROUNDING)
    distance = abs(one.log_lr - other.log_lr - shifts[0]) / max(one.spacing, other.spacing, _ROUNDING)
    share = min(math.sqrt(2) * math.pi * distance, 1.0)
    return max(math.hypot(apart * share, one.disagreement - other.disagreement), _ROUNDING)


def _open(interval: Interval | None, best: Sequence[BestLr]) -> Interval | None:
    """Returns an interval without ends where a best lr has one seed."""
    if interval is None or all(b.seeds > 1 for b in best):
        return interval
    return Interval(interval.value, -math.inf, math.inf)


def grid_errors(best: Sequence[BestLr]) -> Array:
    """Returns the 95 % error of the grid in each log lr, [cell]: `grid_error` and `disagreement` in quadrature."""
    return np.array([math.hypot(grid_error(b.spacing), b.disagreement) for b in best])


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
