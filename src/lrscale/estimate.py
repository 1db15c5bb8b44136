"""Estimates from losses over a grid of lrs: the best lr, slopes over batch size, the turn-over batch size, with intervals.

Every estimate is carried through the same bootstrap: `draws` of seeds are taken once and used for all
lrs, batch sizes and reductions, so that what the seeds share cancels in ratios and slopes. An interval is
the bootstrap's 2.5 to 97.5 %, widened in quadrature by half a step of the grid of lrs.
"""

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
        return self.low <= number <= self.high


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
        log = widened(self.log_lr, self.drawn, self.step / 2)
        return Interval(*(float(x) for x in np.exp(log)))


class TurnOver(NamedTuple):
    """The fit log lr_sum* = log eta_max - log(B + B_c). `at_bound`: no turn-over within the batch sizes."""

    eta_max: Interval
    b_c: Interval
    residual: float
    at_bound: bool


def seed_draws(seeds: int, draws: int = DRAWS) -> NDArray[np.int64]:
    """Places of the seeds in each bootstrap draw, [draw, seed]; the same numbers every time."""
    return np.random.default_rng(0).integers(0, seeds, (draws, seeds))


def widened(value: float, drawn: Array, half_step: float) -> Interval:
    """95 % interval of the draws around a value, widened by a half step in quadrature."""
    low, high = (float(np.quantile(drawn, q)) for q in (0.025, 0.975))
    return Interval(value, value - np.hypot(max(value - low, 0), half_step), value + np.hypot(max(high - value, 0), half_step))


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
    drawn, _ = minimum(x, np.log(drawn_means))
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
    return _slope(log_x, np.array([b.log_lr for b in best]), np.array([b.drawn for b in best]), np.array([b.step for b in best]))


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
    step = np.array([np.hypot(s.step, m.step) for s, m in pairs])
    if len(set(log_c)) == 1 and log_c[0] != 0:
        log_c, ratio, drawn, step = (np.concatenate([a, np.zeros_like(a)]) for a in (log_c, ratio, drawn, step))
    return _slope(log_c, ratio, drawn, step)


def _slope(x: Array, y: Array, drawn: Array, step: Array) -> Interval | None:
    if len(set(x)) < 2:
        return None
    off = x - x.mean()
    pull = off / (off @ off)
    return widened(float(pull @ y), pull @ drawn, float(np.hypot.reduce(pull * step / 2)))


def turn_over(batch_sizes: Array, best: list[BestLr]) -> TurnOver | None:
    """Fits lr_sum* = eta_max / (B + B_c), level below B_c and falling as 1/B above; None for fewer than three B.

    Args:
      batch_sizes: [cell].
      best: sum's best lrs, one a cell.
    """
    if len(set(batch_sizes)) < 3:
        return None
    candidates = np.geomspace(batch_sizes.min() / 30, batch_sizes.max() * 30, 2001)
    shape = np.log(batch_sizes[:, None] + candidates)

    def fit(y: Array) -> tuple[Array, Array, Array]:
        """Fits each column of y, [cell, column]; the level's best value is a mean, so only B_c is searched."""
        centred = shape - shape.mean(0)
        errors = ((y - y.mean(0))[:, :, None] + centred[:, None, :]) ** 2
        k = errors.sum(0).argmin(-1)
        return (y + shape[:, k]).mean(0), np.log(candidates[k]), np.sqrt(errors.mean(0)[np.arange(len(k)), k])

    log_eta, log_b_c, residual = fit(np.array([[b.log_lr] for b in best]))
    drawn = np.array([b.drawn[:200] for b in best])
    steps = np.array([b.step for b in best])
    jitter = np.random.default_rng(1).uniform(-0.5, 0.5, drawn.shape) * steps[:, None]
    drawn_eta, drawn_b_c, _ = fit(drawn + jitter)
    eta, b_c = (widened(float(v[0]), d, 0.0) for v, d in ((log_eta, drawn_eta), (log_b_c, drawn_b_c)))
    at_bound = not candidates[1] < np.exp(b_c.value) < candidates[-2]
    return TurnOver(Interval(*np.exp(eta).tolist()), Interval(*np.exp(b_c).tolist()), float(residual[0]), at_bound)
