"""A focal loss over anchors is divided by the positive anchors of each micro-batch, and the results are averaged.

Right: divide the sum by the positive anchors of the whole update.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.cases import Batch, Case, generator, loop, net


def anchors(seed: int, dtype: torch.dtype) -> Batch:
    """Features x [image, anchor, feature], and which anchors are positive, y [image, anchor]: one to six in an image."""
    draw = generator(seed)
    positive = torch.arange(12) < 1 + torch.randperm(6, generator=draw)[:, None]
    return {"x": torch.randn(6, 12, 5, generator=draw, dtype=torch.float64).to(dtype), "y": positive.long()}


def focal(model: nn.Module, micro: Batch) -> Tensor:
    """The sum over anchors of (1 - p)^2 times the cross entropy, with p the probability of what is true."""
    cross = F.cross_entropy(model(micro["x"]).flatten(0, 1), micro["y"].flatten(), reduction="none")
    return ((1 - torch.exp(-cross)) ** 2 * cross).sum()


def wrong(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = anchors(seed, dtype), net(seed, dtype, outputs=2)
    step = loop(model, lambda micro, window: focal(model, micro) / micro["y"].sum().clamp(min=1) / len(window))
    numbers = {"accumulation factor": 1, "weights as micro-batches": (0.5, 0.5), "weights in one batch": (6 / 21, 15 / 21)}
    return Case(step, batch, model, {"accumulation": 4}, "mean of means", numbers)


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = anchors(seed, dtype), net(seed, dtype, outputs=2)

    def loss(micro: Batch, window: Sequence[Batch]) -> Tensor:
        return focal(model, micro) / max(1, sum(int(other["y"].sum()) for other in window))

    return Case(loop(model, loss), batch, model, {"accumulation": 4}, numbers={"growth": 0, "accumulation factor": 1})
