"""A penalty on the variance over the batch compares examples with each other, and is accumulated.

Right: compare each output with a number that does not come from the batch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from tests.cases import Batch, Case, class_loss, loop, net, points


def wrong(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype)

    def loss(micro: Batch, window: Sequence[Batch]) -> Tensor:
        return (class_loss(model, micro) + model(micro["x"]).var(0, correction=0).mean()) / len(window)

    return Case(loop(model, loss), batch, model, {"accumulation": 4}, "coupled loss")


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype)

    def loss(micro: Batch, window: Sequence[Batch]) -> Tensor:
        return (class_loss(model, micro) + model(micro["x"]).square().mean()) / len(window)

    return Case(loop(model, loss), batch, model, {"accumulation": 4}, numbers={"growth": 0, "accumulation factor": 1})
