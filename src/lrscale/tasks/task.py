"""What a task is: training and validation data that no seed changes, a model, and the optimum where it is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    from lrscale.tasks.models import Model, Parameters


class Arrays(NamedTuple):
    """Features [example, feature] and targets [example], for training and for validation."""

    x: Tensor
    y: Tensor
    x_valid: Tensor
    y_valid: Tensor


class Optimum(NamedTuple):
    """Where the training loss of a least-squares task is least, in float64.

    `weights` [feature], `gram` [feature, feature] (the mean of x x^T), and the least loss `minimum`.
    """

    weights: Tensor
    gram: Tensor
    minimum: float

    def excess(self, parameters: Parameters) -> Tensor:
        """Training loss above its minimum, 1/2 (w - w*)^T G (w - w*), [seed, trial]: no cancellation near w*."""
        off = parameters[0].double() - self.weights
        return ((off @ self.gram) * off).sum(-1) / 2


class Population(NamedTuple):
    """What least-squares data are drawn from: the constants of the theory.

    `spectrum`: covariance eigenvalues [feature], bias not counted; `weights`: the true ones, the bias's
    last; `noise`: the targets' standard deviation; `bias`: whether a bias is trained.
    """

    spectrum: Tensor
    weights: Tensor
    noise: float
    bias: bool


class Task(NamedTuple):
    """Data, model and, for least squares, the optimum and the population.

    `terms` [example]: how much each example's loss counts; None where each counts 1.
    """

    data: Arrays
    terms: Tensor | None
    model: Model
    optimum: Optimum | None
    population: Population | None
