"""The loss is the root of a mean of squares, so an example's weight depends on the others' errors.

Right: take the mean of squares, and its root only where you report it.
"""

import torch

from tests.cases import Case, loop, net, points
from tests.cases.mse_over_outputs import squares


def wrong(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype, outputs=1)
    step = loop(model, lambda micro, window: squares(model, micro).mean().sqrt())
    return Case(step, batch, model, kind="not a mean", numbers={"growth": 0})


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype, outputs=1)
    step = loop(model, lambda micro, window: squares(model, micro).mean())
    return Case(step, batch, model, numbers={"growth": 0})
