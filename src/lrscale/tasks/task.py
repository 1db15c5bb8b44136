"""The parts of a task: training and validation data that no seed changes, a model, and the optimum where it is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    from lrscale.tasks.models import Model, Parameters


class Arrays(NamedTuple):
    """Features [example, feature] and targets [example]: `x` and `y` for training, `x_valid` and `y_valid` for validation."""

    x: Tensor
    y: Tensor
    x_valid: Tensor
    y_valid: Tensor


class Optimum(NamedTuple):
    """The minimum of the training loss of a least-squares task, in float64.

    `weights` [feature] are the weights w* at the minimum. `gram` [feature, feature] is G, the mean of x x^T. `minimum` is
    the loss at w*.
    """

    weights: Tensor
    gram: Tensor
    minimum: float

    def excess(self, parameters: Parameters) -> Tensor:
        """Returns the training loss above its minimum, 1/2 (w - w*)^T G (w - w*), [seed, trial].

        This form has no cancellation near w*.
        """
        offset = parameters[0].double() - self.weights
        return ((offset @ self.gram) * offset).sum(-1) / 2


class Population(NamedTuple):
    """The distribution that least-squares data are drawn from. It holds the constants of the theory.

    `spectrum` [feature] holds the eigenvalues of the features' covariance, without the bias. `weights` are the true
    weights; the last one is the bias where there is one. `noise` is the standard deviation of the targets' noise. `bias`
    says whether a bias is trained.
    """

    spectrum: Tensor
    weights: Tensor
    noise: float
    bias: bool


class Task(NamedTuple):
    """The data and the model of a task, and for least squares the optimum and the population.

    `terms` [example] says how much the loss of each training example counts. It is None where each counts 1.
    """

    data: Arrays
    terms: Tensor | None
    model: Model
    optimum: Optimum | None
    population: Population | None
