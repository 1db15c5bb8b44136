"""A schedule of the lr moves on within the step.

Right: divide the loss by the number of micro-batches; the schedule changes no gradient.
"""

from collections.abc import Sequence

import torch

from tests.cases import Batch, Case, class_loss, loop, net, points, sgd


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype)
    optimizer = sgd(model)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda update: (1 + update) / 100)
    train = loop(model, lambda micro, window: class_loss(model, micro) / len(window), optimizer)

    def step(window: Sequence[Batch]) -> None:
        train(window)
        schedule.step()

    return Case(step, batch, model, {"accumulation": 4}, numbers={"growth": 0, "accumulation factor": 1, "p": 1})
