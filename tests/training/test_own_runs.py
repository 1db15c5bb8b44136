"""Runs of a user's task: each form against a plain loop of torch.optim, module by module, loss by loss."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor, nn
from torch.nn import functional as F

from lrscale.errors import Refusal
from lrscale.spec import Compute, Training
from lrscale.streams import generator
from lrscale.tasks.own import Task, called
from lrscale.tasks.rows import mapped
from lrscale.training import engine
from lrscale.training.forms import FORMS
from lrscale.training.minibatches import batch_order
from lrscale.training.own_runs import OwnRuns, choose_form
from tests.loops import CLASSES
from tests.training.own_models import (
    CASES,
    LABELS,
    LRS,
    PADDED,
    REFUSED,
    WIDE,
    Augmented,
    Case,
    Jumpy,
    Sampled,
    normed,
    task_of,
    training,
)

PLAIN = 1e-10  # float64; sums are taken in another order


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
