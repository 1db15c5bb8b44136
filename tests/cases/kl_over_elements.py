"""The mean of a KL divergence is taken over all elements, classes too.

Met in: facebookresearch/deit#61, pytorch/pytorch#2259.
Right: divide by the number of examples, as reduction="batchmean" does.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.cases import Batch, Case, loop, net, points


def divergence(model: nn.Module, micro: Batch) -> Tensor:
    """The terms [example, class] of the KL divergence from smoothed labels; F.kl_div's own mean warns since torch 1.0."""
    return F.kl_div(model(micro["x"]).log_softmax(-1), F.one_hot(micro["y"], 3) * 0.7 + 0.1, reduction="none")


def wrong(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype)
    step = loop(model, lambda micro, window: divergence(model, micro).mean())
    options = {"reference": lambda batch: divergence(model, batch).sum(-1).mean()}
    return Case(step, batch, model, options, "c", {"growth": 0, "c": 1 / 3})


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype)
    step = loop(model, lambda micro, window: divergence(model, micro).sum(-1).mean())
    options = {"reference": lambda batch: divergence(model, batch).sum(-1).mean()}
    return Case(step, batch, model, options, numbers={"growth": 0, "c": 1})
