"""A moving average of the weights is updated within the step.

Right: divide the loss by the number of micro-batches; the average changes no gradient.
"""

from collections.abc import Sequence

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tests.cases import Batch, Case, class_loss, loop, net, points


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.99))
    train = loop(model, lambda micro, window: class_loss(model, micro) / len(window))

    def step(window: Sequence[Batch]) -> None:
        train(window)
        average.update_parameters(model)

    options = {"accumulation": 4, "restore": (average,)}
    return Case(step, batch, model, options, numbers={"growth": 0, "accumulation factor": 1})
