"""Optimizers that are given a closure, or made anew in each step, as frameworks do."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import SGD, Optimizer

import lrscale
from tests.audit.framework_data import WINDOW, Batch, mean, network, points


class Twice(SGD):
    """An optimizer that computes the loss twice in one step."""

    def step(self, closure: Any = None) -> Any:
        closure()
        return super().step(closure)


def step_with_closure(kind: type[Optimizer], clip: bool = False) -> tuple[Callable[[list[Batch]], object], torch.nn.Module]:
    """A step as Lightning makes it: the last of its backwards, and the clip, are made by the optimizer."""
    model = network()
    optimizer = kind(model.parameters(), lr=0.1)

    def step(micro_batches: list[Batch]) -> None:
        def backward(micro_batch: Batch) -> torch.Tensor:
            loss = mean(model, micro_batch) / len(micro_batches)
            loss.backward()
            return loss

        def last() -> torch.Tensor:
            loss = backward(micro_batches[-1])
            if clip:
                torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            return loss

        optimizer.zero_grad()
        for micro_batch in micro_batches[:-1]:
            backward(micro_batch)
        optimizer.step(last)

    return step, model


@pytest.mark.parametrize("accumulation", [None, 1, WINDOW])
def test_a_closure_that_is_called_once_is_a_step_like_others(accumulation: int | None) -> None:
    step, model = step_with_closure(SGD)
    audit = lrscale.audit(step, points(), model, accumulation=accumulation, reference=lambda batch: mean(model, batch))
    assert audit.ok and not audit.findings, audit
    assert audit.numbers["c"] == pytest.approx(1)
    if accumulation == WINDOW:
        assert audit.numbers["accumulation factor"] == pytest.approx(1)


def test_a_clip_inside_a_closure_is_seen() -> None:
    step, model = step_with_closure(SGD, clip=True)
    audit = lrscale.audit(step, points(), model, accumulation=WINDOW)
    assert audit.ok and "clip" in audit.kinds, audit
    assert audit.numbers["clip threshold"] == pytest.approx(0.5)


@pytest.mark.parametrize("kind", [Twice, torch.optim.LBFGS])
def test_a_closure_that_is_called_twice_is_refused(kind: type[Optimizer]) -> None:
    step, model = step_with_closure(kind)
    audit = lrscale.audit(step, points(), model)
    assert audit.ok is None and audit.kinds == {"closure"}, audit


@pytest.mark.parametrize("count", [1, 2])
def test_optimizers_that_a_step_makes_are_counted_within_one_update(count: int) -> None:
    model = network()

    def step(micro_batches: list[Batch]) -> None:
        parts = [model] if count == 1 else [model[0], model[2]]
        optimizers = [SGD(part.parameters(), lr=0.1) for part in parts]
        model.zero_grad()
        mean(model, micro_batches[0]).backward()
        for optimizer in optimizers:
            optimizer.step()

    audit = lrscale.audit(step, points(), model)
    assert audit.ok and ("several optimizers" in audit.kinds) is (count == 2), audit


def test_hooks_that_a_step_adds_are_taken_away_again() -> None:
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)

    def step(micro_batches: list[Batch]) -> None:
        model.register_forward_hook(lambda *_: None)
        optimizer.zero_grad()
        mean(model, micro_batches[0]).backward()
        optimizer.step()

    model.register_forward_hook(lambda *_: None)
    before = OrderedDict(model._forward_hooks)
    assert lrscale.audit(step, points(), model).ok
    assert list(model._forward_hooks.items()) == list(before.items())
