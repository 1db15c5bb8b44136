"""The runs of a task that comes with lrscale: its model computes the gradients of many runs in closed form."""

import math
from collections.abc import Iterator
from collections.abc import Set as AbstractSet

import torch
from torch import Tensor

from lrscale.spec import Training
from lrscale.streams import generator
from lrscale.tasks.built_in import BuiltInTask
from lrscale.tasks.models import Losses, Parameters
from lrscale.training.minibatches import BLOCK_BYTES, Minibatch, minibatches, strides
from lrscale.training.multistep import LARGEST, Stride, take
from lrscale.training.updates import make_updates


def full_data_mean(per_example: Losses, parameters: list[Tensor], x: Tensor, y: Tensor, width: int) -> Tensor:
    """Returns the mean over all examples of a per-example quantity, [seed, trial], float64.

    The examples are processed in pieces of bounded size.

    Args:
      per_example: function that returns the quantity, [seed, trial, example].
      parameters: parameters of the runs, [seed, trial, *shape] each.
      x: features, [seed or 1, example, ...].
      y: targets, [seed or 1, example].
      width: how many numbers are kept per example and run; see `Model`.
    """
    seeds, trials = parameters[0].shape[:2]
    shape = (len(x), seeds * trials // len(x))  # all runs see the same data where these have no axis of seeds
    run_parameters = [parameter.reshape(*shape, *parameter.shape[2:]) for parameter in parameters]
    size = max(1, BLOCK_BYTES // (seeds * trials * width * x.element_size()))
    total = torch.zeros(shape, dtype=torch.float64)
    with torch.no_grad():
        for features, targets in zip(x.split(size, 1), y.split(size, 1), strict=True):
            total += per_example(run_parameters, features, targets).sum(-1)
    return (total / x.shape[1]).view(seeds, trials)


def batch_gradients(task: BuiltInTask, weights: Parameters, x: Tensor, y: Tensor) -> list[Tensor]:
    """Returns the gradients of the mean loss over each batch, all at the same weights, [batch, 1, *shape] each.

    Args:
      task: the task whose model is used.
      weights: the weights of one run, [1, *shape] each.
      x: features, [batch, example, feature].
      y: targets, [batch, example].
    """
    parameters = [w.expand(len(x), *w.shape) for w in weights]
    gradients = [torch.empty_like(parameter) for parameter in parameters]
    task.model.gradients(parameters, x, y, 1 / x.shape[1], gradients, 0)
    return gradients


def batches_in_memory(task: BuiltInTask, weights: Parameters, size: int) -> int:
    """Returns how many batches fit in BLOCK_BYTES while their gradients are taken; at least 1."""
    numbers = 2 * sum(w.numel() for w in weights) + size * task.model.width
    return max(1, BLOCK_BYTES // (numbers * task.data.x.element_size()))


class BuiltInRuns:
    """The state of one chunk of runs: parameters [seed, trial, *shape] and optimizer state. Each step changes it in place."""

    def __init__(self, training: Training, task: BuiltInTask, chunk: slice) -> None:
        self.training, self.task = training, task
        trials = len(training.optimizer.options["lr"][chunk])
        initial = [task.model.initial(generator("init", seed)) for seed in training.seeds]
        self.parameters = [
            torch.stack(weights).to(task.data.x.dtype).unsqueeze(1).repeat(1, trials, *[1] * weights[0].ndim)
            for weights in zip(*initial, strict=True)
        ]
        self.gradients = [torch.empty_like(parameter) for parameter in self.parameters]
        self.updates = make_updates(training, chunk, self.parameters)
        options = training.optimizer.options
        self.plain_sgd = training.optimizer.name == "sgd" and options["momentum"] == 0 and options["weight_decay"] == 0
        self.lrs = torch.tensor(options["lr"][chunk], dtype=task.data.x.dtype).view(1, -1, 1)
        self.lr_factor = self.updates.lr_factor
        self.factors: dict[float, Tensor] = {}

    def minibatches(self, alone: AbstractSet[int] | None) -> Iterator[Minibatch | Stride]:
        """Yields one minibatch per step, without end. Plain SGD on least squares joins some small steps to strides.

        Args:
          alone: steps that must not be part of a stride; None for all.
        """
        task, is_small = self.task, self.training.step_examples <= LARGEST
        is_plain = self.plain_sgd and self.lr_factor is None
        if alone is not None and is_plain and task.optimum is not None and task.terms is None and is_small:
            yield from strides(self.training, task, alone)
        else:
            yield from minibatches(self.training, task)

    def ends(self) -> tuple[Tensor, Tensor]:
        """Returns validation loss and validation error (nan without classes), [seed, trial] each."""
        model, data = self.task.model, self.task.data
        loss = self.mean(model.losses, data.x_valid, data.y_valid)
        return loss, torch.full_like(loss, math.nan) if model.errors is None else self.mean(
            model.errors, data.x_valid, data.y_valid
        )

    def step(self, minibatch: Minibatch | Stride, step: int) -> Tensor:
        """Takes one step. Leaves the gradients in `gradients`, and returns the mean loss of the minibatch, [seed, trial]."""
        assert isinstance(minibatch, Minibatch)
        losses = self.task.model.gradients(self.parameters, *minibatch, self.gradients, 0)
        with torch.no_grad():
            mean = losses().mean(-1)
        self.updates.update(self.parameters, self.gradients, step)
        return mean

    def step_unrecorded(self, minibatch: Minibatch | Stride, step: int) -> None:
        """Takes one step, or the steps of a stride at once, whose gradients are not recorded.

        Plain SGD adds -lr times the gradient directly to the parameters, without a tensor for the gradient.
        """
        if isinstance(minibatch, Stride):
            take(self.parameters[0], minibatch, self.factor(minibatch.weight))
            return
        x, y, weight = minibatch
        if self.plain_sgd and isinstance(weight, float):
            scale = self.factor(weight) if self.lr_factor is None else -weight * self.lr_factor(step) * self.lrs
            self.task.model.gradients(self.parameters, x, y, scale, self.parameters, 1)
        else:
            self.task.model.gradients(self.parameters, x, y, weight, self.gradients, 0)
            self.updates.update(self.parameters, self.gradients, step)

    def factor(self, weight: float) -> Tensor:
        """Returns -lr x weight of each trial, [1, trial, 1]."""
        if weight not in self.factors:
            self.factors[weight] = -weight * self.lrs
        return self.factors[weight]

    def train_loss(self) -> tuple[Tensor, Tensor]:
        """Returns the mean loss over the training data, and its excess over the minimum (nan if unknown), [seed, trial] each."""
        optimum = self.task.optimum
        if optimum is not None:
            excess = optimum.excess(self.parameters)
            return optimum.minimum + excess, excess
        loss = self.mean(self.task.model.losses, self.task.data.x, self.task.data.y)
        return loss, torch.full_like(loss, math.nan)

    def risks(self) -> tuple[Tensor, Tensor, Tensor]:
        """Returns training loss, excess risk and population risk (nan where unknown), [seed, trial] each."""
        loss, excess = self.train_loss()
        population = self.task.population
        return loss, excess, torch.full_like(loss, math.nan) if population is None else population.excess(self.parameters)

    def mean(self, per_example: Losses, x: Tensor, y: Tensor) -> Tensor:
        """Returns the mean of a per-example quantity over data of the task, [seed, trial]."""
        if not self.task.has_own_data:
            x, y = x.unsqueeze(0), y.unsqueeze(0)
        return full_data_mean(per_example, self.parameters, x, y, self.task.model.width)
