"""Basins of a curve of objectives over lrs: where its local minima lie, and which of them are apart by more than noise."""

from typing import NamedTuple

import numpy as np

from lrscale.estimate.intervals import Array, stretched

COARSE_SPACING = 0.51 * np.log(2)
"""Points that are further apart than half an octave, in ln lr, are too coarse for an interpolant to be trusted."""
_TINY = 1e-300
"""Replaces an objective of 0 or below, which has no logarithm."""
_FINE = 33
"""Number of places at which an interpolant is evaluated between two neighbours of a point."""


class Basin(NamedTuple):
    """The points of a curve between two barriers, by index: its first, its last and its lowest point."""

    first: int
    last: int
    lowest: int


def basins(means: Array, means_of_draws: Array, seeds: int) -> list[Basin]:
    """Returns the basins of a curve. Local minima that the noise of the seeds does not keep apart are one basin.

    Args:
      means: the mean objective, [point]; inf where a run diverged; at least one is finite.
      means_of_draws: that of each bootstrap draw of seeds, [point, draw].
      seeds: number of seeds. With one seed there is no noise to be seen, and every local minimum is a basin.
    """
    padded = np.concatenate([[np.inf], means, [np.inf]])
    minima = np.flatnonzero(np.isfinite(means) & (means < padded[:-2]) & (means <= padded[2:]))
    found = [Basin(0, len(means) - 1, int(minima[0]))]
    for lowest in minima[1:]:
        before = found[-1]
        barrier = before.lowest + int(np.argmax(means[before.lowest : lowest + 1]))
        shallower = max(before.lowest, int(lowest), key=lambda k: means[k])
        if _is_higher(means, means_of_draws, barrier, shallower, seeds):
            found[-1] = Basin(before.first, barrier, before.lowest)
            found.append(Basin(barrier, len(means) - 1, int(lowest)))
        elif means[lowest] < means[before.lowest]:
            found[-1] = Basin(before.first, len(means) - 1, int(lowest))
    return found


def _is_higher(means: Array, draws: Array, one: int, other: int, seeds: int) -> bool:
    """Returns whether the curve is higher at one point than at another by more than the paired noise of the seeds."""
    if not np.isfinite(means[one]) or seeds < 2:
        return True
    height = np.log(max(means[one], _TINY) / max(means[other], _TINY))
    heights = np.log(np.maximum(draws[one], _TINY) / np.maximum(draws[other], _TINY))
    return bool(stretched(height, heights, seeds).min() > 0)


def minimum(x: Array, y: Array, basin: Basin) -> tuple[Array, Array]:
    """Returns the minimum of each column's interpolant inside a basin.

    The interpolant is the polynomial through a point and its nearest neighbours, two on each side, of the square root of
    the objective: it is smooth at a minimum, where the logarithm of a small objective has a tip. It is taken around each
    local minimum of the column. Where the neighbours are far apart, the value at the point is not lowered.

    Args:
      x: increasing values, [point].
      y: objectives of each column at x, [point, column]; inf where a run diverged, which makes a cliff of finite height.
      basin: the basin.

    Returns:
      The x, and the log of the objective, of each column's minimum, each [column].
    """
    edge = np.full((1, y.shape[1]), np.inf)
    padded = np.vstack([edge, y, edge])
    is_low = np.isfinite(y) & (y <= padded[:-2]) & (y <= padded[2:])
    is_low[basin.first + y[basin.first : basin.last + 1].argmin(0), np.arange(y.shape[1])] = True
    best_x, best_y = np.full(y.shape[1], x[basin.lowest]), np.full(y.shape[1], np.inf)
    for k in range(basin.first, basin.last + 1):
        columns = np.flatnonzero(is_low[k] & np.isfinite(y[k]))
        if len(columns) == 0:
            continue
        at, root = _vertex(x, np.sqrt(np.maximum(y[:, columns], 0)), k)
        is_coarse = np.diff(x[max(k - 1, 0) : k + 2]).max(initial=0.0) > COARSE_SPACING
        least = y[k, columns] if is_coarse else np.maximum(root, 0.5 * np.sqrt(np.maximum(y[k, columns], 0))) ** 2
        is_lower = least < best_y[columns]
        best_x[columns[is_lower]], best_y[columns[is_lower]] = at[is_lower], least[is_lower]
    return best_x, np.log(np.maximum(best_y, _TINY))


def disagreement(x: Array, means: Array, k: int) -> float:
    """Returns how far the minimum around point k moves if the logarithm is interpolated instead of the square root.

    It measures the error of the grid: on smooth curves they agree, at the tip of a narrow valley they do not.
    """
    column = np.maximum(means, _TINY)[:, None]
    return float(_vertex(x, np.sqrt(column), k)[0][0] - _vertex(x, np.log(column), k)[0][0])


def _vertex(x: Array, y: Array, k: int) -> tuple[Array, Array]:
    """Returns the x and the value of the minimum of the polynomial around point k, for each column. An end stays.

    A diverged run counts as far above the window's highest point as that is above its lowest.
    """
    window = slice(max(k - 2, 0), min(k + 3, len(x)))
    near, values = x[window], y[window]
    if k in (0, len(x) - 1):
        return np.full(y.shape[1], x[k]), y[k]
    is_finite = np.isfinite(values)
    tops, least = np.where(is_finite, values, -np.inf).max(0), np.where(is_finite, values, np.inf).min(0)
    values = np.where(is_finite, values, 2 * tops - least)
    fine = np.linspace(x[k - 1], x[k + 1], _FINE)
    curve = np.array([np.prod([(fine - b) / (a - b) for b in near if b != a], axis=0) for a in near]).T @ values
    place, columns = curve.argmin(0).clip(1, _FINE - 2), np.arange(y.shape[1])
    below, at, above = (curve[place + n, columns] for n in (-1, 0, 1))
    bend = np.maximum(below + above - 2 * at, _TINY)
    with np.errstate(over="ignore"):  # a flat curve of huge objectives
        offset = np.clip((below - above) / (2 * bend), -1, 1)
    return fine[place] + (fine[1] - fine[0]) * offset, np.minimum(np.minimum(below, above), at)
