"""A vector-quantised autoencoder adds the mean of a reconstruction error and the sum of its codebook and commitment losses.

Right: take the mean of all three over the vectors.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.cases import Batch, Case, loop, points, seeded


def quantised(seed: int, dtype: torch.dtype) -> nn.Sequential:
    """Encoder, codebook of 8 vectors of 3 numbers, and decoder."""
    return seeded(seed, dtype, lambda: nn.Sequential(nn.Linear(5, 3), nn.Embedding(8, 3), nn.Linear(3, 5)))


def losses(model: nn.Sequential, micro: Batch, reduction: str) -> tuple[Tensor, Tensor]:
    """The mean reconstruction error, and the codebook and commitment losses under a reduction."""
    encoder, codebook, decoder = model
    vector = encoder(micro["x"])
    nearest = codebook(torch.cdist(vector, codebook.weight).argmin(-1))
    error = F.mse_loss(decoder(vector + (nearest - vector).detach()), micro["x"])
    book, commitment = (F.mse_loss(a, b.detach(), reduction=reduction) for a, b in ((nearest, vector), (vector, nearest)))
    return error, book + 0.25 * commitment


def wrong(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), quantised(seed, dtype)
    return Case(loop(model, lambda micro, window: sum(losses(model, micro, "sum"))), batch, model, kind="two terms")


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = points(seed, dtype), quantised(seed, dtype)
    step = loop(model, lambda micro, window: sum(losses(model, micro, "mean")) / len(window))
    return Case(step, batch, model, {"accumulation": 4}, numbers={"growth": 0, "accumulation factor": 1})
