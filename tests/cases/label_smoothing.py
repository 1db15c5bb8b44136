"""Smoothed labels in torch's own cross entropy, whose mean is over examples.

Right: use the mean of F.cross_entropy(..., label_smoothing=...); kl_over_elements.py has the mistake.
"""

import torch
from torch.nn import functional as F

from tests.cases import Case, loop, net, points


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype)
    step = loop(model, lambda micro, window: F.cross_entropy(model(micro["x"]), micro["y"], label_smoothing=0.1) / len(window))
    return Case(step, batch, model, {"accumulation": 4}, numbers={"growth": 0, "accumulation factor": 1})
