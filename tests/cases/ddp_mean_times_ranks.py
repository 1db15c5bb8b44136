"""A mean loss is multiplied by the number of ranks, as if DDP summed the gradients.

Met in: neuralmagic/sparseml#135, ultralytics/ultralytics#18616.
Right: leave the mean as it is: DDP averages.
"""

import torch
from torch.distributed import get_world_size
from torch.nn.parallel import DistributedDataParallel

from tests.cases import Expected, Made, class_loss, loop, net, points

WRONG = Expected("ranks added up", {"ranks / one process": 2})
RIGHT = Expected(numbers={"ranks / one process": 1})


def make_wrong(seed: int = 0) -> Made:
    batch, model = points(seed, torch.float64), DistributedDataParallel(net(seed, torch.float64))
    step = loop(model, lambda micro, window: class_loss(model, micro) * get_world_size())
    return step, batch, model, {}


def make_right(seed: int = 0) -> Made:
    batch, model = points(seed, torch.float64), DistributedDataParallel(net(seed, torch.float64))
    step = loop(model, lambda micro, window: class_loss(model, micro))
    return step, batch, model, {}
