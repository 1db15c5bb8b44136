"""The colours: one a batch size, the same in every figure and in MLflow (viridis, dark to light as B grows); one a reduction."""

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
"""Colour and mark of each reduction in the order of their declaration; colours of Okabe and Ito."""


def reduction_look(reduction: str) -> tuple[str, str]:
    """Returns a reduction's colour and mark."""
    return LOOKS[list(REDUCTIONS).index(reduction) % len(LOOKS)]


def colours(batch_sizes: Iterable[int]) -> dict[int, str]:
    """Returns `#rrggbb` by batch size; perceptually ordered, and dark enough for white paper.

    Example:
      >>> colours([1, 64])
      {1: '#440154', 64: '#5ec962'}
    """
    return shades(sorted(set(batch_sizes)))


def shades(values: Iterable[Any]) -> dict[Any, str]:
    """Returns the same colours for values of any kind, in their order."""
    from matplotlib import colormaps  # 0.2 s to import: only where it is needed
    from matplotlib.colors import to_hex

    each, viridis = list(values), colormaps["viridis"]
    return {value: to_hex(viridis(0.75 * i / max(1, len(each) - 1))) for i, value in enumerate(each)}
