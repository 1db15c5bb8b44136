"""Means over class weights are averaged over the micro-batches.

Met in: pytorch/pytorch#72047.
Right: divide the weighted sum by the class weights of the whole update.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from tests.cases import Batch, Case, loop, net, points


def wrong(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype)
    weights = torch.tensor([0.2, 1.0, 5.0], dtype=dtype)

    def loss(micro: Batch, window: Sequence[Batch]) -> torch.Tensor:
        return F.cross_entropy(model(micro["x"]), micro["y"], weights.to(micro["x"])) / len(window)

    step = loop(model, loss)
    numbers = {"accumulation factor": 1, "weights as micro-batches": (0.5, 0.5), "weights in one batch": (1.4 / 12.4, 11 / 12.4)}
    return Case(step, batch, model, {"accumulation": 4}, "mean of means", numbers)


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype)
    weights = torch.tensor([0.2, 1.0, 5.0], dtype=dtype)

    def loss(micro: Batch, window: Sequence[Batch]) -> torch.Tensor:
        summed = F.cross_entropy(model(micro["x"]), micro["y"], weights.to(micro["x"]), reduction="sum")
        return summed / sum(weights[other["y"]].sum() for other in window)

    step = loop(model, loss)
    return Case(step, batch, model, {"accumulation": 4}, numbers={"growth": 0, "accumulation factor": 1})
