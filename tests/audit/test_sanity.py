"""Steps that cannot be audited as they stand: each is told why in a true sentence, and no number is made up."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import lrscale
from lrscale.errors import Refusal
from tests.cases import points

Step = Callable[[list[Any]], None]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))


def loss_of(model: nn.Module, micro: Any) -> Tensor:
    return F.cross_entropy(model(micro["x"]), micro["y"])


def looped(model: nn.Module, optimizer: torch.optim.Optimizer | None, loss: Callable[[nn.Module, Any], Tensor] = loss_of) -> Step:
    """One backward for each micro-batch, and one update where there is an optimizer."""

    def step(micros: list[Any]) -> None:
        model.zero_grad()
        for micro in micros:
            (loss(model, micro) / len(micros)).backward()
        if optimizer is not None:
            optimizer.step()

    return step


class Counting:
    """A step that counts its micro-batches itself, and updates after each fourth one."""

    def __init__(self, divisor: int) -> None:
        self.model, self.seen, self.divisor = network(), 0, divisor
        self.optimizer = torch.optim.Adam(self.model.parameters())

    def __call__(self, micros: list[Any]) -> None:
        for micro in micros:
            (loss_of(self.model, micro) / self.divisor).backward()
            self.seen += 1
            if self.seen % 4 == 0:
                self.optimizer.step()
                self.optimizer.zero_grad()


@pytest.mark.parametrize(("divisor", "kinds"), [(4, set()), (1, {"c"})])
def test_a_step_that_counts_its_micro_batches_gets_as_many_as_it_needs(divisor: int, kinds: set[str]) -> None:
    step = Counting(divisor)
    audit = lrscale.audit(
        step, points(0, torch.float32), step.model, accumulation=4, reference=lambda batch: loss_of(step.model, batch)
    )
    assert audit.kinds == kinds and audit.numbers["c"] == pytest.approx(4 / divisor), audit
    assert step.seen == 0


@pytest.mark.parametrize("accumulation", [None, 2])
def test_a_step_that_makes_no_update_has_no_growth(accumulation: int | None) -> None:
    model = network()
    audit = lrscale.audit(looped(model, None), points(0, torch.float32), model, accumulation=accumulation)
    assert audit.ok is None and audit.kinds == {"no update"}, audit


def test_a_gradient_that_is_not_finite_is_no_growth() -> None:
    model, batch = network(), points(0, torch.float32)
    batch["x"][1] = torch.nan
    audit = lrscale.audit(looped(model, torch.optim.SGD(model.parameters(), lr=0.1)), batch, model)
    assert audit.ok is None and audit.kinds == {"not finite"} and audit.runs == 1, audit


def test_a_gradient_that_no_backward_brings_is_not_blamed_on_the_model() -> None:
    model = network()

    def step(micros: list[Any]) -> None:
        gradients = torch.autograd.grad(loss_of(model, micros[0]), list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter -= 0.1 * gradient

    audit = lrscale.audit(step, points(0, torch.float32), model)
    assert audit.ok is None and audit.kinds == {"no gradient"}, audit
    assert "torch.autograd.grad" in audit.findings[0].sentence


def test_float16_weights_are_refused_and_not_blamed() -> None:
    model = network().half()
    step = looped(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        lambda model, micro: F.cross_entropy(model(micro["x"].half()), micro["y"]),
    )
    audit = lrscale.audit(step, points(0, torch.float16), model)
    assert audit.ok is None and "float16" in audit.kinds, audit


def test_a_fixed_batch_size_is_refused_in_a_line_and_other_errors_stay_what_they_are() -> None:
    model = network()
    batch = {"x": torch.randn(8, 5), "y": torch.arange(8) % 3}

    def fixed(model: nn.Module, micro: Any) -> Tensor:
        return F.cross_entropy(model(micro["x"]).view(8, 3), micro["y"])

    def broken(model: nn.Module, micro: Any) -> Tensor:
        raise RuntimeError("out of paper")

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(Refusal, match=r"`step` must run on batches made of 1 to 24 .* got RuntimeError: shape '\[8, 3\]'"):
        lrscale.audit(looped(model, optimizer, fixed), batch, model)
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    with pytest.raises(RuntimeError, match=r"^out of paper$"):
        lrscale.audit(looped(model, optimizer, broken), batch, model)


def test_an_option_of_the_optimizer_that_is_none_stays_none() -> None:
    model = network()
    audit = lrscale.audit(looped(model, torch.optim.Adafactor(model.parameters())), points(0, torch.float32), model)
    assert audit.ok and audit.numbers["groups"][0]["eps"][0] is None, audit
