"""The loss is the root of a mean of squares, so an example's weight depends on the micro-batch that it is in.

Right: take the mean of squares, and its root only where you report it.
"""

import torch

from tests.cases import Case, loop, net, points
from tests.cases.mse_over_outputs import squares


def wrong(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype, outputs=1)
    step = loop(model, lambda micro, window: squares(model, micro).mean().sqrt() / len(window))
    return Case(step, batch, model, {"accumulation": 4}, "mean of means", {"growth": 0, "accumulation factor": 1})


def wrong_in_one(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    """The same without accumulation: said, and not blamed."""
    step, batch, model, *_ = wrong(seed, dtype)
    return Case(step, batch, model, kind="not a mean", numbers={"growth": 0})


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype, outputs=1)
    step = loop(model, lambda micro, window: squares(model, micro).mean() / len(window))
    return Case(step, batch, model, {"accumulation": 4}, numbers={"growth": 0, "accumulation factor": 1})
