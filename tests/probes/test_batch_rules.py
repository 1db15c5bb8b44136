"""The probe of rules from one batch size to another: it finds the rule that keeps the curve, and refuses what has no curve."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from lrscale.errors import Refusal
from lrscale.probes import PROBES
from lrscale.probes.batch_rules import compare_curves, measure
from lrscale.spec import Choice
from lrscale.tasks.own import Task
from lrscale.tasks.registry import make_task
from lrscale.training.engine import recording_steps
from lrscale.training.minibatches import batch_order
from lrscale.training.quantity import Quantity
from tests.configs import make

NOISY: dict[str, Any] = {
    "task": "linear",
    "task__features": 16,
    "task__noise": 20.0,
    "task__examples": 16384,
    "batch_size": 4,
    "budget__epochs": 1,
    "seeds": 48,
    "objective": "population_risk",
    "optimizer__lr": 0.004,
    "probe": {"name": "batch_rules", "factor": 8},
}


def measured(**changes: Any) -> dict[str, Quantity]:
    made = make(**NOISY | changes)
    return {quantity.name: quantity for quantity in measure(made, make_task(made))}


@pytest.mark.parametrize(("optimizer", "right", "wrong"), [("sgd", "linear", "square root"), ("adam", "square root", "linear")])
def test_the_right_rule_keeps_the_curve(optimizer: str, right: str, wrong: str) -> None:
    found = measured(optimizer=optimizer)
    assert found[right].value < 0.25 and found["recommended"].value < 0.25
    for name in (wrong, "constant lr"):
        low = found[name].low
        assert low is not None and low > 2 * max(found[right].value, found["recommended"].value)


def test_the_decay_of_adamw_must_change_with_its_lr() -> None:
    found = measured(optimizer="adamw", optimizer__weight_decay=0.5)
    low, high = found["weight_decay left alone"].low, found["recommended"].high
    assert low is not None and high is not None and low > 2 * high


def test_curves_are_compared_at_equal_examples() -> None:
    few, many = np.geomspace(2, 1000, 50), np.geomspace(16, 1000, 7)
    small = np.stack([3 / few, 5 / few])
    for factor, distance in ((1.0, 0.0), (np.exp(0.3), 0.3), (np.exp(-0.3), 0.3)):
        found = compare_curves("x", (few, small), (many, np.stack([3 / many, 5 / many]) * factor))
        assert found is not None and found.value == pytest.approx(distance, abs=1e-9)
    assert compare_curves("x", (few, small), (many, np.full((2, 7), np.inf))) is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"reduction": "sum"}, "`reduction` must be mean"),
        ({"budget": "steps"}, "`budget` must be epochs"),
        ({"objective": "valid_loss"}, "`objective` must be one of"),
        ({"batch_size": 4096}, "`probe.factor` x batch_size must be at most"),
    ],
)
def test_what_has_no_curve_or_rule_is_refused(changes: dict[str, Any], says: str) -> None:
    without = {key: value for key, value in NOISY.items() if not (key.startswith("budget") and "budget" in changes)}
    with pytest.raises(Refusal, match=says):
        make(**without | changes)


def test_an_optimizer_without_a_rule_is_refused() -> None:
    made = make(**NOISY)
    with pytest.raises(Refusal, match="needs an optimizer that lrscale translate knows, got Lion"):
        PROBES["batch_rules"].check(replace(made, optimizer=Choice("Lion", {"lr": (0.1,)})))


def uneven() -> tuple[Task, torch.Tensor, torch.Tensor]:
    """Noisy least squares on up to four terms an example: which of them count, and their errors, follow from the targets."""
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(512, 4, generator=draws, dtype=torch.float64)
    y = 2 + 3 * torch.randn(512, 4, generator=draws, dtype=torch.float64)
    y[torch.rand(512, 4, generator=draws) < 0.4] = torch.nan
    y[:, 0] = y[:, 0].nan_to_num(2.0)

    def terms(out: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        counts = targets.isfinite()
        return (out - targets.nan_to_num()).square() / 2, counts

    def model() -> nn.Module:
        module = nn.Linear(4, 4, dtype=torch.float64)
        nn.init.zeros_(module.weight)
        nn.init.zeros_(module.bias)
        return module

    return Task(model, terms, (x, y), (x[:8], y[:8])), x, y


def test_a_users_task_with_uneven_terms_has_the_curve_of_a_plain_loop() -> None:
    task, x, y = uneven()
    linear = make(**NOISY | {"optimizer": "sgd", "optimizer__lr": 0.01, "batch_size": 2, "seeds": 3, "objective": "train_loss"})
    made = replace(linear, examples=512, task=Choice("mine", {"form": "loop"}), points=9)
    found = {quantity.name: quantity.value for quantity in measure(made, task)}

    def curve(size: int, lr: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        lines = []
        for seed in made.seeds:
            weight, bias = torch.zeros(4, 4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
            order, line = batch_order(seed, 0, 512), []
            for rows in order.split(size):
                counts, targets = y[rows].isfinite(), y[rows].nan_to_num()
                errors = torch.where(counts, x[rows] @ weight.T + bias - targets, 0) / counts.sum()
                weight, bias = weight - lr * errors.T @ x[rows], bias - lr * errors.sum(0)
                whole = torch.where(y.isfinite(), (x @ weight.T + bias - y.nan_to_num()).square() / 2, 0)
                line.append(float(whole.sum() / y.isfinite().sum()))
            lines.append(line)
        steps = recording_steps(replace(made, batch_size=size))[1:]
        return np.array(steps) * float(size), np.array(lines)[:, [step - 1 for step in steps]]

    before = curve(2, 0.01)
    for name, lr in (("linear", 0.08), ("square root", 0.01 * 8**0.5), ("constant lr", 0.01)):
        plain = compare_curves(name, before, curve(16, lr))
        assert plain is not None and found[name] == pytest.approx(plain.value, rel=1e-9)
    assert found["recommended"] == found["linear"] < found["constant lr"] / 4
