"""A sum divided by the tokens of the update is divided by the number of micro-batches too.

Met in: huggingface/accelerate#3533, deepspeedai/Megatron-DeepSpeed#42, modelscope/ms-swift#10117.
Right: divide once, by the tokens of the whole update.
"""

import torch

from tests.cases import Case, loop, net, sentences, token_loss, tokens


def wrong(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = sentences(seed, dtype), net(seed, dtype, outputs=4)
    step = loop(model, lambda micro, window: token_loss(model, micro, "sum") / sum(map(tokens, window)) / len(window))
    return Case(step, batch, model, {"accumulation": 4}, "falls with the window", {"growth": 0, "accumulation factor": 0.25})


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = sentences(seed, dtype), net(seed, dtype, outputs=4)
    step = loop(model, lambda micro, window: token_loss(model, micro, "sum") / sum(map(tokens, window)))
    return Case(step, batch, model, {"accumulation": 4}, numbers={"growth": 0, "accumulation factor": 1})
