"""A penalty is added to a summed loss, so its weight falls as the batch grows.

Met in: many.
Right: add a penalty to a mean, or multiply it by the number of examples.
"""

import torch

from tests.cases import Case, class_loss, loop, net, penalty, points


def wrong(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype)
    step = loop(model, lambda micro, window: class_loss(model, micro, "sum") + 0.1 * penalty(model))
    return Case(step, batch, model, kind="two terms", numbers={})


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype)
    step = loop(model, lambda micro, window: class_loss(model, micro, "mean") + 0.1 * penalty(model))
    return Case(step, batch, model, numbers={"growth": 0})
