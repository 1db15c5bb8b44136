"""Tokens are summed, and sentences are averaged: a choice, and no mistake.

Right: sum the tokens of a sentence, and divide by the sentences of the whole update.
"""

import torch

from tests.cases import Case, loop, net, sentences, token_loss


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = sentences(seed, dtype), net(seed, dtype, outputs=4)
    step = loop(model, lambda micro, window: token_loss(model, micro, "sum") / sum(len(other["y"]) for other in window))
    return Case(step, batch, model, {"accumulation": 4}, numbers={"growth": 0, "accumulation factor": 1})
