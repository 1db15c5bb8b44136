"""Gradients are clipped after each backward, not once before the update.

Right: clip once, after the last backward of the update.
"""

from collections.abc import Sequence

import torch
from torch import nn

from tests.cases import Batch, Case, class_loss, loop, net, points, sgd


def wrong(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype)
    optimizer = sgd(model)

    def step(window: Sequence[Batch]) -> None:
        optimizer.zero_grad()
        for micro in window:
            (class_loss(model, micro) / len(window)).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()

    return Case(step, batch, model, {"accumulation": 4}, "changed between backwards", {"growth": 0})


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype)
    step = loop(model, lambda micro, window: class_loss(model, micro) / len(window), clip=0.1)
    return Case(step, batch, model, {"accumulation": 4}, numbers={"accumulation factor": 1, "clip threshold": 0.1})
