"""A GAN has two optimizers, and the losses of both are summed over the batch.

Right: take the mean of both losses over the examples.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.cases import Batch, Case, Step, generator, seeded


def samples(seed: int, dtype: torch.dtype) -> Batch:
    """Real points x [example, feature], and the noise z [example, latent] that the generator starts from."""
    draw = generator(seed)
    x, z = (torch.randn(6, size, generator=draw, dtype=torch.float64).to(dtype) for size in (5, 3))
    return {"x": x, "z": z}


def players(seed: int, dtype: torch.dtype) -> nn.Sequential:
    """The generator and the discriminator."""

    def build() -> nn.Sequential:
        makes, judges = ((nn.Linear(a, 16), nn.LeakyReLU(0.2), nn.Linear(16, b)) for a, b in ((3, 5), (5, 1)))
        return nn.Sequential(nn.Sequential(*makes), nn.Sequential(*judges))

    return seeded(seed, dtype, build)


def duel(model: nn.Sequential, reduction: str) -> Step:
    makes, judges = model
    making, judging = (torch.optim.Adam(player.parameters(), lr=1e-3, betas=(0.5, 0.999)) for player in (makes, judges))

    def verdict(points: Tensor, real: float) -> Tensor:
        scores = judges(points)
        return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, real), reduction=reduction)

    def step(window: Sequence[Batch]) -> None:
        (micro,) = window
        judging.zero_grad()
        (verdict(micro["x"], 1.0) + verdict(makes(micro["z"]).detach(), 0.0)).backward()
        judging.step()
        making.zero_grad()
        verdict(makes(micro["z"]), 1.0).backward()
        making.step()

    return step


def wrong(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = samples(seed, dtype), players(seed, dtype)
    return Case(duel(model, "sum"), batch, model, kind="sum")


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = samples(seed, dtype), players(seed, dtype)
    return Case(duel(model, "mean"), batch, model)
