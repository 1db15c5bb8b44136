"""LBFGS computes the loss itself, several times a step: an audit refuses it.

Right: audit the same loss under an optimizer that takes one gradient a step.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from tests.cases import Batch, Case, class_loss, loop, net, points


def wrong(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1)

    def step(window: Sequence[Batch]) -> None:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = class_loss(model, window[0])
            loss.backward()
            return loss

        optimizer.step(closure)

    return Case(step, batch, model, kind="closure")


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype)
    return Case(loop(model, lambda micro, window: class_loss(model, micro)), batch, model, numbers={"growth": 0})
