"""How large a study may be. It is checked before any cell is made."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lrscale.errors import Refusal

MOST_CELLS = 10_000
"""The largest number of cells of a study. A cell takes milliseconds to compose, and each of its trials to record."""
MOST_TRIALS = 1_000_000
"""The largest number of trials of a study, over all cells."""


def check_count(axes: Mapping[str, Sequence[Any]], n_trials: int = 1) -> None:
    """Raises Refusal where a study has more cells or trials than it may have. It is called before any cell is composed.

    Args:
      axes: the values of each axis; of an axis with too many, at least the first MOST_CELLS + 1.
      n_trials: the number of trials of each cell.
    """
    cells = math.prod(map(len, axes.values()))
    if cells > MOST_CELLS:
        of_axes = " x ".join(f"{'more' if len(values) > MOST_CELLS else len(values)} {key}" for key, values in axes.items())
        raise Refusal(
            f"a study must have at most {MOST_CELLS} cells, got {of_axes}. "
            "Take fewer values, such as batch_size=1,4,16,64 in place of a range, or several studies."
        )
    if cells * n_trials > MOST_TRIALS:
        raise Refusal(
            f"`hydra.sweeper.n_trials` x cells must be at most {MOST_TRIALS}, got {n_trials} x {cells}. "
            "Take fewer trials: 16 to 32 in each cell are enough for an interval."
        )
