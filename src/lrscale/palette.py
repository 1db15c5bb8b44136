"""One colour for each batch size, the same in every figure and in MLflow: viridis, dark to light as B grows."""

from collections.abc import Iterable


def colours(batch_sizes: Iterable[int]) -> dict[int, str]:
    """Returns `#rrggbb` by batch size; perceptually ordered, and dark enough for white paper.

    Example:
      >>> colours([1, 64])
      {1: '#440154', 64: '#5ec962'}
    """
    from matplotlib import colormaps  # 0.2 s to import: only where it is needed
    from matplotlib.colors import to_hex

    sizes = sorted(set(batch_sizes))
    viridis = colormaps["viridis"]
    return {size: to_hex(viridis(0.75 * i / max(1, len(sizes) - 1))) for i, size in enumerate(sizes)}
