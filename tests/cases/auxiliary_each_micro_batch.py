"""The main loss is divided by the tokens of the update, and an auxiliary loss is added once a micro-batch.

Met in: NVIDIA-NeMo/Automodel#3359.
Right: divide the auxiliary loss by the number of micro-batches.
"""

from collections.abc import Sequence

import torch

from tests.cases import Batch, Case, loop, net, penalty, sentences, token_loss, tokens


def wrong(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = sentences(seed, dtype), net(seed, dtype, outputs=4)

    def loss(micro: Batch, window: Sequence[Batch]) -> torch.Tensor:
        return token_loss(model, micro, "sum") / sum(map(tokens, window)) + 0.1 * penalty(model[0])

    step = loop(model, loss)
    return Case(step, batch, model, {"accumulation": 4}, "term once a micro-batch", {"growth": 0})


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = sentences(seed, dtype), net(seed, dtype, outputs=4)

    def loss(micro: Batch, window: Sequence[Batch]) -> torch.Tensor:
        return token_loss(model, micro, "sum") / sum(map(tokens, window)) + 0.1 * penalty(model[0]) / len(window)

    step = loop(model, loss)
    return Case(step, batch, model, {"accumulation": 4}, numbers={"growth": 0, "accumulation factor": 1})
