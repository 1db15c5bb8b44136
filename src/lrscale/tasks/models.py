"""Models of many runs at once: their per-example losses, and the gradients of these in closed form.

Runs have the axes [seed, trial]. All trials of a seed share its minibatch, so the first layer is one wide product per seed.
Parameters are lists of tensors [seed, trial, *shape].
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Parameters = Sequence[Tensor]
"""The parameters of many runs: one tensor [seed, trial, *shape] for each parameter of the model."""
Losses = Callable[[Parameters, Tensor, Tensor], Tensor]
"""A function of parameters, features and targets that returns one number per example, [seed, trial, example]."""
Weights = Tensor | float
"""The weights of the losses in a step, [seed or 1, trial or 1, example or 1]; a number where all are the same."""
Gradients = Callable[[Parameters, Tensor, Tensor, Weights, Parameters, int], Callable[[], Tensor]]
"""A function that takes gradients; see `gradients` of `Model`."""


MANY = 64
"""From this number of examples in a step, the product with examples along its last axis is the faster one."""


class Model(NamedTuple):
    """The functions of a model.

    `initial(generator)` returns the initial weights of one run, float64, without the axes [seed, trial].
    `losses(parameters, x, y)` returns the per-example losses, [seed, trial, example].
    `gradients(parameters, x, y, weights, out, beta)` takes the gradients of the sum of the losses times `weights`. `out`
    holds tensors like the parameters. Each of them is changed in place to beta x itself + its gradient, with beta 0 or 1.
    Where `out` is the parameters themselves, beta is 1, and the weights contain a factor -lr, this is a step of plain SGD.
    `gradients` returns a one-shot function, which gives the per-example losses of this forward pass at less cost than
    `losses`.
    `errors` is like `losses`, but returns 1 where the most probable class is wrong, and 0 elsewhere. It is None without
    classes.
    `width` is how many numbers are kept per example and run while a gradient is taken.
    """

    initial: Callable[[torch.Generator], list[Tensor]]
    losses: Losses
    gradients: Gradients
    errors: Losses | None
    width: int


def linear_regression(features: int, bias: bool) -> Model:
    """Returns linear regression, whose loss is 1/2 (w.x + b - y)^2.

    It starts at w ~ N(0, .01^2) and b = 0, as in the book (d2l).

    Args:
      features: number of features, without the one for the bias.
      bias: whether there is a bias b. It is the last weight, and the last feature is 1 for every example.
    """

    def residuals(parameters: Parameters, x: Tensor, y: Tensor) -> Tensor:
        weights = parameters[0]
        products = torch.bmm(weights, x.mT) if x.shape[1] >= MANY else torch.bmm(x, weights.mT).mT
        return products.sub_(y.unsqueeze(1))

    def half_square(residual: Tensor) -> Tensor:
        """Returns residual^2 / 2; overwrites the residual."""
        return residual.square_().div_(2)

    def losses(parameters: Parameters, x: Tensor, y: Tensor) -> Tensor:
        return half_square(residuals(parameters, x, y))

    def gradients(
        parameters: Parameters, x: Tensor, y: Tensor, weights: Weights, out: Parameters, beta: int
    ) -> Callable[[], Tensor]:
        residual = residuals(parameters, x, y)
        if isinstance(weights, Tensor):
            out[0].baddbmm_(residual * weights, x, beta=beta)
        else:
            out[0].baddbmm_(residual, x, beta=beta, alpha=weights)
        return lambda: half_square(residual)

    def initial(generator: torch.Generator) -> list[Tensor]:
        weights = 0.01 * torch.randn(features, generator=generator, dtype=torch.float64)
        return [torch.cat([weights, torch.zeros(int(bias), dtype=torch.float64)])]

    return Model(initial, losses, gradients, None, width=3)


def classifier(inputs: int, classes: int, hidden: int | None) -> Model:
    """Returns softmax regression, or a perceptron with one ReLU layer. The loss is cross-entropy.

    Softmax regression starts at w ~ N(0, .01^2) and b = 0, as in the book (d2l). The perceptron starts at the default of
    nn.Linear.

    Args:
      inputs: number of features.
      classes: number of classes.
      hidden: width of the hidden layer; None for softmax regression.
    """

    def first(parameters: Parameters, x: Tensor) -> Tensor:
        """Returns the output of the first layer, [seed, trial, unit, example]; all trials of a seed are one product."""
        weight, bias = parameters[0], parameters[1]
        products = torch.bmm(weight.flatten(1, 2), x.mT)
        return products.view(*weight.shape[:3], -1).add_(bias.unsqueeze(-1))

    def second(parameters: Parameters, active: Tensor) -> Tensor:
        return active if hidden is None else (parameters[2] @ active).add_(parameters[3].unsqueeze(-1))

    def logits(parameters: Parameters, x: Tensor) -> Tensor:
        """Returns the logits, [seed, trial, class, example]. Examples are last, because later operations run along them."""
        out = first(parameters, x)
        return second(parameters, out if hidden is None else out.relu_())

    def targets(y: Tensor, out: Tensor) -> Tensor:
        """Returns the index of the target class in `out`, [seed, trial, 1, example]."""
        return y.unsqueeze(1).unsqueeze(2).expand(*out.shape[:2], 1, out.shape[3])

    def entropy(out: Tensor, y: Tensor) -> Tensor:
        """Returns the cross-entropy of each example, [seed, trial, example], from the logits."""
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
        slope = top.softmax(2)  # becomes the derivative of the losses by the logits when 1 is subtracted at the targets
        index = targets(y, slope)
        slope.scatter_add_(2, index, slope.new_full((1,), -1.0).expand(index.shape))
        slope *= weights.unsqueeze(2) if isinstance(weights, Tensor) else weights
        if hidden is not None:
            hidden_slope = (parameters[2].mT @ slope).mul_(active > 0)
            out[2].flatten(0, 1).baddbmm_(slope.flatten(0, 1), active.flatten(0, 1).mT, beta=beta)
            add_sum(out[3], slope, beta)
            slope = hidden_slope
        out[0].flatten(1, 2).baddbmm_(slope.flatten(1, 2), x, beta=beta)
        add_sum(out[1], slope, beta)
        return lambda: entropy(top, y)

    def add_sum(out: Tensor, slope: Tensor, beta: int) -> None:
        """Changes `out` in place to beta x itself + the sum of the slopes over examples."""
        if beta:
            out += slope.sum(-1)
        else:
            torch.sum(slope, -1, out=out)

    def layer(generator: torch.Generator, outputs: int, fan_in: int) -> list[Tensor]:
        """Returns weight and bias of one layer, both uniform in [-bound, bound] with bound = fan_in^(-1/2)."""
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
