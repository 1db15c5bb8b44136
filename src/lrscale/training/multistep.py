"""Several steps of plain SGD on least squares at once: small batches are many steps, and a step's price is its calls."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

STRIDE = 4
"""Steps taken at once. Each doubling is one product more and about one digit less."""
LARGEST = 4
"""Batch size up to which a stride is faster than its steps."""


class Stride(NamedTuple):
    """STRIDE steps in a row: features [seed, example, feature], targets [seed, example], the losses' weight, and what
    `couplings` gives for the examples."""

    x: Tensor
    y: Tensor
    weight: float
    once: Tensor
    twice: Tensor


def couplings(x: Tensor, count: int) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """What each example's step does to the residuals of later steps: L, and L L.

    Args:
      x: features, [seed, example, feature]; examples beyond the last whole stride are left out.
      count: examples in a step.

    Returns:
      For each stride L [seed, later example, example]: inner products, 0 where the row's step is not later; and its square.
    """
    size = STRIDE * count
    grouped = x[:, : x.shape[1] // size * size].unflatten(1, (-1, size))
    step = torch.arange(size) // count
    once = (grouped @ grouped.mT).mul_(step.unsqueeze(1) > step)
    return once.unbind(1), (once @ once).unbind(1)


def take(weights: Tensor, stride: Stride, factor: Tensor) -> None:
    """Updates the weights of least squares, [seed, trial, feature], in place.

    A step moves the weights by f r x for each of its examples, f being -lr times the weight of a loss and r the residual,
    so that the residuals which the steps meet solve r = r0 + f L r, r0 being those at the stride's start. L has nothing but
    later steps, L^4 = 0, and r = (1 + f L)(1 + f^2 L^2) r0 exactly.

    Args:
      weights: before the steps; after them on return.
      stride: the steps.
      factor: f of each trial, [1, trial, 1].
    """
    residual, f = torch.bmm(stride.x, weights.mT).sub_(stride.y.unsqueeze(-1)), factor.mT
    residual.addcmul_(torch.bmm(stride.twice, residual), f * f).addcmul_(torch.bmm(stride.once, residual), f)
    weights.baddbmm_(residual.mul_(f).mT, stride.x)
