"""Steps that add to the gradient by themselves, or normalise it: their loss is judged as it would be without."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import lrscale
from tests.cases import points

CHANGES: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "decay": lambda gradient, weight: gradient.add_(weight.detach(), alpha=0.1),
    "noise": lambda gradient, weight: gradient.add_(0.01 * torch.randn_like(weight)),
    "norm": lambda gradient, weight: gradient.div_(gradient.norm() + 1e-8),
    "sign": lambda gradient, weight: gradient.sign_(),
}
"""What is done to the gradient of each weight after the last backward."""
WEIGHTS = torch.tensor([1.0, 5.0, 20.0])
"""Weights of the classes."""


def audited(change: str, k: int = 4, divided: bool = True, by_hand: bool = False, **options: Any) -> lrscale.Audit:
    """Audits a step that changes its gradients before the update."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    if "weight" in options:
        options["weight"] = options["weight"].double()

    def step(micros: list[Any]) -> None:
        model.zero_grad()
        for micro in micros:
            loss = F.cross_entropy(model(micro["x"]), micro["y"], **options)
            (loss / (len(micros) if divided else 1)).backward()
        for parameter in model.parameters():
            assert parameter.grad is not None
            CHANGES[change](parameter.grad, parameter)
            if by_hand:
                parameter.data -= 0.1 * parameter.grad
        if not by_hand:
            optimizer.step()

    return lrscale.audit(step, points(0, torch.float32), model, accumulation=k)


@pytest.mark.parametrize("change", CHANGES)
def test_a_right_step_is_not_blamed(change: str) -> None:
    audit = audited(change)
    said = {"added by the step"} if change in ("decay", "noise") else {"normalised"}
    assert audit.ok and audit.kinds == said, audit
    assert audit.numbers["growth"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("change", CHANGES)
def test_a_mean_of_means_is_found_with_the_share_that_is_off(change: str) -> None:
    audit = audited(change, 2, weight=WEIGHTS)
    assert "mean of means" in audit.kinds and audit.ok is False, audit
    assert audit.numbers["unlike micro-batches apart from their whole"] > 0.3


@pytest.mark.parametrize(("change", "by_hand"), [("decay", False), ("noise", False), ("decay", True)])
def test_what_is_added_does_not_hide_how_the_loss_is_summed(change: str, by_hand: bool) -> None:
    summed = audited(change, 1, by_hand=by_hand, reduction="sum")
    assert summed.kinds == {"sum", "added by the step"} and summed.numbers["growth"] == pytest.approx(1), summed
    assert "clip threshold" not in summed.numbers
    assert audited(change, divided=False, by_hand=by_hand).kinds == {"grows with the window", "added by the step"}


def test_the_size_is_not_blamed_where_it_does_not_reach_the_optimizer() -> None:
    audit = audited("norm", 1, reduction="sum")
    assert audit.ok and audit.kinds == {"normalised"} and audit.numbers["p"] == pytest.approx(0, abs=1e-4), audit
