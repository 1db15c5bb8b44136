"""A sum is divided by the tokens of all ranks, and DDP divides by the number of ranks too.

Met in: meta-pytorch/torchtune#2172.
Right: multiply the loss by the number of ranks, which DDP divides by.
"""

import torch
from torch.distributed import get_world_size
from torch.nn.parallel import DistributedDataParallel

from tests.cases import Expected, Made, loop, net, sentences, token_loss, tokens_of_all_ranks

WRONG = Expected("ranks averaged twice", {"ranks / one process": 0.5})
RIGHT = Expected(numbers={"ranks / one process": 1})


def make_wrong(seed: int = 0) -> Made:
    batch, model = sentences(seed, torch.float64), DistributedDataParallel(net(seed, torch.float64, outputs=4))
    step = loop(model, lambda micro, window: token_loss(model, micro, "sum") / tokens_of_all_ranks(window))
    return step, batch, model, {}


def make_right(seed: int = 0) -> Made:
    batch, model = sentences(seed, torch.float64), DistributedDataParallel(net(seed, torch.float64, outputs=4))
    step = loop(model, lambda micro, window: token_loss(model, micro, "sum") / tokens_of_all_ranks(window) * get_world_size())
    return step, batch, model, {}
