"""Tasks of least squares, where theory is exact: the regression of the book (d2l), and Gaussian features (linear).

`d2l` is the regression of "Dive into Deep Learning". The features of `linear` have any covariance. torch is imported inside
the functions that make data. Composing a config needs only the declarations, and no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lrscale.rules import BOOLEAN, NOT_NEGATIVE, POSITIVE, integer, one_of
from lrscale.spec import Option, Training
from lrscale.tasks.built_in import Arrays, BuiltInTask, Optimum, Population
from lrscale.tasks.registry import TASKS, TaskKind

if TYPE_CHECKING:
    from torch import Tensor

VALID_EXAMPLES = 1000
"""The number of validation examples."""
D2L_EXAMPLES, D2L_WEIGHTS, D2L_BIAS, D2L_NOISE = 1000, (2.0, -3.4), 4.2, 0.01
"""The number of training examples of d2l, its true weights and bias, and the standard deviation of its noise."""


def _d2l_population(options: Mapping[str, Any]) -> Population:
    """Returns the population of d2l. It has no options."""
    import torch

    weights = torch.tensor([*D2L_WEIGHTS, D2L_BIAS], dtype=torch.float64)
    return Population(torch.ones(2, dtype=torch.float64), weights, D2L_NOISE, True)


def _linear_population(options: Mapping[str, Any]) -> Population:
    """Returns the population of linear. Its true weights come from a fixed random stream."""
    import torch

    from lrscale.streams import generator

    features, bias = options["features"], options["bias"]
    exponent = options["exponent"] if options["spectrum"] == "power_law" else 0.0
    spectrum = torch.arange(1, features + 1, dtype=torch.float64) ** -exponent
    weights = torch.randn(features + bias, generator=generator("data", "linear", "weights"), dtype=torch.float64)
    return Population(spectrum, weights, options["noise"], bias)


def draw_examples(source: Population, examples: int, *name: str | int) -> tuple[Tensor, Tensor]:
    """Draws features ~ N(0, diag(spectrum)) and noisy targets from a named random stream.

    Where the population has a bias, a last feature is added that is 1 for every example.

    Args:
      source: the population that the examples are drawn from.
      examples: the number of examples.
      *name: the name of the random stream.

    Returns:
      Features, [example, feature], and targets, [example], both in float64.
    """
    import torch

    from lrscale.streams import generator

    stream = generator("data", *name)
    x = torch.randn(examples, len(source.spectrum), generator=stream, dtype=torch.float64) * source.spectrum.sqrt()
    if source.bias:
        x = torch.cat([x, torch.ones(examples, 1, dtype=torch.float64)], 1)
    noise = torch.randn(examples, generator=stream, dtype=torch.float64)
    return x, x @ source.weights + source.noise * noise


def _make(training: Training) -> BuiltInTask:
    """Makes a task of data from the population that the training's task declares: one draw for all seeds, or one for each."""
    import torch

    from lrscale.tasks.models import linear_regression

    name, make_population = training.task.name, TASKS[training.task.name].population
    assert make_population is not None
    source = make_population(training.task.options)
    model = linear_regression(len(source.spectrum), source.bias)

    def draw(*seed: int) -> Arrays:
        train, valid = (
            draw_examples(source, examples, name, part, *seed)
            for part, examples in (("train", training.examples), ("valid", VALID_EXAMPLES))
        )
        return Arrays(*(tensor.to(getattr(torch, training.dtype)) for tensor in (*train, *valid)))

    if training.data_seeds == "shared":
        data = draw()
        return BuiltInTask(data, None, model, _optimum(data), source)
    draws = [draw(seed) for seed in training.seeds]
    weights, grams, minima = zip(*map(_optimum, draws), strict=True)
    optimum = Optimum(
        torch.stack(weights).unsqueeze(1), torch.stack(grams), torch.tensor(minima, dtype=torch.float64).unsqueeze(1)
    )
    return BuiltInTask(Arrays(*map(torch.stack, zip(*draws, strict=True))), None, model, optimum, source, has_own_data=True)


def _optimum(data: Arrays) -> Optimum:
    """Returns the minimum of the training loss of one draw, by least squares in float64."""
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
        size=lambda options: ((D2L_EXAMPLES + VALID_EXAMPLES) * 4, 3, 3),
        population=_d2l_population,
    ),
)
TASKS.declare(
    "linear",
    TaskKind(
        about="Least squares with Gaussian features, whose covariance you choose.",
        options={
            "features": Option(32, integer(1, 10_000), "number of features, d"),
            "examples": Option(1024, integer(2, 1_000_000), "number of training examples, N"),
            "spectrum": Option(
                "isotropic", one_of("isotropic", "power_law"), "isotropic: eigenvalues 1; power_law: eigenvalues i^-exponent"
            ),
            "exponent": Option(1.0, POSITIVE, "exponent of power_law"),
            "noise": Option(0.01, NOT_NEGATIVE, "standard deviation of the noise in the targets"),
            "bias": Option(False, BOOLEAN, "whether a bias is trained"),
        },
        presets=_PRESETS,
        make=_make,
        examples=lambda options: int(options["examples"]),
        population=_linear_population,
        size=lambda o: ((o["examples"] + VALID_EXAMPLES) * (o["features"] + 1), o["features"] + o["bias"], 3),
    ),
)
