"""A sum divided by the tokens of the update is multiplied by the number of micro-batches.

Met in: huggingface/transformers#35207, huggingface/transformers#35438, huggingface/transformers#37766.
Right: divide once by the tokens of the whole update, and undo no division that nobody makes.
"""

import torch

from tests.cases import Case, loop, net, sentences, token_loss, tokens


def wrong(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = sentences(seed, dtype), net(seed, dtype, outputs=4)
    step = loop(model, lambda micro, window: token_loss(model, micro, "sum") / sum(map(tokens, window)) * len(window))
    return Case(step, batch, model, {"accumulation": 4}, "grows with the window", {"growth": 0, "accumulation factor": 4})


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = sentences(seed, dtype), net(seed, dtype, outputs=4)
    step = loop(model, lambda micro, window: token_loss(model, micro, "sum") / sum(map(tokens, window)))
    return Case(step, batch, model, {"accumulation": 4}, numbers={"growth": 0, "accumulation factor": 1})
