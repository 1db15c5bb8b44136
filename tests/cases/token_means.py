"""Token means are averaged over the micro-batches.

Met in: huggingface/transformers#34191, unslothai/unsloth#1134, meta-pytorch/torchtune#1875.
Right: divide the sum over tokens by the number of tokens in the whole update.
"""

import torch

from tests.cases import Case, loop, net, sentences, token_loss, tokens


def wrong(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = sentences(seed, dtype), net(seed, dtype, outputs=4)
    step = loop(model, lambda micro, window: token_loss(model, micro, "mean") / len(window))
    numbers = {"accumulation factor": 1, "weights as micro-batches": (0.5, 0.5), "weights in one batch": (6 / 21, 15 / 21)}
    return Case(step, batch, model, {"accumulation": 4}, "mean of means", numbers)


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = sentences(seed, dtype), net(seed, dtype, outputs=4)
    step = loop(model, lambda micro, window: token_loss(model, micro, "sum") / sum(map(tokens, window)))
    return Case(step, batch, model, {"accumulation": 4}, numbers={"growth": 0, "accumulation factor": 1})
