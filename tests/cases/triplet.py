"""A triplet loss is averaged over the triplets of each micro-batch that still violate the margin, and accumulated.

Right: take the mean over all triplets, or divide by the active triplets of the whole update.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.cases import EXAMPLES, FEATURES, Batch, Case, generator, loop, net

MARGIN = 0.5


def triplets(seed: int, dtype: torch.dtype) -> Batch:
    """Anchors, positives and negatives, each [example, feature]. The first half of the triplets keeps the margin."""
    draw = generator(seed)
    anchor, positive, negative = torch.randn(3, EXAMPLES, FEATURES, generator=draw, dtype=torch.float64)
    kept = (torch.arange(EXAMPLES) < EXAMPLES // 2)[:, None]
    positive, negative = torch.where(kept, anchor, positive), torch.where(kept, -3 * anchor, anchor + 0.1 * negative)
    return {"anchor": anchor.to(dtype), "positive": positive.to(dtype), "negative": negative.to(dtype)}


def violations(model: torch.nn.Module, micro: Batch) -> Tensor:
    """By how much each triplet violates the margin, [example]; many are 0."""
    anchor, positive, negative = (F.normalize(model(micro[name]), dim=1) for name in ("anchor", "positive", "negative"))
    return F.relu((anchor - positive).square().sum(1) - (anchor - negative).square().sum(1) + MARGIN)


def wrong(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = triplets(seed, dtype), net(seed, dtype)

    def loss(micro: Batch, window: Sequence[Batch]) -> Tensor:
        violated = violations(model, micro)
        return violated.sum() / (violated > 0).sum().clamp(min=1) / len(window)

    return Case(loop(model, loss), batch, model, {"accumulation": 2}, kind="mean of means")


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = triplets(seed, dtype), net(seed, dtype)
    step = loop(model, lambda micro, window: violations(model, micro).mean() / len(window))
    return Case(step, batch, model, {"accumulation": 4}, numbers={"growth": 0, "accumulation factor": 1})
