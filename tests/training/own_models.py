"""Users' models, losses and data of many kinds, which tests of their training share."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from lrscale.spec import Training
from lrscale.tasks.own import Task
from lrscale.tasks.rows import mapped
from tests.configs import make

LRS = [0.05, 0.2]


class Tokens(nn.Module):
    """A character model: embedding, one layer of attention, tied output weights."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout, batch_first=True)
        self.out = nn.Linear(8, 7, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        out: Tensor = self.out(self.layer(self.embed(ids)))
        return out


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.embed, self.cell, self.out = nn.Embedding(7, 6), kind(6, 5, batch_first=True), nn.Linear(5, 7)

    def forward(self, ids: Tensor) -> Tensor:
        out: Tensor = self.out(self.cell(self.embed(ids))[0])
        return out


class Named(nn.Module):
    """Takes its inputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(3, 4), nn.Linear(2, 4)

    def forward(self, wide: Tensor, narrow: Tensor) -> Tensor:
        out: Tensor = self.left(wide) + self.right(narrow)
        return out


class Centred(nn.Module):
    """Puts a new tensor in the place of its buffer at each step."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))
        self.out = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean = 0.5 * self.mean + 0.5 * x.mean(0)
        out: Tensor = self.out(x - self.mean)
        return out


class Drawn(nn.Module):
    """What the seed decides is more than weights that are trained."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen, self.order, self.shift = nn.Linear(3, 6).requires_grad_(False), torch.randperm(6), torch.rand(()).item()
        self.out = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out((self.frozen(x)[:, self.order[:5]] + self.shift).relu())
        return out


class Sampled(nn.Module):
    """Draws in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(x + torch.randn_like(x))
        return out


class Jumpy(nn.Module):
    """What torch.func cannot run: a branch that depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(3, 4), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.one(x) + (self.other(x) if x.sum().item() > 0 else 0.1 * self.other(x))
        return out


def token_losses(out: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return F.cross_entropy(out.transpose(1, 2), y, reduction="none"), y != -100


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def classes(count: int, *shape: int) -> Tensor:
    return torch.randint(0, count, shape, generator=torch.Generator().manual_seed(count))


def padded(count: int = 22, length: int = 5) -> Tensor:
    """Token targets whose examples have 1 to `length` terms."""
    y = classes(7, count, length)
    lengths = 1 + classes(length, count)
    return torch.where(torch.arange(length) < lengths[:, None], y, -100)


IMAGES, LABELS, IDS, PADDED = draw(22, 1, 8, 8), classes(4, 22), classes(7, 22, 5), padded()
PAIR = {"wide": draw(22, 3), "narrow": draw(22, 2)}


def cnn(dropout: float = 0.0) -> nn.Module:
    layers = [nn.Conv2d(1, 3, 3, 2, 1), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.Flatten()]
    return nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(64, 4))


def weight_normed() -> nn.Module:
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 5)), nn.Tanh(), nn.Linear(5, 4))


WEIGHTED = partial(F.cross_entropy, weight=torch.tensor([1.0, 2.0, 0.5, 3.0]), ignore_index=3)
WIDE = PAIR["wide"]
REFUSED = {
    "attention with dropout": {"vmap_grad", "vmap_forward"},  # draws the masks in another way than a plain loop
    "gru": {"vmap_forward"},  # torch.func has no rule for it outside of grad
    "lstm": {"vmap_forward"},
    "replaced buffer": {"vmap_grad", "vmap_forward"},  # torch.func drops it
}
"""The forms that cannot be taken."""


@dataclass(frozen=True)
class Case:
    """A module with a loss and data; `plain` is the loss as its user would reduce it, over the terms of a step."""

    model: Callable[[], nn.Module]
    loss: Callable[..., Any]
    x: Any
    y: Tensor


CASES = {
    "mlp": Case(lambda: nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4)), F.cross_entropy, WIDE, LABELS),
    "class weights": Case(lambda: nn.Linear(3, 4), WEIGHTED, WIDE, LABELS),
    "module of a loss": Case(lambda: nn.Linear(3, 2), nn.MSELoss(), WIDE, PAIR["narrow"]),
    "named inputs": Case(Named, nn.CrossEntropyLoss(), PAIR, LABELS),
    "weight norm": Case(weight_normed, F.cross_entropy, WIDE, LABELS),
    "batch norm": Case(cnn, F.cross_entropy, IMAGES, LABELS),
    "batch norm and dropout": Case(lambda: cnn(0.4), F.cross_entropy, IMAGES, LABELS),
    "replaced buffer": Case(Centred, F.cross_entropy, WIDE, LABELS),
    "drawn beside weights": Case(Drawn, F.cross_entropy, WIDE, LABELS),
    "attention": Case(Tokens, token_losses, IDS, PADDED),
    "attention with dropout": Case(lambda: Tokens(0.3), token_losses, IDS, PADDED),
    "gru": Case(lambda: Recurrent(nn.GRU), token_losses, IDS, PADDED),
    "lstm": Case(lambda: Recurrent(nn.LSTM), token_losses, IDS, PADDED),
}


def training(**changes: Any) -> Training:
    made = make(
        optimizer__lr=LRS, batch_size=4, seeds=[0, 3], budget="steps", budget__steps=8, dtype="float64", points=8, **changes
    )
    return replace(made, examples=22)


def task_of(case: Case, **options: Any) -> Task:
    return Task(case.model, case.loss, (case.x, case.y), (mapped(lambda t: t[:9], case.x), case.y[:9]), **options)


class Augmented(Dataset[tuple[Tensor, Tensor]]):
    """Examples with noise that is drawn at each reading."""

    def __len__(self) -> int:
        return 22

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return WIDE[index] + torch.randn(3), LABELS[index]


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 4))
