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
_TINY = 1e-300
"""Replaces an objective of 0 or below, which has no logarithm."""


class Gap(NamedTuple):
    """A gap that may hold the best: its ends in log lr, the log of the lower objective at an end, and the depth below that."""

    low: float
    high: float
    height: float
    depth: float


def unseen(x: Array, means: Array, found: Sequence[Basin], heights: Array) -> tuple[Array, list[Gap]]:
    """Returns how much lower the objective may be than it was seen, in log objective.

    A gap counts only where the curve has several deep basins, as momentum's has, and may have more of them.

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
    known = {i for gaps in beside for i in gaps}
    lower = [i for i in np.flatnonzero(logs < heights.min()) if i not in known] if sum(is_deep) > 1 else []
    tops = [math.log(max(min(means[i], means[i + 1]), _TINY)) for i in lower]
    return np.maximum(depths, 0.0), [Gap(x[i], x[i + 1], top, top - logs[i]) for i, top in zip(lower, tops, strict=True)]
