"""One colour for each batch size, the same in every figure and in MLflow: viridis, dark to light as B grows."""

from collections.abc import Iterable
from typing import Any


def colours(batch_sizes: Iterable[int]) -> dict[int, str]:
    """Returns `#rrggbb` by batch size; perceptually ordered, and dark enough for white paper.

    Example:
      >>> colours([1, 64])
      {1: '#440154', 64: '#5ec962'}
    """
    return shades(sorted(set(batch_sizes)))


def shades(values: Iterable[Any]) -> dict[Any, str]:
    """The same colours for values of any kind, in their order."""
    from matplotlib import colormaps  # 0.2 s to import: only where it is needed
    from matplotlib.colors import to_hex

    each, viridis = list(values), colormaps["viridis"]
    return {value: to_hex(viridis(0.75 * i / max(1, len(each) - 1))) for i, value in enumerate(each)}
