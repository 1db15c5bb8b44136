"""How low an objective may be between the points where it was measured."""

import math
from collections.abc import Sequence


def lower_bound(x: Sequence[float], objectives: Sequence[float], i: int) -> float:
    """Returns how low the objective may be between point i and the next.

    The square root of the objective is taken to be no steeper in the gap than between any two neighbouring points that
    are no further from the gap than it is wide. It may fall from both ends that steeply (Piyavskii's bound).

    Args:
      x: increasing values, such as log lr, at least two.
      objectives: the objective at each x; inf where a run diverged. Objectives below 0 count as 0.
      i: index of the point before the gap; >= 0, and below the last.

    Returns:
      A bound >= 0; inf where a run diverged at both ends of the gap.

    Example:
      >>> lower_bound([0, 1, 2, 3], [4, 1, 1, 4], 1)  # 1/2 + |x - 3/2| fits the roots, and is 1/2 in the middle
      0.25
      >>> lower_bound([0, 1, 3, 4], [4, 1, 1, 4], 1)
      0.0
    """
    roots = [math.sqrt(max(value, 0.0)) for value in objectives]
    width, ends = x[i + 1] - x[i], [root for root in roots[i : i + 2] if math.isfinite(root)]
    if not ends:
        return math.inf
    reach = width * (1 + 1e-6)  # so that rounding does not decide on a point that is exactly as far away
    near = [n for n in range(len(x) - 1) if n == i or (x[n] >= x[i] - reach and x[n + 1] <= x[i + 1] + reach)]
    slopes = [abs(roots[n + 1] - roots[n]) / (x[n + 1] - x[n]) for n in near if math.isfinite(roots[n] + roots[n + 1])]
    return max((ends[0] + ends[-1] - max(slopes, default=0.0) * width) / 2, 0.0) ** 2
