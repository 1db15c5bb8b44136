"""A contrastive loss is accumulated: each micro-batch sees only its own negatives.

Met in: mdiephuis/SimCLR#13, huggingface/sentence-transformers#1822.
Right: give each example negatives of its own; a loss over the batch's negatives has no c, and needs the whole batch in one loss.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from tests.cases import Batch, Case, loop, net, points


def wrong(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype, outputs=4)

    def loss(micro: Batch, window: Sequence[Batch]) -> torch.Tensor:
        one, other = (F.normalize(model(x), dim=-1) for x in (micro["x"], micro["x"].flip(-1)))
        return F.cross_entropy(one @ other.T / 0.2, torch.arange(len(one))) / len(window)

    step = loop(model, loss)
    return Case(step, batch, model, {"accumulation": 4}, "coupled loss", {})


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype, outputs=4)

    def loss(micro: Batch, window: Sequence[Batch]) -> torch.Tensor:
        one, other, negative = (F.normalize(model(x), dim=-1) for x in (micro["x"], micro["x"].flip(-1), -micro["x"]))
        margins = (one * other).sum(-1) - (one * negative).sum(-1)
        return F.softplus(-margins / 0.2).mean() / len(window)

    step = loop(model, loss)
    return Case(step, batch, model, {"accumulation": 4}, numbers={"growth": 0, "accumulation factor": 1})
