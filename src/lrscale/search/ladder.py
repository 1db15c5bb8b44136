"""The ladder: chooses the next lrs on the lattice 2^(k/8), until points lie close to the best lr on both sides.

All cells share the lattice. So for batch sizes that are powers of two, sum at lr/B and mean at lr use the same floats.
A ladder starts with coarse spacing. It widens where the best point is near an edge of the points tried. Otherwise it
divides its spacing around the best point by four.
"""

import math
from collections.abc import Mapping

OCTAVE = 8
"""The number of lattice points in a factor of two (an octave)."""
WIDENING = 20
"""How far a ladder may widen beyond each end of its interval, in octaves."""


def lr_at(k: int) -> float:
    """Returns lattice point k, 2^(k/8). The point one octave higher is exactly twice as large.

    Example:
      >>> lr_at(3 + 8 * 5) == 32 * lr_at(3)
      True
    """
    octaves, eighths = divmod(k, OCTAVE)
    return math.ldexp(2.0 ** (eighths / OCTAVE), octaves)


def place_of(lr: float) -> int:
    """Returns the index k of the lattice point nearest to an lr."""
    return round(math.log2(lr) * OCTAVE)


def first_rungs(low: float, high: float, trials: int) -> list[int]:
    """Returns the coarse start of a ladder: lattice points in [low, high] that take at most half of the trials.

    The spacing of their indices is a power of two. Where half of the trials is less than two, up to two are taken.

    Args:
      low: lowest lr of the interval.
      high: highest lr of the interval.
      trials: the total number of trials of the cell.

    Returns:
      Indices of lattice points, increasing; at least one.
    """
    bottom, top = math.ceil(round(math.log2(low) * OCTAVE, 6)), math.floor(round(math.log2(high) * OCTAVE, 6))
    spacing = 1
    while (top - bottom) // spacing + 1 > max(2, trials // 2):
        spacing *= 2
    inside = [k for k in range(bottom, top + 1) if k % spacing == 0]
    return inside[:trials] or [place_of(math.sqrt(low * high))]


def next_rungs(tried: Mapping[int, float], trials: int) -> list[int]:
    """Returns the lattice points to try next, from the objectives so far.

    Args:
      tried: the objective by index of the lattice point, inf where a run diverged; at least one.
      trials: how many more trials are allowed; >= 1.

    Returns:
      Indices of points that have not been tried, at most `trials`, the most urgent first.
    """
    indices = sorted(tried)
    best = min(indices, key=lambda k: (tried[k], k))
    position = indices.index(best)
    below, above = indices[:position][::-1], indices[position + 1 :]  # nearest first
    spacing = max([abs(best - near[0]) for near in (below, above) if near], default=OCTAVE)
    lower = [indices[0] - spacing * n for n in range(1, 3 - len(below))]
    higher = [indices[-1] + spacing * n for n in range(1, 3 - len(above))]
    if math.isinf(tried[best]):  # everything diverged
        wanted = lower
    elif lower or (higher and not any(math.isinf(tried[k]) for k in above)):
        wanted = lower + higher
    else:
        wanted = [best + side * ((near[0] - best) * side // part) for part in (2, 4) for side, near in ((-1, below), (1, above))]
    nearest = [best + side * off for off in range(1, len(indices) + trials + 2) for side in (-1, 1)]
    fresh = [k for k in dict.fromkeys(wanted) if k not in tried]
    if spacing == 1 or not fresh:
        fresh += [k for k in nearest if k not in tried and k not in fresh]
    return fresh[:trials]
