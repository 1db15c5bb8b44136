"""How much lower an objective may be than it was seen: at the bottoms of its basins, and in gaps between the lrs tried."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lrscale.estimate.basins import Basin
from lrscale.estimate.intervals import Array
from lrscale.estimate.lower_bound import lower_bound

DEEPEST = math.log(4)
"""How much lower than the best that was found an unseen minimum may at most be taken to be, in log objective."""
DEEP = 2.0
"""How much higher than its lowest point a basin's barriers are, at least, if it is deep."""
RIDGE = 1.25
"""How much higher than two local minima a point between them is, at least, if the curve is rugged there."""
_TINY = 1e-300
"""Replaces an objective of 0 or below, which has no logarithm."""


class Gap(NamedTuple):
    """A gap that may hold the best, with its ends in log lr."""

    low: float
    high: float


def unseen(x: Array, means: Array, found: Sequence[Basin], heights: Array) -> tuple[Array, list[Gap]]:
    """Returns how much lower the objective may be than it was seen, in log objective.

    A gap counts only where the curve has several deep basins or is rugged, as momentum's curves are: then it may have more
    minima than were seen.

    Args:
      x: log lrs, increasing, [point].
      means: the mean objective, [point].
      found: the basins of the curve.
      heights: the log of the objective at each basin's interpolated bottom, [basin].

    Returns:
      The depth of each basin below its interpolated bottom, [basin], and the gaps that may hold a lower objective than all.
    """
    bounds = np.array([lower_bound(x.tolist(), means.tolist(), i) for i in range(len(x) - 1)] or [np.inf])
    logs = np.maximum(np.log(np.maximum(bounds, _TINY)), heights.min() - DEEPEST)
    beside = [[i for i in (basin.lowest - 1, basin.lowest) if 0 <= i < len(x) - 1] for basin in found]
    depths = np.array([height - min(logs[gaps], default=height) for height, gaps in zip(heights, beside, strict=True)])
    is_deep = [min(means[basin.first], means[basin.last]) > DEEP * means[basin.lowest] for basin in found]
    known = set(beside[int(heights.argmin())])  # the depth of the best basin stands for these
    may_have_more = sum(is_deep) > 1 or is_rugged(means)
    lower = [i for i in np.flatnonzero(logs < heights.min()) if i not in known] if may_have_more else []
    return np.maximum(depths, 0.0), [Gap(x[i], x[i + 1]) for i in lower]


def is_rugged(means: Array) -> bool:
    """Returns whether a curve has local minima with a ridge between them, none much higher than the lowest.

    Few seeds may not tell two such minima apart. Yet they show that the curve is not a single valley.

    Args:
      means: the mean objective, [point]; inf where a run diverged.

    Example:
      >>> is_rugged(np.array([9.0, 1.0, 1.5, 1.1, 8.0])), is_rugged(np.array([9.0, 1.0, 1.1, 1.05, 8.0]))
      (True, False)
    """
    left, right = np.minimum.accumulate(means)[:-2], np.minimum.accumulate(means[::-1])[::-1][2:]
    higher = np.maximum(left, right)  # of the lowest points on each side
    is_ridge = (means[1:-1] > RIDGE * higher) & (higher <= math.exp(DEEPEST) * means.min())
    return bool(is_ridge.any())
