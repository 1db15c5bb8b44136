"""Gradients in closed form against autograd, and an example's loss against torch.nn's."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from lrscale.models import Model, by_autograd, classifier, linear_regression

SEEDS, TRIALS, EXAMPLES = 2, 3, 7
MODELS = {
    "linear": (linear_regression(3, bias=True), 4),
    "softmax": (classifier(5, 4, None), 5),
    "mlp": (classifier(5, 4, 6), 5),
}


def draw(model: Model, inputs: int) -> tuple[list[Tensor], Tensor, Tensor]:
    stream = torch.Generator().manual_seed(0)
    shapes = [tuple(weights.shape) for weights in model.initial(stream)]
    parameters = [torch.randn(SEEDS, TRIALS, *shape, generator=stream, dtype=torch.float64) for shape in shapes]
    x = torch.randn(SEEDS, EXAMPLES, inputs, generator=stream, dtype=torch.float64)
    if model.errors is None:
        return parameters, x, torch.randn(SEEDS, EXAMPLES, generator=stream, dtype=torch.float64)
    return parameters, x, torch.randint(0, 4, (SEEDS, EXAMPLES), generator=stream)


@pytest.mark.parametrize("weights", [0.5, torch.rand(1, EXAMPLES, dtype=torch.float64), torch.rand(SEEDS, EXAMPLES).double()])
@pytest.mark.parametrize("name", MODELS)
def test_closed_forms_are_what_autograd_finds(name: str, weights: float | Tensor) -> None:
    model, inputs = MODELS[name]
    parameters, x, y = draw(model, inputs)
    ours, theirs = (found(parameters, x, y, weights) for found in (model.gradients, by_autograd(model.losses)))
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a, b)


@pytest.mark.parametrize("name", ["softmax", "mlp"])
def test_losses_and_errors_are_cross_entropy_and_misses(name: str) -> None:
    model, inputs = MODELS[name]
    assert model.errors is not None
    parameters, x, y = draw(model, inputs)
    seed, trial = 1, 2
    out = x[seed] @ parameters[0][seed, trial].T + parameters[1][seed, trial]
    if name == "mlp":
        out = out.relu() @ parameters[2][seed, trial].T + parameters[3][seed, trial]
    expected = nn.functional.cross_entropy(out, y[seed], reduction="none")
    assert_close(model.losses(parameters, x, y)[seed, trial], expected)
    assert model.errors(parameters, x, y)[seed, trial].tolist() == (out.argmax(1) != y[seed]).double().tolist()
