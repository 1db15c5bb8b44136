"""A diffusion model draws a time step and noise for each example: the mean is right, and is accumulated without a division.

Right: divide the loss by the number of micro-batches; the draws change nothing.
"""

import torch
from torch import Tensor, nn

from tests.cases import Batch, Case, generator, loop, seeded

TIMES = 50
"""The number of time steps of the diffusion."""


def pictures(seed: int, dtype: torch.dtype) -> Batch:
    """Pictures x [example, pixel]."""
    return {"x": torch.randn(6, 4, generator=generator(seed), dtype=torch.float64).to(dtype)}


def denoiser(seed: int, dtype: torch.dtype) -> nn.Sequential:
    """Predicts the noise from a noisy picture and its time step."""
    return seeded(seed, dtype, lambda: nn.Sequential(nn.Linear(5, 16), nn.SiLU(), nn.Linear(16, 4)))


def error(model: nn.Module, micro: Batch) -> Tensor:
    """The mean squared error of the noise, over examples and pixels."""
    x = micro["x"]
    time = torch.randint(0, TIMES, (len(x),))[:, None] / TIMES
    noise = torch.randn_like(x)
    noisy = (1 - time).sqrt().to(x.dtype) * x + time.sqrt().to(x.dtype) * noise
    return (model(torch.cat([noisy, time.to(x.dtype)], 1)) - noise).square().mean()


def wrong(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = pictures(seed, dtype), denoiser(seed, dtype)
    step = loop(model, lambda micro, window: error(model, micro), torch.optim.AdamW(model.parameters(), lr=1e-4))
    options = {"accumulation": 4, "reference": lambda micro: error(model, micro)}
    return Case(step, batch, model, options, kind="not divided", numbers={"accumulation factor": 4})


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = pictures(seed, dtype), denoiser(seed, dtype)
    step = loop(model, lambda micro, window: error(model, micro) / len(window))
    return Case(step, batch, model, {"accumulation": 4}, numbers={"growth": 0, "accumulation factor": 1})
