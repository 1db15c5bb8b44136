"""The colours of batch sizes and reductions. They are the same in every figure, and in MLflow.

Batch sizes have the colours of viridis, from dark to light as B grows.
"""

from collections.abc import Iterable
from typing import Any

from lrscale.training.reduction import REDUCTIONS

LOOKS = (
    ("#0072b2", "o"),
    ("#d55e00", "s"),
    ("#009e73", "^"),
    ("#cc79a7", "D"),
    ("#e69f00", "v"),
)
"""Colour and marker of each reduction, in the order in which the reductions are declared. Colours: Okabe and Ito."""


def reduction_look(reduction: str) -> tuple[str, str]:
    """Returns the colour and the marker of a reduction."""
    return LOOKS[list(REDUCTIONS).index(reduction) % len(LOOKS)]


def colours(batch_sizes: Iterable[int]) -> dict[int, str]:
    """Returns the colour of each batch size, as `#rrggbb`. Larger batch sizes are lighter, yet dark enough for white paper.

    Example:
      >>> colours([1, 64])
      {1: '#440154', 64: '#5ec962'}
    """
    return shades(sorted(set(batch_sizes)))


def shades(values: Iterable[Any]) -> dict[Any, str]:
    """Returns the colours of `colours` for values of any kind, in the order of the values."""
    from matplotlib import colormaps  # takes 0.2 s to import, so it is imported only when it is used
    from matplotlib.colors import to_hex

    ordered, viridis = list(values), colormaps["viridis"]
    return {value: to_hex(viridis(0.75 * i / max(1, len(ordered) - 1))) for i, value in enumerate(ordered)}
