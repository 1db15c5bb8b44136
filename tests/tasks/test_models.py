"""An example's loss against torch.nn's. The gradients are checked in test_modules."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from lrscale.tasks.models import Model, classifier

SEEDS, TRIALS, EXAMPLES = 2, 3, 7
MODELS = {
    "softmax": (classifier(5, 4, None), 5),
    "mlp": (classifier(5, 4, 6), 5),
}


def draw(model: Model, inputs: int) -> tuple[list[Tensor], Tensor, Tensor]:
    stream = torch.Generator().manual_seed(0)
    shapes = [tuple(weights.shape) for weights in model.initial(stream)]
    parameters = [torch.randn(SEEDS, TRIALS, *shape, generator=stream, dtype=torch.float64) for shape in shapes]
    x = torch.randn(SEEDS, EXAMPLES, inputs, generator=stream, dtype=torch.float64)
    return parameters, x, torch.randint(0, 4, (SEEDS, EXAMPLES), generator=stream)


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
