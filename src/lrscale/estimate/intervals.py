"""95 % intervals: a paired bootstrap over seeds, corrected for small numbers of seeds, and a jackknife.

Every estimate uses the same bootstrap draws of seeds, for all lrs, batch sizes and reductions. So the effects that a seed
has on all of them cancel in ratios and slopes. An interval is the range from the 2.5 % to the 97.5 % quantile of the draws,
after the correction (`stretched`).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
DRAWS = 1000
"""Number of bootstrap draws."""


class Interval(NamedTuple):
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float

    def holds(self, number: float) -> bool:
        """Returns whether a number is in the interval."""
        return bool(self.low <= number <= self.high)


def seed_draws(seeds: int, draws: int = DRAWS) -> NDArray[np.int64]:
    """Returns the indices of the seeds in each bootstrap draw, [draw, seed]. They are the same in every call."""
    return np.random.default_rng(0).integers(0, seeds, (draws, seeds))


def widened(value: float, draws: Array, error: float) -> Interval:
    """Returns the 95 % interval of the draws around a value, widened in quadrature by another error.

    Args:
      value: the estimate.
      draws: the estimate from each bootstrap draw, [draw].
      error: the 95 % bound of the other error, such as that of the grid of lrs; >= 0.
    """
    low, high = (float(np.quantile(draws, q)) for q in (0.025, 0.975))
    return Interval(value, value - np.hypot(max(value - low, 0), error), value + np.hypot(max(high - value, 0), error))


def stretched(value: Array, draws: Array, sample_size: int) -> Array:
    """Returns the draws moved away from the value, which corrects the bootstrap of a small sample.

    The bootstrap of n values has two errors. Its spread is too small by sqrt((n - 1)/n). Its quantiles are those of a
    normal distribution instead of Student's t with n - 1 degrees of freedom. Both together need a factor of 1.29 at
    n = 8, and 1.10 at n = 20.

    Args:
      value: the estimate, or one estimate for each row of `draws`.
      draws: the estimate from each bootstrap draw, [.., draw].
      sample_size: number of values in the sample, n. A sample of one value has no spread, and is not corrected.
    """
    from scipy.special import stdtrit  # takes 0.2 s to import, so it is imported only when it is used

    if sample_size < 2:
        return draws
    factor = float(stdtrit(sample_size - 1, 0.975)) / 1.959964 * (sample_size / (sample_size - 1)) ** 0.5
    return np.asarray(value + factor * (draws - value), dtype=np.float64)


def jackknife(statistic: Callable[[Array], float], parts: Array) -> Interval:
    """Returns a statistic of the mean over independent parts, with its jackknife interval (Student's t).

    The jackknife leaves out each part in turn.

    Args:
      statistic: a smooth function of the mean over parts.
      parts: [part, ...], at least two parts.

    Example:
      >>> interval = jackknife(lambda mean: float(mean**2), np.array([1.0, 2.0, 3.0]))
      >>> round(interval.value, 6), round(interval.high - interval.value, 3)
      (4.0, 9.962)
    """
    from scipy.special import stdtrit  # takes 0.2 s to import, so it is imported only when it is used

    count, total = len(parts), parts.sum(0)
    values = np.array([statistic((total - part) / (count - 1)) for part in parts])
    error = math.sqrt((count - 1) * float(((values - values.mean()) ** 2).mean()))
    value, margin = statistic(total / count), float(stdtrit(count - 1, 0.975)) * error
    return Interval(value, value - margin, value + margin)


def seed_means(values: Array) -> tuple[Array, Array]:
    """Returns the means over seeds, [cell], and the ends of their 95 % intervals, [end, cell].

    Args:
      values: [cell, seed], each > 0.
    """
    logs, draws = log_means(values)
    return np.exp(logs), np.exp(np.quantile(draws, (0.025, 0.975), axis=1))


def log_means(values: Array) -> tuple[Array, Array]:
    """Returns the log of the means over seeds, [cell], and of their bootstrap draws, [cell, draw].

    Args:
      values: [cell, seed], each > 0.
    """
    seeds = values.shape[1]
    logs = np.log(values.mean(1))
    return logs, stretched(logs[:, None], np.log(values[:, seed_draws(seeds)].mean(-1)), seeds)


def exponential(log: Interval) -> Interval:
    """Returns the interval of x from that of log x."""
    return Interval(*np.exp(log).tolist())
