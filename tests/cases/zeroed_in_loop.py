"""Gradients are set to zero before each backward, so only the last micro-batch counts.

Right: set them to zero once an update.
"""

from collections.abc import Sequence

import torch

from tests.cases import Batch, Case, class_loss, loop, net, points, sgd


def wrong(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype)
    optimizer = sgd(model)

    def step(window: Sequence[Batch]) -> None:
        for micro in window:
            optimizer.zero_grad()
            (class_loss(model, micro) / len(window)).backward()
        optimizer.step()

    return Case(step, batch, model, {"accumulation": 4}, "changed between backwards", {"growth": 0})


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype)
    step = loop(model, lambda micro, window: class_loss(model, micro) / len(window))
    return Case(step, batch, model, {"accumulation": 4}, numbers={"growth": 0, "accumulation factor": 1})
