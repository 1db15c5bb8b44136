"""The ladder: chooses the next lrs on the lattice 2^(k/8). It covers the interval first, and then refines its basins.

All cells share the lattice. Lattice points are in the units of lr x c^p, so sum and mean try the same points there. For
gradient scales c that are powers of two, the runs then use the same floats.

A basin is a point that was tried and has a lower objective than its neighbours. Every basin whose bottom could be the
best within the noise of the seeds is refined, until its neighbours lie an eighth of an octave away.
"""

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from itertools import chain, pairwise, zip_longest

from lrscale.estimate.lower_bound import lower_bound

OCTAVE = 8
"""The number of lattice points in a factor of two (an octave)."""
WIDENING = 20
"""How far a ladder may widen beyond each end of its interval, in octaves."""
NOISE = 2.0
"""How many standard errors apart two objectives may be, and still count as equal."""
_TINY = 1e-300

Tried = Mapping[int, Sequence[float]]
"""The objective of each seed by the index of the lattice point, inf where the run diverged."""


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


def ends_of(low: float, high: float) -> tuple[int, int]:
    """Returns the indices of the lowest and the highest lattice point in [low, high].

    Where the interval lies between two lattice points, both are the nearest one.
    """
    bottom, top = math.ceil(round(math.log2(low) * OCTAVE, 6)), math.floor(round(math.log2(high) * OCTAVE, 6))
    middle = place_of(math.sqrt(low * high))
    return (bottom, top) if bottom <= top else (middle, middle)


