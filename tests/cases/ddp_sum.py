"""A loss is summed on each rank, and DDP averages the gradients over the ranks.

Met in: pytorch/pytorch#37359, facebookresearch/fairseq#494.
Right: multiply the sum by the number of ranks, and divide it by the tokens of all ranks.
"""

import torch
from torch.distributed import get_world_size
from torch.nn.parallel import DistributedDataParallel

from tests.cases import Expected, Made, loop, net, sentences, token_loss, tokens_of_all_ranks

WRONG = Expected("ranks averaged", {"ranks / one process": 0.5})
RIGHT = Expected(numbers={"ranks / one process": 1})


def make_wrong(seed: int = 0) -> Made:
    batch, model = sentences(seed, torch.float64), DistributedDataParallel(net(seed, torch.float64, outputs=4))
    step = loop(model, lambda micro, window: token_loss(model, micro, "sum"))
    return step, batch, model, {}


def make_right(seed: int = 0) -> Made:
    batch, model = sentences(seed, torch.float64), DistributedDataParallel(net(seed, torch.float64, outputs=4))
    step = loop(model, lambda micro, window: token_loss(model, micro, "sum") / tokens_of_all_ranks(window) * get_world_size())
    return step, batch, model, {}
