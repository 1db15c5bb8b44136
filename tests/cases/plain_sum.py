"""The loss is the sum over the batch.

Met in: ai-safety-foundation/sparse_autoencoder#63.
Right: take the mean over the batch.
"""

import torch

from tests.cases import Case, class_loss, loop, net, points


def wrong(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype)
    step = loop(model, lambda micro, window: class_loss(model, micro, "sum"))
    return Case(step, batch, model, kind="sum", numbers={"growth": 1, "p": 1})


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype)
    step = loop(model, lambda micro, window: class_loss(model, micro))
    return Case(step, batch, model, numbers={"growth": 0, "p": 1})
