"""A language model with an LSTM sums the loss over time and over the batch.

Right: sum over time if you like, and take the mean over the batch.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.cases import Batch, Case, generator, loop, seeded


class LanguageModel(nn.Module):
    """Predicts the next of 20 letters."""

    def __init__(self) -> None:
        super().__init__()
        self.letters, self.scores = nn.Embedding(20, 12), nn.Linear(16, 20)
        self.memory = nn.LSTM(12, 16, num_layers=2, dropout=0.2, batch_first=True)

    def forward(self, letters: Tensor) -> Tensor:
        return self.scores(self.memory(self.letters(letters))[0])


def texts(seed: int) -> Batch:
    """Letters [text, place]."""
    return {"letters": torch.randint(20, (6, 13), generator=generator(seed))}


def next_letter(model: nn.Module, micro: Batch) -> Tensor:
    """The summed cross entropy of every next letter."""
    letters = micro["letters"]
    return F.cross_entropy(model(letters[:, :-1]).flatten(0, 1), letters[:, 1:].flatten(), reduction="sum")


def wrong(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = texts(seed), seeded(seed, dtype, LanguageModel)
    step = loop(model, lambda micro, window: next_letter(model, micro), clip=5.0)
    return Case(step, batch, model, kind="sum", numbers={"growth": 1, "clip threshold": 5})


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = texts(seed), seeded(seed, dtype, LanguageModel)
    step = loop(model, lambda micro, window: next_letter(model, micro) / len(micro["letters"]) / len(window), clip=5.0)
    return Case(step, batch, model, {"accumulation": 4}, numbers={"growth": 0, "accumulation factor": 1, "clip threshold": 5})
