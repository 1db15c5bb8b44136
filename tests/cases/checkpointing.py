"""Layers are computed a second time in the backward pass (gradient checkpointing).

Right: divide the loss by the number of micro-batches; checkpointing changes nothing.
"""

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tests.cases import Batch, Case, loop, net, points


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype)

    def loss(micro: Batch, window: list[Batch]) -> torch.Tensor:
        return F.cross_entropy(checkpoint(model, micro["x"], use_reentrant=False), micro["y"]) / len(window)

    return Case(loop(model, loss), batch, model, {"accumulation": 4}, numbers={"growth": 0, "accumulation factor": 1})
