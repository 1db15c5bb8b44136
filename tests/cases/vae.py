"""A VAE adds the mean of a reconstruction error and the sum of a KL divergence.

Right: sum both within an example, and take the mean of both over the examples.
"""

import torch
from torch import Tensor, nn

from tests.cases import Batch, Case, generator, loop, seeded


def pictures(seed: int, dtype: torch.dtype) -> Batch:
    """Pictures x [example, pixel]."""
    return {"x": torch.rand(6, 64, generator=generator(seed), dtype=torch.float64).to(dtype)}


def autoencoder(seed: int, dtype: torch.dtype) -> nn.Sequential:
    """An encoder to 4 means and 4 log variances, and a decoder."""

    def build() -> nn.Sequential:
        encoder, decoder = ((nn.Linear(a, 32), nn.ReLU(), nn.Linear(32, b)) for a, b in ((64, 8), (4, 64)))
        return nn.Sequential(nn.Sequential(*encoder), nn.Sequential(*decoder))

    return seeded(seed, dtype, build)


def terms(model: nn.Sequential, micro: Batch) -> tuple[Tensor, Tensor]:
    """Squared errors [example, pixel], and the KL divergence [example, latent]; the noise comes from torch's random state."""
    mean, log_variance = model[0](micro["x"]).chunk(2, -1)
    latent = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
    return (model[1](latent) - micro["x"]) ** 2, 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance)


def wrong(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = pictures(seed, dtype), autoencoder(seed, dtype)

    def loss(micro: Batch, window: object) -> Tensor:
        error, divergence = terms(model, micro)
        return error.mean() + divergence.sum()

    return Case(loop(model, loss), batch, model, kind="two terms")


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = pictures(seed, dtype), autoencoder(seed, dtype)
    step = loop(model, lambda micro, window: sum(term.sum(-1).mean() for term in terms(model, micro)) / len(window))
    return Case(step, batch, model, {"accumulation": 4})
