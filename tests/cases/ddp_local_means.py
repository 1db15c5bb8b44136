"""Each rank takes the mean over its own tokens, and DDP averages the means.

Met in: huggingface/transformers#34373, tianzhi0549/FCOS#228.
Right: divide the sum by the tokens of all ranks, and multiply it by the number of ranks.
"""

import torch
from torch.distributed import get_world_size
from torch.nn.parallel import DistributedDataParallel

from tests.cases import Expected, Made, loop, net, sentences, token_loss, tokens_of_all_ranks

WRONG = Expected("mean of ranks' means", {"ranks / one process": 1})
RIGHT = Expected(numbers={"ranks / one process": 1})


def make_wrong(seed: int = 0) -> Made:
    batch, model = sentences(seed, torch.float64), DistributedDataParallel(net(seed, torch.float64, outputs=4))
    step = loop(model, lambda micro, window: token_loss(model, micro, "mean"))
    return step, batch, model, {}


def make_right(seed: int = 0) -> Made:
    batch, model = sentences(seed, torch.float64), DistributedDataParallel(net(seed, torch.float64, outputs=4))
    step = loop(model, lambda micro, window: token_loss(model, micro, "sum") / tokens_of_all_ranks(window) * get_world_size())
    return step, batch, model, {"accumulation": 4}
