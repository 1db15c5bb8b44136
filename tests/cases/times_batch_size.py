"""The mean loss is multiplied by the batch size.

Met in: ultralytics/yolov5#484, ultralytics/yolov5#2704, ultralytics/yolov5#6757.
Right: take the mean, and tune the lr for it.
"""

import torch

from tests.cases import Case, class_loss, loop, net, points


def wrong(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4 * len(batch["y"]) / 64)
    step = loop(model, lambda micro, window: class_loss(model, micro) * len(micro["y"]), optimizer)
    return Case(step, batch, model, {"accumulation": 4}, "sum", {"growth": 1, "accumulation factor": 1, "p": 1})


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4 * len(batch["y"]) / 64)
    step = loop(model, lambda micro, window: class_loss(model, micro) / len(window), optimizer)
    return Case(step, batch, model, {"accumulation": 4}, numbers={"growth": 0, "accumulation factor": 1, "p": 1})
