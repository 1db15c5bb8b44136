"""Means of micro-batches are added; AdamW hides it, and clipping does not.

Met in: karpathy/nanoGPT#168.
Right: divide the loss of each micro-batch by their number.
"""

import torch

from tests.cases import Case, class_loss, loop, net, points


def wrong(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    step = loop(model, lambda micro, window: class_loss(model, micro), optimizer, clip=1.0)
    options = {"accumulation": 4, "reference": lambda batch: class_loss(model, batch)}
    return Case(step, batch, model, options, "not divided", {"growth": 0, "accumulation factor": 4, "p": 0, "clip threshold": 1})


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    step = loop(model, lambda micro, window: class_loss(model, micro) / len(window), optimizer, clip=1.0)
    options = {"accumulation": 4, "reference": lambda batch: class_loss(model, batch)}
    return Case(step, batch, model, options, numbers={"accumulation factor": 1, "c": 1, "p": 0, "clip threshold": 1})
