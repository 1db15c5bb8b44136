"""Takes several steps of plain SGD on least squares at once.

Small batch sizes need many steps, and the cost of a small step is the cost of its calls to torch. So fewer calls are faster.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

STRIDE = 4
"""The number of steps that are taken at once. Twice as many need one product more, and lose about one digit."""
LARGEST = 4
"""The largest number of examples in a step at which a stride is faster than single steps."""


class Stride(NamedTuple):
    """The data of STRIDE steps in a row.

    `x` [seed, example, feature] are features, `y` [seed, example] targets, and `weight` is the weight of every loss.
    `coupling` and `coupling_squared` are the matrices that `couplings` returns for these examples.
    """

    x: Tensor
    y: Tensor
    weight: float
    coupling: Tensor
    coupling_squared: Tensor


def couplings(x: Tensor, count: int) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Returns the matrices L and L L, which say how the step of each example changes the residuals of later steps.

    Args:
      x: features, [seed, example, feature]; examples after the last full stride are left out.
      count: number of examples in a step.

    Returns:
      L and its square for each stride, [seed, later example, example]. L holds the inner products of the examples, and 0
      where the row's step is not later than the column's.
    """
    size = STRIDE * count
    grouped = x[:, : x.shape[1] // size * size].unflatten(1, (-1, size))
    step = torch.arange(size) // count
    coupling = (grouped @ grouped.mT).mul_(step.unsqueeze(1) > step)
    return coupling.unbind(1), (coupling @ coupling).unbind(1)


def take(weights: Tensor, stride: Stride, factor: Tensor) -> None:
    """Takes the steps of a stride: updates the weights of least squares in place.

    A step moves the weights by f r x for each of its examples, where f is -lr times the weight of a loss and r is the
    residual. So the residuals r of all steps solve r = r0 + f L r, where r0 are the residuals at the start of the stride. L
    has entries for later steps only, so L^4 = 0, and r = (1 + f L)(1 + f^2 L^2) r0 exactly.

    Args:
      weights: the weights before the steps, [seed, trial, feature]; they are changed in place.
      stride: the data of the steps.
      factor: f of each trial, [1, trial, 1].
    """
    residual, f = torch.bmm(stride.x, weights.mT).sub_(stride.y.unsqueeze(-1)), factor.mT
    residual.addcmul_(torch.bmm(stride.coupling_squared, residual), f * f).addcmul_(torch.bmm(stride.coupling, residual), f)
    weights.baddbmm_(residual.mul_(f).mT, stride.x)
