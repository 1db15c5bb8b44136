"""The last window of an epoch is shorter, and is still divided by the full number of micro-batches.

Met in: keras-team/keras#20241, Lightning-AI/pytorch-lightning#19987, modelscope/ms-swift#10084.
Right: divide by the number of micro-batches in this window.
"""

import torch

from tests.cases import Case, class_loss, loop, net, points


def wrong(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype)
    step = loop(model, lambda micro, window: class_loss(model, micro) / 4)
    options = {"accumulation": 4, "reference": lambda batch: class_loss(model, batch)}
    return Case(step, batch, model, options, "short window", {"growth": 0, "accumulation factor": 4})


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype)
    step = loop(model, lambda micro, window: class_loss(model, micro) / len(window))
    options = {"accumulation": 4, "reference": lambda batch: class_loss(model, batch)}
    return Case(step, batch, model, options, numbers={"accumulation factor": 1, "c": 1})
