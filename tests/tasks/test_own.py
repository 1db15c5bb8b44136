"""A user's task: what it takes, what it refuses, and how its terms are counted."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils.data import Dataset, IterableDataset

from lrscale.errors import Refusal
from lrscale.tasks.own import Task
from lrscale.tasks.rows import Rows
from lrscale.tasks.terms import terms_of, top1

X, Y = torch.randn(12, 3, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 4
IDS = torch.arange(60).view(12, 5) % 7
TOKENS = torch.where(torch.arange(5) < 1 + torch.arange(12)[:, None] % 5, IDS, -100)
PAIR = (X, Y)


def net() -> nn.Module:
    return nn.Linear(3, 4)


class Items(Dataset[tuple[Tensor, Tensor]]):
    """A map-style Dataset, which counts how often it is read."""

    def __init__(self, noise: float = 0.0) -> None:
        self.read, self.noise = 0, noise

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        self.read += 1
        return X[index] + self.noise * torch.randn(3), Y[index]


class ByNumpy(Items):
    """Items with noise of numpy."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return X[index] + np.random.default_rng().normal(), Y[index]


class Endless(IterableDataset[tuple[Tensor, Tensor]]):
    def __iter__(self) -> Any:
        yield X[0], Y[0]


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.spare = nn.Linear(3, 4), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.used(x)
        return out


class Learned(nn.Module):
    """A loss with a weight that nobody would train."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, out: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.scale * out, y, reduction="none")


class Scaled(nn.Module):
    """Changes its inputs in place."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(x.mul_(0.5))
        return out


class Counting(Scaled):
    """Keeps in an attribute what changes at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def forward(self, x: Tensor) -> Tensor:
        self.steps += 1
        out: Tensor = self.out(self.steps * x)
        return out


def drawn_by_numpy() -> nn.Module:
    module = net()
    assert isinstance(module, nn.Linear)
    module.weight.data = torch.as_tensor(np.random.default_rng().normal(size=(4, 3)), dtype=torch.float32)
    return module


def at_random(out: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Losses of which a random part counts."""
    return F.cross_entropy(out, y, reduction="none"), torch.rand(len(y))


ONE = net()


def made_wrong(value: Any) -> Any:
    """A function that returns a value of a wrong type, which a user may give."""
    return lambda: value


