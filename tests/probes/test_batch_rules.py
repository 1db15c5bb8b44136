"""The probe of rules from one batch size to another: it finds the rule that keeps the curve, and refuses what has no curve."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lrscale.errors import Refusal
from lrscale.probes import PROBES
from lrscale.probes.batch_rules import compare_curves, measure
from lrscale.spec import Choice
from lrscale.tasks.registry import make_task
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
