"""Two layers share a weight, and one bias is frozen.

Right: divide the loss by the number of micro-batches; shared and frozen weights change nothing.
"""

import torch
from torch import nn

from tests.cases import Case, class_loss, loop, points, seeded


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), seeded(seed, dtype, lambda: nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5)))
    model[2].weight = model[0].weight
    model[0].bias.requires_grad_(False)
    step = loop(model, lambda micro, window: class_loss(model, micro) / len(window))
    return Case(step, batch, model, {"accumulation": 4}, numbers={"growth": 0, "accumulation factor": 1})
