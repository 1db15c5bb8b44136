"""Comparisons of gradients, each a vector of float64."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

NEAR_ZERO = 1e-300
"""A norm that is taken for 0 divisions, far below every gradient."""


def along(vector: Tensor, base: Tensor) -> tuple[float, float]:
    """Returns how many times `base` a vector is, and the share of the vector that is not along `base`.

    Args:
      vector: [entry].
      base: [entry], not 0.

    Example:
      >>> along(torch.tensor([2.0, 0.0]), torch.tensor([1.0, 0.0]))
      (2.0, 0.0)
    """
    factor = float(vector @ base / (base @ base).clamp(min=NEAR_ZERO))
    return factor, float((vector - factor * base).norm() / vector.norm().clamp(min=NEAR_ZERO))


def is_same(one: Tensor, other: Tensor, tolerance: float = 1e-9) -> bool:
    """Returns whether two vectors agree up to a share of the first one's norm."""
    return float((one - other).norm()) <= tolerance * max(float(one.norm()), NEAR_ZERO)


def weights_in(whole: Tensor, parts: Sequence[Tensor]) -> tuple[list[float], float, bool]:
    """Solves whole = sum of a_j part_j by least squares.

    Args:
      whole: [entry].
      parts: [part][entry].

    Returns:
      a, [part]; the share of the whole that is not made of the parts; and whether the parts can be told apart. Where a part
      is 0, a and the share are nan.
    """
    matrix = torch.stack(list(parts), 1)
    norms = matrix.norm(dim=0)
    if not bool(matrix.isfinite().all()) or bool((norms <= 1e-12 * norms.max()).any()):
        return [math.nan] * len(parts), math.nan, False
    scaled = matrix / norms
    solution = torch.linalg.lstsq(scaled, whole.unsqueeze(1), driver="gelsd").solution.squeeze(1)
    rest = float((whole - scaled @ solution).norm() / whole.norm().clamp(min=NEAR_ZERO))
    return (solution / norms).tolist(), rest, bool(torch.linalg.svdvals(scaled)[-1] > 1e-6)


def affine_dimension(vectors: Sequence[Tensor], tolerance: float) -> int:
    """Returns the dimension of the smallest flat that holds the vectors, up to a share of the largest norm.

    Gradients of mixtures of three groups of examples lie in a plane for a mean over one count, and in a flat of dimension 4
    for a sum of two means over different counts. A loss that couples examples has no such bound.
    """
    matrix = torch.stack(list(vectors))
    values = torch.linalg.svdvals(matrix - matrix.mean(0))
    return int((values > tolerance * matrix.norm(dim=1).max()).sum())
