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
"""Of the losses in a step, [seed or 1, trial or 1, example or 1]; a number where all are the same."""
Gradients = Callable[[Parameters, Tensor, Tensor, Weights, Parameters, int], Callable[[], Tensor]]


MANY = 64
"""Examples in a step from which the product laid out along them is the faster one."""


class Model(NamedTuple):
    """What a model computes.

    `initial(generator)`: one run's weights, float64, without the leading axes.
    `losses(parameters, x, y)`: per-example losses [seed, trial, example].
    `gradients(parameters, x, y, weights, out, beta)`: takes the gradients of their sum weighted by `weights`; each of
    `out`, tensors like the parameters, becomes beta x itself + its gradient, beta 0 or 1. With `out` the parameters
    themselves, beta 1 and -lr among the weights, that is a step of plain SGD. Returns what gives `losses` of the same
    arguments at less cost, to be called once at most.
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
        weights = parameters[0]
        products = torch.bmm(weights, x.mT) if x.shape[1] >= MANY else torch.bmm(x, weights.mT).mT
        return products.sub_(y.unsqueeze(1))

    def halved(residual: Tensor) -> Tensor:
        return residual.square_().div_(2)

    def losses(parameters: Parameters, x: Tensor, y: Tensor) -> Tensor:
        return halved(residuals(parameters, x, y))

    def gradients(
        parameters: Parameters, x: Tensor, y: Tensor, weights: Weights, out: Parameters, beta: int
    ) -> Callable[[], Tensor]:
        residual = residuals(parameters, x, y)
        if isinstance(weights, Tensor):
            out[0].baddbmm_(residual * weights, x, beta=beta)
        else:
            out[0].baddbmm_(residual, x, beta=beta, alpha=weights)
        return lambda: halved(residual)

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

    def first(parameters: Parameters, x: Tensor) -> Tensor:
        """The first layer of all trials as one product per seed, [seed, trial, unit, example]."""
        weight, bias = parameters[0], parameters[1]
        products = torch.bmm(weight.flatten(1, 2), x.mT)
        return products.view(*weight.shape[:3], -1).add_(bias.unsqueeze(-1))

    def second(parameters: Parameters, active: Tensor) -> Tensor:
        return active if hidden is None else (parameters[2] @ active).add_(parameters[3].unsqueeze(-1))

    def logits(parameters: Parameters, x: Tensor) -> Tensor:
        """[seed, trial, class, example]: what follows runs along the examples."""
        out = first(parameters, x)
        return second(parameters, out if hidden is None else out.relu_())

    def targets(y: Tensor, out: Tensor) -> Tensor:
        return y.unsqueeze(1).unsqueeze(2).expand(*out.shape[:2], 1, out.shape[3])

    def entropy(out: Tensor, y: Tensor) -> Tensor:
        return out.logsumexp(2) - out.gather(2, targets(y, out)).squeeze(2)

    def losses(parameters: Parameters, x: Tensor, y: Tensor) -> Tensor:
        return entropy(logits(parameters, x), y)

    def errors(parameters: Parameters, x: Tensor, y: Tensor) -> Tensor:
        out = logits(parameters, x)
        return (out.argmax(2) != y.unsqueeze(1)).to(out.dtype)

    def gradients(
        parameters: Parameters, x: Tensor, y: Tensor, weights: Weights, out: Parameters, beta: int
    ) -> Callable[[], Tensor]:
        active = first(parameters, x) if hidden is None else first(parameters, x).relu_()
        top = second(parameters, active)
        slope = top.softmax(2)  # of the losses over the logits, once 1 is taken off at the targets
        at = targets(y, slope)
        slope.scatter_add_(2, at, slope.new_full((1,), -1.0).expand(at.shape))
        slope *= weights.unsqueeze(2) if isinstance(weights, Tensor) else weights
        if hidden is not None:
            below = (parameters[2].mT @ slope).mul_(active > 0)
            out[2].flatten(0, 1).baddbmm_(slope.flatten(0, 1), active.flatten(0, 1).mT, beta=beta)
            add_sum(out[3], slope, beta)
            slope = below
        out[0].flatten(1, 2).baddbmm_(slope.flatten(1, 2), x, beta=beta)
        add_sum(out[1], slope, beta)
        return lambda: entropy(top, y)

    def add_sum(out: Tensor, slope: Tensor, beta: int) -> None:
        if beta:
            out += slope.sum(-1)
        else:
            torch.sum(slope, -1, out=out)

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
