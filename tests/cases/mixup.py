"""Each example is mixed with a partner that it was given in the data set.

Right: draw the partner before the batch is made; a partner from the batch makes the batch part of the loss.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.cases import Batch, Case, loop, net, points


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    partners = points(seed + 1000, dtype)
    batch, model = {**points(seed, dtype), "other x": partners["x"], "other y": partners["y"]}, net(seed, dtype)

    def loss(micro: Batch, window: Sequence[Batch]) -> Tensor:
        share = torch.distributions.Beta(0.4, 0.4).sample()
        scores = model(share * micro["x"] + (1 - share) * micro["other x"])
        mixed = share * F.cross_entropy(scores, micro["y"]) + (1 - share) * F.cross_entropy(scores, micro["other y"])
        return mixed / len(window)

    return Case(loop(model, loss), batch, model, {"accumulation": 2})
