"""Models over a run axis: per-example losses of many runs at once, their gradients in closed form.

Runs are laid out [seed, trial]: all trials of a seed share its minibatch, so the first layer is one
wide product per seed. Parameters are lists of tensors [seed, trial, *shape].
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Parameters = Sequence[Tensor]
Losses = Callable[[Parameters, Tensor, Tensor], Tensor]
Weights = Tensor | float
"""Of the examples in a step, [seed or 1, example]; a number where all are the same."""
Gradients = Callable[[Parameters, Tensor, Tensor, Weights, Parameters], list[Tensor]]


class Model(NamedTuple):
    """What a model computes.

    `initial(generator)`: one run's weights, float64, without the leading axes.
    `losses(parameters, x, y)`: per-example losses [seed, trial, example].
    `gradients(parameters, x, y, weights, room)`: the gradients of their sum weighted by `weights`, one a parameter;
    they may be written into `room`, tensors like the parameters, which spares making new ones at every step.
    `errors`: like `losses`, 1 where the most probable class is wrong; None without classes.
    `width`: numbers kept per example and run while a gradient is taken.
    """

    initial: Callable[[torch.Generator], list[Tensor]]
    losses: Losses
    gradients: Gradients
    errors: Losses | None
    width: int


def linear_regression(features: int, bias: bool) -> Model:
    """1/2 (w.x + b - y)^2, starting at w ~ N(0, .01^2), b = 0 as the book does; b multiplies a last feature of ones."""

    def residuals(parameters: Parameters, x: Tensor, y: Tensor) -> Tensor:
        return torch.baddbmm(y.unsqueeze(-1), x, parameters[0].mT, beta=-1)

    def losses(parameters: Parameters, x: Tensor, y: Tensor) -> Tensor:
        return residuals(parameters, x, y).square().div(2).transpose(1, 2)

    def gradients(parameters: Parameters, x: Tensor, y: Tensor, weights: Weights, room: Parameters) -> list[Tensor]:
        residual = residuals(parameters, x, y)
        if isinstance(weights, Tensor):
            return [torch.bmm((residual * weights.unsqueeze(-1)).mT, x, out=room[0])]
        return [torch.baddbmm(parameters[0], residual.mT, x, beta=0, alpha=weights, out=room[0])]

    def initial(generator: torch.Generator) -> list[Tensor]:
        weights = 0.01 * torch.randn(features, generator=generator, dtype=torch.float64)
        return [torch.cat([weights, torch.zeros(int(bias), dtype=torch.float64)])]

    return Model(initial, losses, gradients, None, width=3)


def classifier(inputs: int, classes: int, hidden: int | None) -> Model:
    """Softmax regression, or a perceptron with one ReLU layer; the loss is cross-entropy.

    Softmax regression starts at w ~ N(0, .01^2), b = 0 (the book's), the perceptron at nn.Linear's default.

    Args:
      inputs: features.
      classes: number of classes.
      hidden: width of the hidden layer; None for softmax regression.
    """

    def wide(parameters: Parameters, x: Tensor) -> Tensor:
        """The first layer of all trials as one product per seed, [seed, trial, example, unit]."""
        weight, bias = parameters[0], parameters[1]
        seeds, trials, units, _ = weight.shape
        first = torch.bmm(x, weight.reshape(seeds, trials * units, -1).mT)
        return first.view(seeds, -1, trials, units).transpose(1, 2) + bias.unsqueeze(2)

    def logits(parameters: Parameters, x: Tensor) -> Tensor:
        out = wide(parameters, x)
        return out if hidden is None else out.relu_() @ parameters[2].mT + parameters[3].unsqueeze(2)

    def targets(y: Tensor, out: Tensor) -> Tensor:
        return y.unsqueeze(1).expand(out.shape[:-1]).unsqueeze(-1)

    def losses(parameters: Parameters, x: Tensor, y: Tensor) -> Tensor:
        out = logits(parameters, x)
        return out.logsumexp(-1) - out.gather(-1, targets(y, out)).squeeze(-1)

    def errors(parameters: Parameters, x: Tensor, y: Tensor) -> Tensor:
        out = logits(parameters, x)
        return (out.argmax(-1) != y.unsqueeze(1)).to(out.dtype)

    def gradients(parameters: Parameters, x: Tensor, y: Tensor, weights: Weights, room: Parameters) -> list[Tensor]:
        active = wide(parameters, x) if hidden is None else wide(parameters, x).relu_()
        out = active if hidden is None else active @ parameters[2].mT + parameters[3].unsqueeze(2)
        slope = out.softmax(-1)  # of the losses over the logits, once 1 is taken off at the targets
        slope.scatter_add_(-1, targets(y, out), slope.new_full((1,), -1.0).expand(*slope.shape[:-1], 1))
        slope *= weights.view(-1, 1, weights.shape[-1], 1) if isinstance(weights, Tensor) else weights
        later = []
        if hidden is not None:
            later = [slope.mT @ active, slope.sum(2)]
            slope = (slope @ parameters[2]).mul_(active > 0)
        seeds, trials, count, units = slope.shape
        narrow = slope.transpose(1, 2).reshape(seeds, count, trials * units)
        torch.bmm(narrow.mT, x, out=room[0].view(seeds, trials * units, -1))
        return [room[0], slope.sum(2), *later]

    def layer(generator: torch.Generator, outputs: int, fan_in: int) -> list[Tensor]:
        bound = fan_in**-0.5
        weight = torch.rand(outputs, fan_in, generator=generator, dtype=torch.float64)
        bias = torch.rand(outputs, generator=generator, dtype=torch.float64)
        return [(2 * weight - 1) * bound, (2 * bias - 1) * bound]

    def initial(generator: torch.Generator) -> list[Tensor]:
        if hidden is None:
            weight = 0.01 * torch.randn(classes, inputs, generator=generator, dtype=torch.float64)
            return [weight, torch.zeros(classes, dtype=torch.float64)]
        return layer(generator, hidden, inputs) + layer(generator, classes, hidden)

    width = 3 * classes + (3 * hidden if hidden is not None else 0)
    return Model(initial, losses, gradients, errors, width)
