"""The ladder: which lrs to try next, on the lattice 2^(k/8), until the best one is closely surrounded.

All cells share the lattice, so where batch sizes are powers of two, sum at lr/B and mean at lr are the
same floats. A ladder starts coarse, widens where the best point is near an edge, and otherwise divides
its spacing around the best point by four.
"""

import math
from collections.abc import Mapping

OCTAVE = 8
"""Lattice points in a factor of two."""
WIDENING = 20
"""Octaves beyond its interval that a ladder may widen to, either way."""


def lr_at(k: int) -> float:
    """Lattice point k, 2^(k/8); an octave up is exactly twice as much.

    Example:
      >>> lr_at(3 + 8 * 5) == 32 * lr_at(3)
      True
    """
    octaves, eighths = divmod(k, OCTAVE)
    return math.ldexp(2.0 ** (eighths / OCTAVE), octaves)


def place_of(lr: float) -> int:
    """The lattice point nearest to an lr."""
    return round(math.log2(lr) * OCTAVE)


def first_rungs(low: float, high: float, trials: int) -> list[int]:
    """The coarse start: lattice points in [low, high], a power of two apart, at most half of the trials.

    Args:
      low: lowest lr of the interval.
      high: highest.
      trials: trials that the cell is given in all.

    Returns:
      Places on the lattice, increasing; at least one.
    """
    bottom, top = math.ceil(round(math.log2(low) * OCTAVE, 6)), math.floor(round(math.log2(high) * OCTAVE, 6))
    spacing = 1
    while (top - bottom) // spacing + 1 > max(2, trials // 2):
        spacing *= 2
    inside = [k for k in range(bottom, top + 1) if k % spacing == 0]
    return inside[:trials] or [place_of(math.sqrt(low * high))]


def next_rungs(tried: Mapping[int, float], trials: int) -> list[int]:
    """What to try next, given what came out.

    Args:
      tried: objective by place on the lattice, inf where a run diverged; at least one.
      trials: how many more may be tried; >= 1.

    Returns:
      Places not yet tried, at most `trials`, most urgent first.
    """
    places = sorted(tried)
    best = min(places, key=lambda k: (tried[k], k))
    i = places.index(best)
    below, above = places[:i][::-1], places[i + 1 :]  # nearest first
    spacing = max([abs(best - near[0]) for near in (below, above) if near], default=OCTAVE)
    lower = [places[0] - spacing * n for n in range(1, 3 - len(below))]
    higher = [places[-1] + spacing * n for n in range(1, 3 - len(above))]
    if math.isinf(tried[best]):  # everything diverged
        wanted = lower
    elif lower or (higher and not any(math.isinf(tried[k]) for k in above)):
        wanted = lower + higher
    else:
        wanted = [best + side * ((near[0] - best) * side // part) for part in (2, 4) for side, near in ((-1, below), (1, above))]
    nearest = [best + side * off for off in range(1, len(places) + trials + 2) for side in (-1, 1)]
    fresh = [k for k in dict.fromkeys(wanted) if k not in tried]
    if spacing == 1 or not fresh:
        fresh += [k for k in nearest if k not in tried and k not in fresh]
    return fresh[:trials]
