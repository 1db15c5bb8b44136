"""Tasks: training and validation data that no seed changes, a model, and the optimum where it is known."""

from typing import NamedTuple

import torch
from torch import Tensor

from lrscale.spec import Training
from lrscale.streams import generator
from lrscale.tasks.models import Model, Parameters, classifier, linear_regression

VALID_EXAMPLES = 1000
D2L_WEIGHTS, D2L_BIAS, D2L_NOISE = (2.0, -3.4), 4.2, 0.01


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
    """What least-squares data are drawn from: the theory's constants.

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


def population(training: Training) -> Population | None:
    """Returns what the data of a least-squares task are drawn from, or None for other tasks."""
    options = training.task.options
    if training.task.name == "d2l":
        return Population(
            torch.ones(2, dtype=torch.float64), torch.tensor([*D2L_WEIGHTS, D2L_BIAS], dtype=torch.float64), D2L_NOISE, True
        )
    if training.task.name == "linear":
        count, bias = options["features"], options["bias"]
        power = options["exponent"] if options["spectrum"] == "power_law" else 0.0
        spectrum = torch.arange(1, count + 1, dtype=torch.float64) ** -power
        weights = torch.randn(count + bias, generator=generator("data", "linear", "weights"), dtype=torch.float64)
        return Population(spectrum, weights, options["noise"], bias)
    return None


def draw(source: Population, examples: int, *name: str | int) -> tuple[Tensor, Tensor]:
    """Draws features ~ N(0, diag(spectrum)), a last feature of ones for a bias, and noisy targets, from a named stream."""
    stream = generator("data", *name)
    x = torch.randn(examples, len(source.spectrum), generator=stream, dtype=torch.float64) * source.spectrum.sqrt()
    if source.bias:
        x = torch.cat([x, torch.ones(examples, 1, dtype=torch.float64)], 1)
    noise = torch.randn(examples, generator=stream, dtype=torch.float64)
    return x, x @ source.weights + source.noise * noise


def make_task(training: Training, files: Arrays | None = None) -> Task:
    """Makes a training's task.

    Args:
      training: the description.
      files: data read from files, for the tasks that have them (digits, fashion_mnist).

    Returns:
      The task, its data in the training's dtype (targets of classes stay integers).
    """
    dtype = torch.float64 if training.dtype == "float64" else torch.float32
    source = population(training)
    if source is None:
        assert files is not None
        data = Arrays(files.x.to(dtype), files.y, files.x_valid.to(dtype), files.y_valid)
        hidden = training.task.options["hidden"] if training.task.options["model"] == "mlp" else None
        return Task(data, None, classifier(data.x.shape[1], 10, hidden), None, None)
    name = training.task.name
    drawn = Arrays(*draw(source, training.examples, name, "train"), *draw(source, VALID_EXAMPLES, name, "valid"))
    data = Arrays(*(tensor.to(dtype) for tensor in drawn))
    return Task(data, None, linear_regression(len(source.spectrum), source.bias), _optimum(data), source)


def _optimum(data: Arrays) -> Optimum:
    x, y = data.x.double(), data.y.double()
    weights = torch.linalg.lstsq(x, y.unsqueeze(1), driver="gelsd").solution.squeeze(1)
    return Optimum(weights, x.T @ x / len(x), float((x @ weights - y).square().mean() / 2))
