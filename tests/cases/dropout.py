"""Dropout draws anew for each micro-batch: noise, and no mistake.

Right: divide the loss by the number of micro-batches, as without dropout.
"""

import torch
from torch import nn
from torch.nn import functional as F

from tests.cases import Case, class_loss, loop, net, points, seeded


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch = points(seed, dtype)
    model = seeded(seed, dtype, lambda: nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.3), nn.Tanh(), nn.Linear(8, 3)))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    step = loop(model, lambda micro, window: class_loss(model, micro) / len(window), optimizer)
    return Case(step, batch, model, {"accumulation": 4}, numbers={"growth": 0, "accumulation factor": 1, "p": 0})


def right_as_function(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    """Dropout that no module holds, so an audit cannot switch it off."""
    batch, model = points(seed, dtype), net(seed, dtype)
    step = loop(model, lambda micro, window: F.cross_entropy(model(F.dropout(micro["x"], 0.3)), micro["y"]))
    return Case(step, batch, model)
