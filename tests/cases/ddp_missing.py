"""Each rank trains a model of its own: nothing exchanges the gradients.

Right: wrap the model in DistributedDataParallel, and call the wrapped model.
"""

import torch
from torch.nn.parallel import DistributedDataParallel

from tests.cases import Expected, Made, class_loss, loop, net, points

WRONG = Expected("ranks apart")
RIGHT = Expected()


def make_wrong(seed: int = 0) -> Made:
    batch, model = points(seed, torch.float64), net(seed, torch.float64)
    step = loop(model, lambda micro, window: class_loss(model, micro))
    return step, batch, model, {}


def make_right(seed: int = 0) -> Made:
    batch, model = points(seed, torch.float64), DistributedDataParallel(net(seed, torch.float64))
    step = loop(model, lambda micro, window: class_loss(model, micro))
    return step, batch, model, {}