def first_rungs(low: float, high: float, trials: int) -> list[int]:
    """Returns the coarse start of a ladder: lattice points at equal distances that cover [low, high].

    They take half of the trials, or more where the interval needs more: each lattice point of the interval is then within
    an octave of one of them. Where the trials do not suffice for that, they take all trials.

    Args:
      low: lowest lr of the interval.
      high: highest lr of the interval.
      trials: the total number of trials of the cell; >= 1.

    Returns:
      Indices of lattice points, increasing; at least one.

    Example:
      >>> first_rungs(2**-8, 1, 8)
      [-56, -40, -24, -8]
    """
    bottom, top = ends_of(low, high)
    span = top - bottom
    count = min(trials, span + 1, max(1, math.ceil(span / (2 * OCTAVE)), trials // 2))
    return sorted({bottom + (span * (2 * i + 1) + count) // (2 * count) for i in range(count)})


def next_rungs(members: Sequence[Tried], trials: int, low: float, high: float, widen: bool = False) -> list[int]:
    """Returns the lattice points to try next, from the objectives so far.

    Args:
      members: the objectives of each cell that shares the points, often of one cell.
      trials: how many more points are allowed; >= 1.
      low: lowest lr of the interval, in the units of the lattice. No point is below it unless `widen` is set.
      high: highest lr of the interval.
      widen: whether points up to WIDENING octaves outside the interval are allowed where the best point is at its edge.

    Returns:
      Indices of points that no member has tried, the most urgent first. Points that refine are at most a quarter of
      `trials`, but at least one, because each round learns from the one before. Empty where every point of the interval
      has been tried.
    """
    ends = ends_of(low, high)
    tried = set(chain.from_iterable(members))
    if not tried:
        return first_rungs(low, high, trials)
    if holes := _uncovered(tried, ends):
        return holes[:trials]
    turn = len(tried) % len(members)  # the members take turns at being the first to wish
    curves = [curve for curve in (*members[turn:], *members[:turn]) if curve]
    means = [{k: _mean(curve[k]) for k in sorted(curve)} for curve in curves]
    wishes = _interleaved([_wishes(curve, mean, ends, widen) for curve, mean in zip(curves, means, strict=True)])
    further = _interleaved([_further(mean, ends) for mean in means])
    for wanted in (wishes, further):
        if fresh := [k for k in dict.fromkeys(wanted) if k not in tried]:
            return fresh[: max(1, trials // 4)]
    return []


def _uncovered(tried: Collection[int], ends: tuple[int, int]) -> list[int]:
    """Returns the middles of gaps that have a lattice point more than an octave from all points tried."""
    inside = sorted(k for k in tried if ends[0] <= k <= ends[1])
    around = [ends[0] - OCTAVE, *inside, ends[1] + OCTAVE]
    gaps = [(max(a, ends[0]), min(b, ends[1])) for a, b in pairwise(around) if b - a > 2 * OCTAVE]
    return [(a + b) // 2 for a, b in gaps]


def _mean(objectives: Sequence[float]) -> float:
    return math.fsum(objectives) / len(objectives) if all(map(math.isfinite, objectives)) else math.inf


def _log(value: float) -> float:
    return math.log(max(value, _TINY))


def _interleaved(lists: Sequence[Sequence[int]]) -> list[int]:
    """Returns the first entry of each list, then the second of each, and so on."""
    return [k for group in zip_longest(*lists) for k in group if k is not None]


def _wishes(curve: Tried, means: Mapping[int, float], ends: tuple[int, int], widen: bool) -> list[int]:
    """Returns the points that one cell asks for: outside of the interval where it may widen, else near its basins."""
    points = list(means)
    best = min(points, key=lambda k: (means[k], k))
    if widen:
        outside = _outside(points, points.index(best), means, ends)
        if outside:
            return outside
    if math.isinf(means[best]):  # everything diverged
        return [ends[0], (ends[0] + points[0]) // 2]
    basins = [i for i in range(len(points)) if _is_rival(curve, means, points, i, best)]
    basins.sort(key=lambda i: (means[points[i]], points[i]))
    return _interleaved([_refining(means, points, i, ends) for i in basins])


def _outside(points: list[int], i: int, means: Mapping[int, float], ends: tuple[int, int]) -> list[int]:
    """Returns points outside of those tried, where fewer than two lie beyond the best, points[i], and none of these diverged."""
    spacing, above = 2 * OCTAVE, points[i + 1 :]
    lower = [points[0] - spacing * n for n in range(1, 3 - i)]
    higher = [points[-1] + spacing * n for n in range(1, 3 - len(above))]
    if any(math.isinf(means[k]) for k in (*above, points[i])):
        higher = []
    return [k for k in lower + higher if ends[0] - WIDENING * OCTAVE <= k <= ends[1] + WIDENING * OCTAVE]


def _is_rival(curve: Tried, means: Mapping[int, float], points: list[int], i: int, best: int) -> bool:
    """Returns whether points[i] is the lowest point of a basin whose bottom could be lower than the best.

    A basin that has not been refined may be deeper than its lowest point; see `lower_bound`.
    """
    k, around = points[i], [points[n] for n in (i - 1, i + 1) if 0 <= n < len(points)]
    if math.isinf(means[k]) or any(means[n] < means[k] or (n < k and means[n] == means[k]) for n in around):
        return False
    gaps = [n for n in (i - 1, i) if 0 <= n < len(points) - 1 and points[n + 1] - points[n] > 1]
    lowest = min([lower_bound(points, list(means.values()), n) for n in gaps], default=means[k])
    return lowest <= means[best] or _is_within_noise(curve[k], curve[best])


def _is_within_noise(objectives: Sequence[float], best: Sequence[float]) -> bool:
    """Returns whether two means over the same seeds differ by no more than NOISE standard errors."""
    differences = [a - b for a, b in zip(objectives, best, strict=False)]
    if len(differences) < 2:
        return differences == [0.0]
    return statistics.fmean(differences) <= NOISE * statistics.stdev(differences) / math.sqrt(len(differences))


def _refining(means: Mapping[int, float], points: list[int], i: int, ends: tuple[int, int]) -> list[int]:
    """Returns at most two points that refine the basin of points[i].

    Where no point was tried on one side, the end of the interval is one of them. Where the distances to both neighbours
    are alike, they lie a quarter of these away from the likely minimum. Otherwise they are the middle of the larger
    distance, and the likely minimum.
    """
    k = points[i]
    below = points[i - 1] if i else min(ends[0], k)
    above = points[i + 1] if i + 1 < len(points) else max(ends[1], k)
    middle = (below + k) // 2 if k - below >= above - k else (k + above + 1) // 2
    narrow, wide = sorted((k - below, above - k))
    centre = k + (round(_offset(means, below, k, above)) if below in means and above in means else 0)
    step = max(1, (above - below) // 8)
    alike = [centre - step, centre + step]
    likely = centre if centre != k else k + (1 if middle > k else -1)
    sides = alike if wide <= 2 * narrow else [middle, likely] if wide > 3 else []
    wanted = [below, above, *sides, k - 1, k + 1]
    return [n for n in wanted if below <= n <= above and n not in means][:2]


def _offset(means: Mapping[int, float], below: int, k: int, above: int) -> float:
    """Returns the distance from k to the minimum of the parabola through the log objectives of three points; 0 at a cliff."""
    down, up = ((_log(means[n]) - _log(means[k])) / abs(n - k) if n != k else math.inf for n in (below, above))
    if math.isinf(down + up) or down + up <= 0:
        return 0.0
    return ((above - k) * down - (k - below) * up) / (2 * (down + up))


def _further(means: Mapping[int, float], ends: tuple[int, int]) -> list[int]:
    """Returns what to try where all basins are refined: up to the third neighbours of the best, then gaps.

    Evenly spaced points around the best reduce the error of the estimate by a third (`tests/simulated.py`). The middle of
    each gap follows: gaps that may hide a lower objective first, then gaps above half an octave, then those with the
    lowest objective at an end.
    """
    points = list(means)
    best = min(points, key=lambda k: (means[k], k))
    near = [best + side * n for n in (2, 3) for side in (-1, 1) if ends[0] <= best + side * n <= ends[1]]
    gaps = list(pairwise(points))
    if points[0] > ends[0]:
        gaps.append((ends[0] - 1, points[0]))
    if points[-1] < ends[1]:
        gaps.append((points[-1], ends[1] + 1))
    gaps = [(a, b) for a, b in gaps if b - a > 1]
    gaps.sort(key=lambda gap: (gap[1] - gap[0] <= OCTAVE // 2, min(means.get(n, math.inf) for n in gap), gap))
    hidden = [(a, b) for a, b in gaps if a in means and b in means and _bound(means, points, a) <= means[best]]
    return [*near, *((a + b) // 2 for a, b in (*hidden, *gaps))]


def _bound(means: Mapping[int, float], points: list[int], a: int) -> float:
    return lower_bound(points, list(means.values()), points.index(a))