REFUSED: dict[str, tuple[Callable[[], Task], str]] = {
    "a module, not a function": (lambda: Task(ONE, F.cross_entropy, PAIR, PAIR), "`model` must make a new module"),
    "the same module": (lambda: Task(lambda: ONE, F.cross_entropy, PAIR, PAIR), "`model` must make a new module"),
    "no module": (lambda: Task(made_wrong(3), F.cross_entropy, PAIR, PAIR), "`model` must return a torch.nn.Module"),
    "no function": (lambda: Task(made_wrong("net")(), F.cross_entropy, PAIR, PAIR), "`model` must be a function, got str"),
    "frozen": (lambda: Task(lambda: net().requires_grad_(False), F.cross_entropy, PAIR, PAIR), "`model` must have parameters"),
    "unused": (lambda: Task(Unused, F.cross_entropy, PAIR, PAIR), "got no gradient for spare.weight, spare.bias"),
    "reduced": (lambda: Task(net, lambda out, y: F.cross_entropy(out, y), PAIR, PAIR), "`loss` must not reduce"),
    "no tensor": (lambda: Task(net, lambda out, y: 3.0, PAIR, PAIR), "`loss` must return a tensor, got float"),
    "three values": (
        lambda: Task(net, lambda out, y: (out, out, out), PAIR, PAIR),
        "`loss` must return losses, or losses and weights",
    ),
    "other weights": (
        lambda: Task(net, lambda out, y: (out, out[:, :2]), PAIR, PAIR),
        "`loss` must return as many weights as losses",
    ),
    "turned": (
        lambda: Task(net, lambda out, y: out.T, PAIR, PAIR),
        r"one number an example or a term, got shape \[4\] for 2 examples",
    ),
    "nan": (lambda: Task(net, F.cross_entropy, (X * torch.nan, Y), PAIR), "`loss` must be finite for fresh weights"),
    "no term": (lambda: Task(net, F.cross_entropy, (X, Y * 0 - 100), PAIR), "`loss` must have terms that count"),
    "shapes": (lambda: Task(net, nn.MSELoss(), (X, X[:, 0]), PAIR), "`loss` MSE must get outputs and targets of one shape"),
    "wrong shapes": (
        lambda: Task(net, F.cross_entropy, (X[:, :2], Y), PAIR),
        "`model` and `loss` must take two training examples",
    ),
    "counts": (
        lambda: Task(net, F.cross_entropy, (X, Y[:5]), PAIR),
        r"the same number of examples in each tensor, at least 1, got \[5",
    ),
    "texts": (lambda: Task(net, F.cross_entropy, ("abc", Y), PAIR), "`train` must hold tensors.* got str and Tensor"),
    "items with texts": (lambda: Task(net, F.cross_entropy, [(X[0], "cat")] * 12, PAIR), "got TypeError: no tensor: str"),
    "ragged items": (lambda: Task(net, F.cross_entropy, [(X[0, :k], Y[0]) for k in (1, 2, 3)], PAIR), "got RuntimeError: stack"),
    "items that numpy draws": (lambda: Task(net, F.cross_entropy, ByNumpy(), PAIR), "the same for the same seed of torch"),
    "three parts": (lambda: Task(net, F.cross_entropy, (X, Y, Y), PAIR), r"`train` must be a pair \(inputs, targets\)"),
    "lists": (lambda: Task(net, F.cross_entropy, ([[1.0]], Y), PAIR), "`train` must hold tensors"),
    "iterable": (lambda: Task(net, F.cross_entropy, Endless(), PAIR), "map-style Dataset that is not empty, got Endless"),
    "not wrong": (lambda: Task(net, F.cross_entropy, PAIR, PAIR, lambda out, y: out), "`wrong` must return 1 where"),
    "in place": (lambda: Task(Scaled, F.cross_entropy, PAIR, PAIR), "must leave inputs and targets as they are"),
    "a counter": (lambda: Task(Counting, F.cross_entropy, PAIR, PAIR), "must give the same losses for the same weights"),
    "numpy's draws": (
        lambda: Task(drawn_by_numpy, F.cross_entropy, PAIR, PAIR),
        "must draw its weights with torch, got another weight",
    ),
    "lazy": (lambda: Task(lambda: nn.LazyLinear(4), F.cross_entropy, PAIR, PAIR), "got weight, bias of a lazy layer"),
    "shapes that broadcast": (
        lambda: Task(lambda: nn.Linear(3, 1), lambda out, y: (out - y) ** 2, (X, X[:, 0]), (X, X[:, 0])),
        r"must weigh the terms of an example by its targets alone.* got weights \[2.0, 2.0\] and then \[3.0, 3.0\]",
    ),
    "random terms": (lambda: Task(net, at_random, PAIR, PAIR), "must weigh the terms of an example by its targets alone"),
    "a late label": (
        lambda: Task(net, F.cross_entropy, (X, torch.arange(12) // 2), PAIR),
        "must take examples 0 to 11 of `train` in eval mode, got IndexError",
    ),
    "a late nan": (
        lambda: Task(net, F.cross_entropy, (X.where(Y[:, None] != 3, torch.nan), Y), PAIR),
        "must be finite for fresh weights, got nan or inf for example 3 of `train`",
    ),
    "other valid": (lambda: Task(net, F.cross_entropy, PAIR, (X[:, :2], Y)), "must take examples 0 to 11 of `valid`"),
    "no valid term": (lambda: Task(net, F.cross_entropy, PAIR, (X, Y * 0 - 100)), "must have terms that count.*`valid`"),
    "a loss with weights": (lambda: Task(net, Learned(), PAIR, PAIR), "`loss` must have no weights that are trained.* got scale"),
    "groups": (
        lambda: Task(net, F.cross_entropy, PAIR, PAIR, groups=lambda name, p: {"lr": -1.0}),
        "`groups` must return factors >= 0",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_a_task_is_refused_in_one_line(name: str) -> None:
    make, says = REFUSED[name]
    with pytest.raises(Refusal, match=says) as error:
        _ = make()
    assert "\n" not in str(error.value)


class Focal(nn.CrossEntropyLoss):
    """A class made from a loss of torch is another loss."""

    def forward(self, out: Tensor, y: Tensor) -> Tensor:
        losses = F.cross_entropy(out, y, reduction="none")
        losses = (1 - torch.exp(-losses)) ** 2 * losses
        return losses if self.reduction == "none" else losses.mean()


CLASS_WEIGHTS = torch.tensor([1.0, 2.0, 0.5, 3.0])


@pytest.mark.parametrize(
    ("loss", "as_module"),
    [
        (F.cross_entropy, nn.CrossEntropyLoss()),
        (partial(F.cross_entropy, weight=CLASS_WEIGHTS, ignore_index=2), nn.CrossEntropyLoss(CLASS_WEIGHTS, ignore_index=2)),
        (
            partial(F.cross_entropy, label_smoothing=0.2, weight=CLASS_WEIGHTS),
            nn.CrossEntropyLoss(CLASS_WEIGHTS, label_smoothing=0.2),
        ),
        (nn.CrossEntropyLoss(CLASS_WEIGHTS, ignore_index=2), nn.CrossEntropyLoss(CLASS_WEIGHTS, ignore_index=2)),
        (partial(F.multi_margin_loss), nn.MultiMarginLoss()),
        (Focal(), Focal()),
    ],
)
def test_the_mean_over_terms_is_torchs_mean(loss: Callable[..., Any], as_module: nn.Module) -> None:
    out = torch.randn(12, 4, generator=torch.Generator().manual_seed(1))
    losses, weights = terms_of(loss)(out, Y)
    assert losses.shape == weights.shape == (12,)
    assert_close(losses.sum() / weights.sum(), as_module(out, Y))


def test_token_losses_count_the_tokens_that_count() -> None:
    out = torch.randn(12, 7, 5, generator=torch.Generator().manual_seed(1))
    own = terms_of(lambda out, y: (F.cross_entropy(out, y, reduction="none"), y != -100))(out, TOKENS)
    plain = terms_of(F.cross_entropy)(out, TOKENS)
    assert_close(own, plain)
    assert own.weights.tolist() == [1.0 + i % 5 for i in range(12)]
    assert_close(own.losses.sum() / own.weights.sum(), F.cross_entropy(out, TOKENS))


def test_squared_errors_and_others_have_a_term_an_entry() -> None:
    out, y = torch.randn(12, 3, generator=torch.Generator().manual_seed(1)), X
    for loss in (nn.MSELoss(), F.mse_loss, nn.L1Loss(), F.smooth_l1_loss, nn.BCEWithLogitsLoss()):
        losses, weights = terms_of(loss)(out, (y > 0).float())
        assert weights.tolist() == [3.0] * 12
        whole = loss(out, (y > 0).float())
        assert_close(losses.sum() / weights.sum(), whole)


def test_an_example_is_a_term_of_a_batchmean() -> None:
    out = torch.randn(12, 3, generator=torch.Generator().manual_seed(1)).log_softmax(1)
    y = X.softmax(1)
    for loss in (nn.KLDivLoss(reduction="batchmean"), partial(F.kl_div, reduction="batchmean")):
        losses, weights = terms_of(loss)(out, y)
        assert weights.tolist() == [1.0] * 12
        assert_close(losses.sum() / weights.sum(), loss(out, y))


def test_terms_are_counted_once_for_all_training_examples() -> None:
    task = Task(
        lambda: nn.Embedding(7, 7),
        lambda out, y: (F.cross_entropy(out.mT, y, reduction="none"), y != -100),
        (IDS, TOKENS),
        (IDS, TOKENS),
    )
    assert task.terms.tolist() == [1.0 + i % 5 for i in range(12)]


def test_a_dataset_that_is_small_and_not_random_is_loaded_once() -> None:
    items, noisy = Items(), Items(noise=1.0)
    loaded, streamed = Rows("train", items), Rows("train", noisy)
    listed = Rows("train", [items[i] for i in range(12)])
    assert_close(listed.take(torch.arange(12)), PAIR)
    read = items.read
    indices = torch.tensor([[3, 1], [0, 3]])
    assert_close(loaded.take(indices), (X[indices], Y[indices]))
    assert items.read == read and streamed.dataset is noisy
    x, y = streamed.take(torch.tensor([[3, 1]]))
    assert x.shape == (1, 2, 3) and y.tolist() == [[3, 1]] and not torch.equal(x[0], X[[3, 1]])
    assert streamed.is_random and not loaded.is_random
    assert torch.equal(streamed.take(torch.tensor([[3, 1]]))[0], x) and not torch.equal(
        streamed.take(torch.tensor([[3, 1]]), 5)[0], x
    )


def test_trees_of_tensors_are_taken_together() -> None:
    rows = Rows("train", ({"a": X, "b": IDS}, (Y, X)))
    x, y = rows.take(torch.tensor([5, 2]))
    assert_close(x["a"], X[[5, 2]])
    assert x["b"].tolist() == IDS[[5, 2]].tolist() and y[0].tolist() == Y[[5, 2]].tolist()
    rows.to(torch.float64)
    x, _ = rows.take(torch.tensor([5, 2]))
    assert x["a"].dtype == torch.float64 and x["b"].dtype == torch.int64


def test_a_task_leaves_torchs_generator_as_it_was() -> None:
    before = torch.get_rng_state()
    task = Task(lambda: nn.Sequential(nn.Linear(3, 4), nn.Dropout()), F.cross_entropy, PAIR, PAIR, top1)
    assert task.draws and not Task(net, F.cross_entropy, PAIR, PAIR).draws
    assert torch.equal(before, torch.get_rng_state())
