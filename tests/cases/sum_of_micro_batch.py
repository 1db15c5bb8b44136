"""The loss of each micro-batch is a sum, and is divided by the number of micro-batches: one mistake, and not two.

Right: take the mean over the micro-batch, and keep the division.
"""

import torch

from tests.cases import Case, class_loss, loop, net, points


def wrong(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype)
    step = loop(model, lambda micro, window: class_loss(model, micro, "sum") / len(window))
    return Case(step, batch, model, {"accumulation": 4}, kind="sum", numbers={"growth": 1, "accumulation factor": 1 / 4})


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype)
    step = loop(model, lambda micro, window: class_loss(model, micro) / len(window))
    return Case(step, batch, model, {"accumulation": 4}, numbers={"growth": 0, "accumulation factor": 1})
