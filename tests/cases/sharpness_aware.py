"""SAM takes its gradient at moved weights, and puts the weights back: an audit refuses it.

Right: audit the same loss without the move.
"""

from collections.abc import Sequence

import torch

from tests.cases import Batch, Case, class_loss, loop, net, points, sgd


def wrong(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype)
    optimizer = sgd(model)

    def step(window: Sequence[Batch]) -> None:
        optimizer.zero_grad()
        class_loss(model, window[0]).backward()
        moves = [0.05 * weight.grad.clone() for weight in model.parameters()]
        with torch.no_grad():
            torch._foreach_add_(list(model.parameters()), moves)
        optimizer.zero_grad()
        class_loss(model, window[0]).backward()
        with torch.no_grad():
            torch._foreach_sub_(list(model.parameters()), moves)
        optimizer.step()

    return Case(step, batch, model, kind="weights move")


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype)
    return Case(loop(model, lambda micro, window: class_loss(model, micro)), batch, model, numbers={"growth": 0})
