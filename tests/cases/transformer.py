"""A transformer with padding and dropout: token means are averaged over micro-batches.

Met in: huggingface/transformers#34191, unslothai/unsloth#1134, meta-pytorch/torchtune#1875.
Right: divide the sum over tokens by the tokens of the whole update.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.cases import IGNORED, Batch, Case, generator, loop, seeded, tokens


class Tagger(nn.Module):
    """Two layers of attention over words; gives 10 scores for each word."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(50, 16), nn.Parameter(0.1 * torch.randn(10, 16))
        layer = nn.TransformerEncoderLayer(16, 4, dim_feedforward=32, dropout=0.1, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.scores = nn.Linear(16, 10)

    def forward(self, words: Tensor, padding: Tensor) -> Tensor:
        return self.scores(self.layers(self.words(words) + self.places, src_key_padding_mask=padding))


def texts(seed: int) -> Batch:
    """Words [text, place] and their tags y [text, place]; texts have 3 to 10 words, and the rest is padding."""
    draw = generator(seed)
    words, y = torch.randint(50, (6, 10), generator=draw), torch.randint(10, (6, 10), generator=draw)
    lengths = torch.tensor([3, 4, 5, 7, 9, 10])[torch.randperm(6, generator=draw)]
    y[torch.arange(10) >= lengths[:, None]] = IGNORED
    return {"words": words, "y": y}


def tag_loss(model: nn.Module, micro: Batch, reduction: str) -> Tensor:
    scores = model(micro["words"], micro["y"] == IGNORED)
    return F.cross_entropy(scores.flatten(0, 1), micro["y"].flatten(), reduction=reduction)


def wrong(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = texts(seed), seeded(seed, dtype, Tagger)
    step = loop(model, lambda micro, window: tag_loss(model, micro, "mean") / len(window), torch.optim.AdamW(model.parameters()))
    numbers = {"accumulation factor": 1, "weights as micro-batches": (0.5, 0.5), "weights in one batch": (12 / 38, 26 / 38)}
    return Case(step, batch, model, {"accumulation": 4}, "mean of means", numbers)


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = texts(seed), seeded(seed, dtype, Tagger)
    optimizer = torch.optim.AdamW(model.parameters())
    step = loop(model, lambda micro, window: tag_loss(model, micro, "sum") / sum(map(tokens, window)), optimizer)
    return Case(step, batch, model, {"accumulation": 4}, numbers={"growth": 0, "accumulation factor": 1, "p": 0})
