"""The parts of a task: training and validation data, a model, and the optimum and the population where they are known."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    from lrscale.tasks.models import Model, Parameters


class Arrays(NamedTuple):
    """Features [example, feature] and targets [example]: `x` and `y` for training, `x_valid` and `y_valid` for validation.

    Where each seed has a data draw of its own, all four have an axis of seeds before the others.
    """

    x: Tensor
    y: Tensor
    x_valid: Tensor
    y_valid: Tensor


class Optimum(NamedTuple):
    """The minimum of the training loss of a least-squares task, in float64.

    `weights` [feature] are the weights w* at the minimum. `gram` [feature, feature] is G, the mean of x x^T. `minimum` is
    the loss at w*. Where each seed has a data draw of its own, their shapes are [seed, 1, feature],
    [seed, feature, feature] and [seed, 1].
    """

    weights: Tensor
    gram: Tensor
    minimum: float | Tensor

    def excess(self, parameters: Parameters) -> Tensor:
        """Returns the training loss above its minimum, 1/2 (w - w*)^T G (w - w*), [seed, trial].

        This form has no cancellation near w*.
        """
        offset = parameters[0].double() - self.weights
        return ((offset @ self.gram) * offset).sum(-1) / 2


@dataclass(frozen=True, eq=False)
class Population:
    """The distribution that least-squares data are drawn from. It holds the constants of the theory.

    `spectrum` [feature] holds the eigenvalues of the features' covariance, without the bias. `weights` are the true
    weights; the last one is the bias where there is one. `noise` is the standard deviation of the targets' noise. `bias`
    says whether a bias is trained.
    """

    spectrum: Tensor
    weights: Tensor
    noise: float
    bias: bool

    def excess(self, parameters: Parameters) -> Tensor:
        """Returns the population risk above its minimum, 1/2 (w - w_true)^T H (w - w_true), [seed, trial].

        The population risk is the expected loss of a fresh example. H is its Hessian, the diagonal matrix of the spectrum,
        with 1 for a bias.

        Source:
          Pinned by `test_the_population_risk_is_the_mean_over_fresh_examples`.
        """
        return (parameters[0].double() - self.weights).square() @ self.eigenvalues / 2

    @cached_property
    def eigenvalues(self) -> Tensor:
        """The eigenvalues of H, [weight]: the spectrum, and 1 for a bias, which is last."""
        import torch

        return torch.cat([self.spectrum, torch.ones(int(self.bias), dtype=torch.float64)])


class BuiltInTask(NamedTuple):
    """The data and the model of a task, and for least squares the optimum and the population.

    `terms` [example] says how much the loss of each training example counts. It is None where each counts 1.
    `has_own_data` says whether each seed has a data draw of its own; the data then have an axis of seeds before the others.
    """

    data: Arrays
    terms: Tensor | None
    model: Model
    optimum: Optimum | None
    population: Population | None
    has_own_data: bool = False

    def data_of(self, index: int) -> Arrays:
        """Returns the data of the seed at an index, without an axis of seeds."""
        return Arrays(*(tensor[index] for tensor in self.data)) if self.has_own_data else self.data
