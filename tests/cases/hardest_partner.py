"""Each anchor takes its hardest positive and negative from the batch, so the loss grows harder with the batch.

Right: take the partners of each anchor from the data set, before the batch is made.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.cases import EXAMPLES, FEATURES, Case, generator, loop, net, points


def distances(model: torch.nn.Module, anchors: Tensor, others: Tensor) -> Tensor:
    """Squared distances of unit vectors, [..., anchor, other]."""
    anchors, others = (F.normalize(model(x), dim=-1) for x in (anchors, others))
    return 2 - 2 * anchors @ others.mT


def wrong(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype)

    def loss(micro: Mapping[str, Tensor], window: object) -> Tensor:
        apart = distances(model, micro["x"], micro["x"])
        other = micro["y"][:, None] != micro["y"]
        positive = apart.masked_fill(other, -10.0).amax(1)
        return F.softplus(positive - apart.masked_fill(~other, 10.0).amin(1)).mean()

    return Case(loop(model, loss), batch, model, kind="coupled loss")


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    """Each anchor has one positive and three negatives of its own, `others` [example, other, feature]."""
    batch, model = points(seed, dtype), net(seed, dtype)
    others = torch.randn(EXAMPLES, 4, FEATURES, generator=generator(seed + 1), dtype=torch.float64)
    batch["others"] = others.to(dtype)

    def loss(micro: Mapping[str, Tensor], window: object) -> Tensor:
        apart = distances(model, micro["x"][:, None], micro["others"])[:, 0]
        return F.softplus(apart[:, 0] - apart[:, 1:].amin(1)).mean()

    return Case(loop(model, loss), batch, model)
