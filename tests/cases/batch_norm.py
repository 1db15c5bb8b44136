"""Batch norm in micro-batches sees other means and variances than in the whole batch.

Met in: giotto-ai/giotto-deep#75, ultralytics/yolov5#1630.
Right: use a norm within an example, or one micro-batch an update.
"""

import torch
from torch import nn

from tests.cases import Case, class_loss, loop, points, seeded


def wrong(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch = points(seed, dtype)
    model = seeded(seed, dtype, lambda: nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)))
    step = loop(model, lambda micro, window: class_loss(model, micro) / len(window))
    return Case(step, batch, model, {"accumulation": 2}, "batch norm", {"growth": 0, "accumulation factor": 1})


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch = points(seed, dtype)
    model = seeded(seed, dtype, lambda: nn.Sequential(nn.Linear(5, 8), nn.GroupNorm(2, 8), nn.ReLU(), nn.Linear(8, 3)))
    step = loop(model, lambda micro, window: class_loss(model, micro) / len(window))
    return Case(step, batch, model, {"accumulation": 2}, numbers={"growth": 0, "accumulation factor": 1})


def right_in_one(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    """Batch norm without accumulation: said, and not blamed."""
    step, batch, model, *_ = wrong(seed, dtype)
    return Case(step, batch, model, numbers={"growth": 0})
