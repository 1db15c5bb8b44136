"""Runs of a user's task: each form against a plain loop of torch.optim, module by module, loss by loss."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from lrscale.errors import Refusal
from lrscale.spec import Compute, Training
from lrscale.streams import generator
from lrscale.tasks.own import Task, called
from lrscale.tasks.rows import mapped
from lrscale.training import engine
from lrscale.training.forms import FORMS
from lrscale.training.minibatches import batch_order
from lrscale.training.own_runs import OwnRuns, choose_form
from tests.configs import make
from tests.loops import CLASSES

PLAIN = 1e-10  # float64; sums are taken in another order
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


def terms(task: Task, out: Any, y: Tensor) -> tuple[Tensor, Tensor]:
    losses, weights = task.terms_of(out, y)
    return losses.sum(), weights.sum()


def plain_losses(made: Training, case: Case, seed: int, lr: float) -> Iterator[float]:
    """Yields the loss over all data at the start and after each step, of a plain loop over one module."""
    task = task_of(case)
    module = task.fresh(generator("init", seed)).double()
    options = {**made.optimizer.options, "lr": lr}
    optimizer = CLASSES[made.optimizer.name](module.parameters(), **options)
    x, y, step = mapped(lambda t: t.double() if t.is_floating_point() else t, case.x), case.y, 0

    def whole() -> float:
        with torch.no_grad():
            total, count = terms(task, called(module.eval(), x), y)
        module.train()
        return float(total / count)

    yield whole()
    for epoch in range(made.steps):
        for indices in batch_order(seed, epoch, made.examples).split(made.step_examples):
            if step == made.steps or (made.drop_last and len(indices) < made.step_examples):
                continue
            optimizer.zero_grad()
            parts = indices.split(made.batch_size)
            count = task.terms[indices].sum()
            step += 1
            for micro, part in enumerate(parts):
                _ = torch.manual_seed(generator("draws", seed, step, micro).initial_seed())
                total, _ = terms(task, called(module, mapped(lambda t, p=part: t[p], x)), y[part])
                scale = {"mean": 1 / count, "sum": 1.0, "sum_over_nominal": 1 / made.batch_size}[made.reduction]
                (total * scale).backward()
            optimizer.step()
            yield whole()


def with_lrs(made: Training, *lrs: float) -> Training:
    return replace(made, optimizer=replace(made.optimizer, options={**made.optimizer.options, "lr": lrs}))


def runs_of(made: Training, task: Task, form: str) -> engine.Curves:
    return engine.train(replace(made, task=replace(made.task, options={"form": form})), task)


@pytest.mark.parametrize("reduction", ["mean", "sum_over_nominal"])
@pytest.mark.parametrize("name", CASES)
def test_each_form_is_a_plain_loop(name: str, reduction: str) -> None:
    case, accumulation = CASES[name], 2 if reduction == "sum_over_nominal" else 1
    made = training(reduction=reduction, accumulation=accumulation, optimizer__momentum=0.9)
    expected = [list(plain_losses(made, case, seed, lr)) for lr in LRS for seed in made.seeds]
    has_convolution = any(isinstance(module, nn.Conv2d) for module in case.model().modules())
    _, note = choose_form(made, task_of(case))
    refused = {part.partition(": ")[0] for part in note.split("; ") if part}
    assert refused == REFUSED.get(name, set())
    for form in FORMS:
        if form not in refused and (form != "unfold" or has_convolution):
            curves = runs_of(made, task_of(case), form)
            assert_allclose(curves.train_loss, np.array(expected).T[curves.steps], rtol=PLAIN, err_msg=form)


@pytest.mark.parametrize("optimizer", ["adamw", "rmsprop", "adafactor"])
def test_optimizers_and_groups_are_those_of_a_plain_loop(optimizer: str) -> None:
    case = CASES["mlp"]
    made = training(optimizer=optimizer, optimizer__weight_decay=0.1)
    whole = runs_of(made, task_of(case), "vmap_forward")
    expected = [list(plain_losses(made, case, seed, lr)) for lr in LRS for seed in made.seeds]
    assert_allclose(whole.train_loss, np.array(expected).T[whole.steps], rtol=1e-8)
    spared = runs_of(made, task_of(case, groups=lambda name, p: {"weight_decay": 0} if p.ndim < 2 else {}), "vmap_forward")
    none = runs_of(training(optimizer=optimizer, optimizer__weight_decay=0.0), task_of(case), "vmap_forward")
    assert (spared.train_loss[-1] != whole.train_loss[-1]).all() and (spared.train_loss[-1] != none.train_loss[-1]).all()
    all_spared = runs_of(made, task_of(case, groups=lambda name, p: {"weight_decay": 0}), "vmap_forward")
    assert_allclose(all_spared.train_loss, none.train_loss, rtol=PLAIN)


def test_what_torch_func_cannot_run_goes_one_run_after_another() -> None:
    task = Task(Jumpy, F.cross_entropy, (WIDE, LABELS), (WIDE, LABELS))
    form, note = choose_form(training(), task)
    assert form == "loop" and note.count(";") == 1 and "vmap_grad: " in note
    expected = list(plain_losses(training(), Case(Jumpy, F.cross_entropy, WIDE, LABELS), 3, LRS[1]))
    curves = engine.train(training(), task)
    assert_allclose(curves.train_loss[:, 3], np.array(expected)[curves.steps], rtol=PLAIN)


def test_a_form_that_draws_in_another_way_is_not_taken() -> None:
    form, note = choose_form(training(), task_of(CASES["attention with dropout"]))
    assert form == "loop" and "vmap_grad: other gradients than a plain loop" in note


def test_masks_are_those_of_the_seed_for_every_lr_and_whoever_is_trained_beside() -> None:
    case = CASES["batch norm and dropout"]
    both = runs_of(training(), task_of(case), "vmap_forward").train_loss
    alone = runs_of(replace(training(), seeds=(3,)), task_of(case), "vmap_forward").train_loss
    assert_allclose(both[:, 1::2], alone, rtol=1e-12)
    same = runs_of(with_lrs(training(), 0.1, 0.1), task_of(case), "vmap_forward").train_loss
    assert_allclose(same[:, :2], same[:, 2:], rtol=1e-12)
    assert (same[1:, 0] != same[1:, 1]).all()


def test_evaluation_draws_are_those_of_the_seed_whoever_is_trained_beside() -> None:
    case = Case(Sampled, F.cross_entropy, WIDE, LABELS)
    both = runs_of(training(), task_of(case), "vmap_forward")
    alone = runs_of(replace(training(), seeds=(3,)), task_of(case), "loop")
    assert_allclose(both.train_loss[:, 1::2], alone.train_loss, rtol=PLAIN)
    assert_allclose(both.valid_loss[1::2], alone.valid_loss, rtol=PLAIN)


class Augmented(Dataset[tuple[Tensor, Tensor]]):
    """Examples with noise that is drawn at each reading."""

    def __len__(self) -> int:
        return 22

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return WIDE[index] + torch.randn(3), LABELS[index]


def test_random_examples_are_those_of_the_seed_whoever_is_trained_beside() -> None:
    task = Task(lambda: nn.Linear(3, 4), F.cross_entropy, Augmented(), (WIDE, LABELS))
    both = runs_of(training(), task, "vmap_forward").train_loss
    alone = runs_of(replace(training(), seeds=(3,)), task, "loop").train_loss
    assert_allclose(both[:, 1::2], alone, rtol=PLAIN)


def test_parts_that_all_modules_share_start_anew_in_each_training() -> None:
    backbone = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))
    before = [tensor.clone() for tensor in backbone.state_dict().values()]
    task = task_of(Case(lambda: nn.Sequential(backbone, nn.Linear(5, 4)), F.cross_entropy, WIDE, LABELS))
    first, again = (runs_of(training(), task, form).train_loss for form in ("loop", "vmap_forward"))
    assert_allclose(again, first, rtol=PLAIN)
    assert all(map(torch.equal, backbone.state_dict().values(), before))


def test_torch_s_own_generator_is_left_as_it_was() -> None:
    before = torch.get_rng_state()
    _ = runs_of(training(), task_of(CASES["batch norm and dropout"]), "loop")
    assert torch.equal(before, torch.get_rng_state())


def test_evaluation_does_not_depend_on_its_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = runs_of(training(), task_of(CASES["attention"], wrong=lambda out, y: (out.argmax(-1) != y).double()), "vmap_forward")
    monkeypatch.setattr("lrscale.training.own_runs.PIECE_BYTES", 1)
    pieces = runs_of(training(), task_of(CASES["attention"], wrong=lambda out, y: (out.argmax(-1) != y).double()), "vmap_forward")
    for name in ("train_loss", "valid_loss", "valid_error"):
        assert_allclose(getattr(pieces, name), getattr(whole, name), rtol=1e-12)
    counts = int((PADDED[:9] != -100).sum())
    assert_allclose(
        whole.valid_error * counts, np.round(whole.valid_error * counts), atol=1e-9
    )  # a share of the labels that count


@pytest.mark.parametrize(
    ("loss", "y", "count"),
    [
        (lambda out, y: (1 - out[:, 0] * y).clamp(min=0), torch.where(LABELS == 0, 1, -1), 9),
        (nn.CrossEntropyLoss(ignore_index=2), LABELS, int((LABELS[:9] != 2).sum())),
    ],
)
def test_a_prediction_counts_where_its_term_does(loss: Callable[..., Any], y: Tensor, count: int) -> None:
    data = ((WIDE, y), (WIDE[:9], y[:9]))
    task = Task(lambda: nn.Linear(3, 4), loss, *data, wrong=lambda out, y: torch.ones_like(out[:, 0]))
    runs = OwnRuns(training(), task, slice(None), "loop")
    _, _, wrong, counts = runs.loop.evaluate(runs.parameters, runs.buffers, *task.valid.take(torch.arange(9)), print)
    assert (wrong == count).all() and (counts == count).all()


def test_sum_at_lr_over_c_is_mean_at_lr_bit_for_bit_where_c_is_a_power_of_two() -> None:
    task = task_of(CASES["batch norm and dropout"])
    by_mean = runs_of(training(drop_last=True), task, "vmap_forward")
    by_sum = runs_of(with_lrs(training(drop_last=True, reduction="sum"), *(lr / 4 for lr in LRS)), task, "vmap_forward")
    assert (by_mean.train_loss == by_sum.train_loss).all()


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 4))


@pytest.mark.parametrize(
    ("changes", "groups", "says"),
    [
        ({"batch_size": 1}, None, "micro-batches of 1, which the model.* ValueError: Expected more.* Take larger batches"),
        ({"batch_size": 3, "drop_last": False}, None, "`batch_size` 3 gives micro-batches of 1, which.* Take drop_last=true"),
        ({"batch_size": 3, "accumulation": 7, "drop_last": False}, None, "`batch_size` 3 gives micro-batches of 1"),
        ({}, {"weight_decoy": 0.0}, "`groups` must return factors of lr, .*, the numbers of sgd, got 'weight_decoy'"),
        ({}, {"nesterov": 0.0}, "`groups` must return factors of"),
    ],
)
def test_what_no_step_can_take_is_refused_before_a_study(changes: dict[str, Any], groups: Any, says: str) -> None:
    task = task_of(Case(normed, F.cross_entropy, WIDE, LABELS), groups=groups and (lambda name, p: groups))
    made = replace(training(), **{"drop_last": True, **changes})
    with pytest.raises(Refusal, match=says):
        _ = choose_form(made, task)
    if groups is None:
        assert choose_form(replace(made, drop_last=True, batch_size=2), task)[0] in FORMS


def test_chunks_and_memory() -> None:
    task = task_of(CASES["batch norm"])
    whole = engine.train(training(), task)
    assert engine.trials_in_memory(training(), task, Compute(memory_mb=1)) >= 1
    runs = OwnRuns(training(), task, slice(1, 2), "loop")
    assert runs.parameters[0].shape[:2] == (2, 1) and math.isfinite(whole.train_loss[-1, 0])
