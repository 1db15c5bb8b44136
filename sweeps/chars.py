"""A character transformer on sums in words, of uneven length: an example of a loss with several terms an example."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import lrscale

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
LETTERS = sorted({letter for word in WORDS for letter in word} | set(" +=."))
LENGTH = 24


def sentences(first: int, count: int) -> tuple[Tensor, Tensor]:
    """Sums such as `two+five=seven.`, as inputs and the next characters, [example, LENGTH].

    Targets after the full stop are -100: they do not count. So examples have 11 to 16 terms.
    """
    rows = []
    generator = torch.Generator().manual_seed(first)
    for total, share in torch.rand(count, 2, generator=generator).tolist():
        a = int(share * (int(total * 11) + 1))
        text = f"{WORDS[a]}+{WORDS[int(total * 11) - a]}={WORDS[int(total * 11)]}."
        rows.append([LETTERS.index(letter) for letter in text] + [-100] * (LENGTH + 1 - len(text)))
    ids = torch.tensor(rows)
    return ids[:, :-1].clamp(min=0), ids[:, 1:]


class Transformer(nn.Module):
    """One layer of causal attention, with the output weights tied to the embedding."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.letters, self.places = nn.Embedding(len(LETTERS), width), nn.Embedding(LENGTH, width)
        self.layer = nn.TransformerEncoderLayer(width, 2, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, len(LETTERS), bias=False)
        self.out.weight = self.letters.weight
        nn.init.normal_(self.letters.weight, std=width**-0.5)
        self.register_buffer("later", nn.Transformer.generate_square_subsequent_mask(LENGTH), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        inputs = self.letters(ids) + self.places.weight
        logits: Tensor = self.out(self.norm(self.layer(inputs, self.later, is_causal=True)))
        return logits


def token_losses(out: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of each character, and whether it counts."""
    return F.cross_entropy(out.transpose(1, 2), y, reduction="none"), y != -100


def transformer(width: int = 32, examples: int = 512) -> lrscale.Task:
    """A character transformer that learns sums in words."""
    return lrscale.Task(
        lambda: Transformer(width),
        token_losses,
        sentences(0, examples),
        sentences(1, 256),
        groups=lambda name, parameter: {"weight_decay": 0} if parameter.ndim < 2 else {},
    )
