"""Tasks of least squares, where theory is exact: the book's regression (d2l), and Gaussian features of any covariance (linear).

torch is imported where data are made: composing a config needs the declarations alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lrscale.rules import BOOLEAN, NOT_NEGATIVE, POSITIVE, integer, one_of
from lrscale.spec import Option, Training
from lrscale.tasks.registry import TASKS, TaskKind
from lrscale.tasks.task import Arrays, Optimum, Population, Task

if TYPE_CHECKING:
    from torch import Tensor

VALID_EXAMPLES = 1000
D2L_EXAMPLES, D2L_WEIGHTS, D2L_BIAS, D2L_NOISE = 1000, (2.0, -3.4), 4.2, 0.01


def _d2l(options: Mapping[str, Any]) -> Population:
    import torch

    weights = torch.tensor([*D2L_WEIGHTS, D2L_BIAS], dtype=torch.float64)
    return Population(torch.ones(2, dtype=torch.float64), weights, D2L_NOISE, True)


def _linear(options: Mapping[str, Any]) -> Population:
    import torch

    from lrscale.streams import generator

    count, bias = options["features"], options["bias"]
    power = options["exponent"] if options["spectrum"] == "power_law" else 0.0
    spectrum = torch.arange(1, count + 1, dtype=torch.float64) ** -power
    weights = torch.randn(count + bias, generator=generator("data", "linear", "weights"), dtype=torch.float64)
    return Population(spectrum, weights, options["noise"], bias)


def draw_examples(source: Population, examples: int, *name: str | int) -> tuple[Tensor, Tensor]:
    """Draws features ~ N(0, diag(spectrum)), a last feature of ones for a bias, and noisy targets, from a named stream.

    Args:
      source: the population.
      examples: how many are drawn.
      *name: of the stream of random numbers.

    Returns:
      Features, [example, feature], and targets, [example], float64.
    """
    import torch

    from lrscale.streams import generator

    stream = generator("data", *name)
    x = torch.randn(examples, len(source.spectrum), generator=stream, dtype=torch.float64) * source.spectrum.sqrt()
    if source.bias:
        x = torch.cat([x, torch.ones(examples, 1, dtype=torch.float64)], 1)
    noise = torch.randn(examples, generator=stream, dtype=torch.float64)
    return x, x @ source.weights + source.noise * noise


def _make(training: Training) -> Task:
    import torch

    from lrscale.tasks.models import linear_regression

    name, population = training.task.name, TASKS[training.task.name].population
    assert population is not None
    source = population(training.task.options)
    drawn = Arrays(
        *draw_examples(source, training.examples, name, "train"), *draw_examples(source, VALID_EXAMPLES, name, "valid")
    )
    data = Arrays(*(tensor.to(getattr(torch, training.dtype)) for tensor in drawn))
    return Task(data, None, linear_regression(len(source.spectrum), source.bias), _optimum(data), source)


def _optimum(data: Arrays) -> Optimum:
    import torch

    x, y = data.x.double(), data.y.double()
    weights = torch.linalg.lstsq(x, y.unsqueeze(1), driver="gelsd").solution.squeeze(1)
    return Optimum(weights, x.T @ x / len(x), float((x @ weights - y).square().mean() / 2))


_PRESETS = {"objective": "excess_risk", "dtype": "float64"}

TASKS.declare(
    "d2l",
    TaskKind(
        about="Dive into Deep Learning's regression: true_w = [2, -3.4], true_b = 4.2, noise 0.01, 1000 examples.",
        presets=_PRESETS,
        make=_make,
        examples=lambda options: D2L_EXAMPLES,
        population=_d2l,
    ),
)
TASKS.declare(
    "linear",
    TaskKind(
        about="Least squares with Gaussian features of a covariance of your choice.",
        options={
            "features": Option(32, integer(1, 10_000), "d"),
            "examples": Option(1024, integer(2, 1_000_000), "N"),
            "spectrum": Option(
                "isotropic", one_of("isotropic", "power_law"), "isotropic: eigenvalues 1; power_law: eigenvalues i^-exponent"
            ),
            "exponent": Option(1.0, POSITIVE, "of power_law"),
            "noise": Option(0.01, NOT_NEGATIVE, "standard deviation of the targets' noise"),
            "bias": Option(False, BOOLEAN, "train a bias as well"),
        },
        presets=_PRESETS,
        make=_make,
        examples=lambda options: int(options["examples"]),
        population=_linear,
    ),
)
