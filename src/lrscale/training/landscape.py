"""The mean loss over the training data as a function of the weights of many runs: its Hessian, and the noise of its gradient.

The loss is the one that is recorded: a module of the user's own is in eval mode, so dropout does nothing and batch norm uses
what it has averaged in training.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from lrscale.spec import Training
from lrscale.streams import generator
from lrscale.tasks.built_in import BuiltInTask
from lrscale.tasks.models import Parameters
from lrscale.tasks.own import PIECE_BYTES, Task
from lrscale.tasks.rows import CPU, Tree, mapped
from lrscale.tasks.rows import leaves as leaves_of
from lrscale.training.built_in_runs import batch_gradients, batches_in_memory
from lrscale.training.engine import weights_after
from lrscale.training.forms import VmapForward
from lrscale.training.lanczos import Array, largest_eigenvalues
from lrscale.training.minibatches import BLOCK_BYTES
from lrscale.training.own_runs import OwnRuns, own_minibatches


class Noise(NamedTuple):
    """The gradients of all training examples at one point: |G|^2 of their mean, and tr(Sigma) of their covariance."""

    signal: float
    spread: float


class Landscape(ABC):
    """The mean loss of some runs over the training data, as a function of their weights.

    `weights` are the weights of the runs, [run, *shape] each. `terms` is the number of terms of the mean.
    """

    weights: list[Tensor]
    terms: float

    @abstractmethod
    def sums(self, weights: Parameters) -> Iterator[Tensor]:
        """Yields the sum of losses of each piece of the data, added up over runs; it can be differentiated twice.

        Args:
          weights: the weights of the runs, [run, *shape] each.
        """

    @abstractmethod
    def noise(self, run: int) -> Noise:
        """Returns the noise of the gradients of all training examples at the weights of a run, by its index."""

    def hessian_products(self, vectors: Tensor) -> Tensor:
        """Returns the product of each run's Hessian of the mean loss with a vector, [run, weight].

        The product is the gradient of (gradient x vector), so no Hessian is made. All runs take the same passes.

        Args:
          vectors: [run, weight], where `weight` goes through the parameters in their order.
        """
        sizes = [w[0].numel() for w in self.weights]
        parts = [v.view(w.shape).to(w) for v, w in zip(vectors.split(sizes, 1), self.weights, strict=True)]
        products = torch.zeros_like(vectors)
        leaves = [w.detach().clone().requires_grad_() for w in self.weights]
        for loss in self.sums(leaves):
            gradients = torch.autograd.grad(loss, leaves, create_graph=True)
            along = torch.stack([(g * v).sum() for g, v in zip(gradients, parts, strict=True)]).sum()
            second = torch.autograd.grad(along, leaves, materialize_grads=True)
            products += torch.cat([g.flatten(1) for g in second], 1)
        return products / self.terms

    def largest_curvatures(self, seeds: tuple[int, ...], iterations: int) -> Array:
        """Returns the largest eigenvalue of each run's Hessian of the mean loss, [run].

        It is nan for a run that is not finite, and where more iterations would be needed.

        Args:
          seeds: a seed for each run, which draws its first vector.
          iterations: the largest number of products with the Hessian.
        """
        count = sum(w[0].numel() for w in self.weights)
        draws = [torch.randn(count, generator=generator("curvature", seed), dtype=torch.float64) for seed in seeds]
        return largest_eigenvalues(self.hessian_products, torch.stack(draws), iterations)


class BuiltInLandscape(Landscape):
    """The landscape of a task that comes with lrscale. One pass serves all runs."""

    def __init__(self, task: BuiltInTask, weights: Parameters) -> None:
        """Takes the weights of each run, [run, *shape], of a task whose data all runs share."""
        self.task, self.weights, self.terms = task, list(weights), float(len(task.data.x))

    def sums(self, weights: Parameters) -> Iterator[Tensor]:
        data, model = self.task.data, self.task.model
        size = max(1, BLOCK_BYTES // (4 * len(weights[0]) * model.width * data.x.element_size()))
        for x, y in zip(data.x.split(size), data.y.split(size), strict=True):
            yield model.losses([w.unsqueeze(0) for w in weights], x.unsqueeze(0), y.unsqueeze(0)).sum()

    def noise(self, run: int) -> Noise:
        task, weights = self.task, [w[run : run + 1] for w in self.weights]
        x, y = task.data.x.unsqueeze(1), task.data.y.unsqueeze(1)  # a batch for each example
        batches = batches_in_memory(task, weights, 1)
        pieces = zip(x.split(batches), y.split(batches), strict=True)
        squares = sum(_square(batch_gradients(task, weights, *piece)) for piece in pieces)
        signal = _square(batch_gradients(task, weights, task.data.x.unsqueeze(0), task.data.y.unsqueeze(0)))
        return Noise(signal, squares / len(x) - signal)


class OwnLandscape(Landscape):
    """The landscape of a task of the user's own, on the CPU, in eval mode. The module is called for one run after another."""

    def __init__(self, task: Task, runs: OwnRuns) -> None:
        """Takes the weights and the buffers of the runs, which have one trial."""
        self.task, self.form = task, VmapForward(task, runs.training.seeds)
        self.weights, self.buffers = [p[:, 0] for p in runs.parameters], [b[:, 0] for b in runs.buffers]
        for module in self.form.modules:
            _ = module.to(CPU, runs.dtype).train(False)
        self.terms = float(task.terms.sum())

    def _loss(self, weights: Parameters, run: int, x: Tree, y: Tree) -> Tensor:
        """Returns the sum of losses at the weights of one run, [*shape] each, whose index is `run`."""
        self.form.take_module(run)
        with sdpa_kernel(SDPBackend.MATH):  # the other kinds of attention cannot be differentiated twice
            return self.form.loss(weights, [b[run] for b in self.buffers], x, y)

    def _pieces(self) -> Iterator[tuple[Tree, Tree]]:
        size = max(1, PIECE_BYTES // (self.task.width * self.weights[0].element_size()))
        for piece, indices in enumerate(torch.arange(len(self.task.train)).split(size)):
            yield self.task.train.take(indices, piece)

    def sums(self, weights: Parameters) -> Iterator[Tensor]:
        for x, y in self._pieces():
            for run in range(len(weights[0])):
                yield self._loss([w[run] for w in weights], run, x, y)

    def noise(self, run: int) -> Noise:
        """Returns the noise of the gradients of all training examples; see `Landscape`. A gradient is of an example's terms."""
        leaves = [w[run].detach().clone().requires_grad_() for w in self.weights]
        total, squares, count = [torch.zeros_like(leaf, dtype=torch.float64) for leaf in leaves], 0.0, len(self.task.train)
        for x, y in self._pieces():
            for example in range(len(next(leaves_of(x)))):
                one = partial(_example, example)
                loss = self._loss(leaves, run, mapped(one, x), mapped(one, y))
                gradients = torch.autograd.grad(loss, leaves, materialize_grads=True)
                squares += _square(gradients)
                for part, gradient in zip(total, gradients, strict=True):
                    part += gradient
        of_terms = (count / self.terms) ** 2
        signal = of_terms * _square(total) / count**2
        return Noise(signal, of_terms * squares / count - signal)


def _example(index: int, tensor: Tensor) -> Tensor:
    return tensor[index : index + 1]


def _square(tensors: Sequence[Tensor]) -> float:
    """Returns the sum of all squares."""
    return math.fsum(float(tensor.double().square().sum()) for tensor in tensors)


def landscape_after(training: Training, task: BuiltInTask | Task, steps: int) -> Landscape:
    """Returns the landscape at the weights after a number of steps of training, with a run for each seed of the first trial.

    Args:
      training: the description of the runs.
      task: its task.
      steps: number of steps.
    """
    if isinstance(task, BuiltInTask):
        return BuiltInLandscape(task, [w[:, 0] for w in weights_after(training, task, steps)])
    runs = OwnRuns(training, task, slice(0, 1), "loop")
    for step, minibatch in zip(range(1, steps + 1), own_minibatches(training, task), strict=False):
        runs.step_unrecorded(minibatch, step)
    return OwnLandscape(task, runs)
