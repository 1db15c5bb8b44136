"""A mixture of experts adds a loss that balances them: a product of two means over the tokens of the micro-batch.

Right: use a loss of each token's own router scores (a z-loss), or count the use of experts over the whole update.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.cases import Batch, Case, loop, seeded, sentences, tokens

EXPERTS = 4


class Experts(nn.Module):
    """Each token goes to the one of four experts that its router scores highest; returns outputs and router scores."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(5, EXPERTS)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(5, 8), nn.GELU(), nn.Linear(8, 4)) for _ in range(EXPERTS))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.router(x)
        weight, chosen = scores.softmax(-1).max(-1)
        outputs = torch.stack([expert(x) for expert in self.experts])
        return weight[:, None] * outputs[chosen, torch.arange(len(x))], scores


def balance(scores: Tensor) -> Tensor:
    """The number of experts times sum f P: f the share of tokens that an expert gets, P its mean probability."""
    used = F.one_hot(scores.argmax(-1), EXPERTS).to(scores).mean(0)
    return EXPERTS * (used * scores.softmax(-1).mean(0)).sum()


def routed(model: nn.Module, micro: Batch) -> tuple[Tensor, Tensor]:
    """The summed loss of the tokens that count, and their router scores."""
    real = micro["y"] >= 0
    outputs, scores = model(micro["x"][real])
    return F.cross_entropy(outputs, micro["y"][real], reduction="sum"), scores


def wrong(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = sentences(seed, dtype), seeded(seed, dtype, Experts)

    def loss(micro: Batch, window: Sequence[Batch]) -> Tensor:
        summed, scores = routed(model, micro)
        return summed / sum(map(tokens, window)) + balance(scores) / len(window)

    return Case(loop(model, loss), batch, model, {"accumulation": 4}, "coupled loss", {"growth": 0})


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = sentences(seed, dtype), seeded(seed, dtype, Experts)

    def loss(micro: Batch, window: Sequence[Batch]) -> Tensor:
        summed, scores = routed(model, micro)
        return (summed + 0.1 * scores.logsumexp(-1).square().sum()) / sum(map(tokens, window))

    return Case(loop(model, loss), batch, model, {"accumulation": 4}, numbers={"growth": 0, "accumulation factor": 1})
