"""The mean of a squared error is taken over the outputs too.

Met in: bearpaw/pytorch-pose#43.
Right: sum over the outputs of an example, and take the mean over the examples.
"""

import torch
from torch import Tensor, nn

from tests.cases import Batch, Case, loop, net, points


def squares(model: nn.Module, micro: Batch) -> Tensor:
    """Squared errors [example, output]; the first input is what each of seven outputs must return."""
    return (model(micro["x"]) - micro["x"][:, :1]) ** 2


def wrong(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype, outputs=7)
    step = loop(model, lambda micro, window: squares(model, micro).mean())
    options = {"reference": lambda batch: squares(model, batch).sum(-1).mean()}
    return Case(step, batch, model, options, "c", {"growth": 0, "c": 1 / 7})


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype, outputs=7)
    step = loop(model, lambda micro, window: squares(model, micro).sum(-1).mean())
    options = {"reference": lambda batch: squares(model, batch).sum(-1).mean()}
    return Case(step, batch, model, options, numbers={"growth": 0, "c": 1})
