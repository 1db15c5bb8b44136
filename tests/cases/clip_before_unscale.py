"""Gradients are clipped while they still carry the loss scale.

Met in: Lightning-AI/pytorch-lightning#9694, rwth-i6/returnn#1590.
Right: unscale, then clip.
"""

from collections.abc import Sequence

import torch
from torch import nn

from tests.cases import Batch, Case, Step, class_loss, net, points, sgd


def scaled(model: nn.Module, *, unscale: bool) -> Step:
    optimizer, scaler = sgd(model), torch.amp.GradScaler("cpu")

    def step(window: Sequence[Batch]) -> None:
        optimizer.zero_grad()
        for micro in window:
            scaler.scale(class_loss(model, micro) / len(window)).backward()
        if unscale:
            scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()

    return step


def wrong(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype)
    step = scaled(model, unscale=False)
    return Case(step, batch, model, kind="clip before unscale", numbers={"growth": 0, "clip threshold": 2.0**-16})


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), net(seed, dtype)
    step = scaled(model, unscale=True)
    return Case(step, batch, model, {"accumulation": 4}, numbers={"growth": 0, "clip threshold": 1})
