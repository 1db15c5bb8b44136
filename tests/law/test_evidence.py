"""Evidence is of the same optimizer, over both batch sizes, and never from what does not hold."""

from typing import Any

import pytest

from lrscale.law.evidence import MODELS, find_evidence
from lrscale.law.translation import Batch, translate


def report(optimizer: str | None, p: int = 1, objective: str = "train_loss", **changes: Any) -> dict[str, Any]:
    of = {} if optimizer is None else {"optimizer": optimizer}
    slope = {"of": of, "reduction": "mean", "range": "all", "low": None, "high": None, "slope": 0.5, "ci": [0.4, 0.6]}
    turn = {"of": of, "b_c": 50.0, "ci": [40.0, 60.0], "at_bound": False, "verdict": "holds"}
    made = {
        "objective": objective,
        "cells": [{"batch_size": size} for size in (4, 512)],
        "ratios": [{"of": of, "expected": -p}],
        "slopes": [slope],
        "turn_over": [turn],
    }
    for key, change in changes.items():
        made[key][0].update(change)
    return made


def found(optimizer: str, knobs: dict[str, float], made: dict[str, Any]) -> list[str]:
    return [e.measure for e in find_evidence({"study": made}, optimizer, knobs, "network", 32, 256, 0.1, 1.0)]


@pytest.mark.parametrize(
    ("optimizer", "knobs", "of", "p", "is_quoted"),
    [
        ("sgd", {}, "sgd", 1, True),
        ("sgd", {}, None, 1, True),
        ("sgd", {}, "momentum", 1, False),
        ("sgd", {"momentum": 0.9}, "momentum", 1, True),
        ("sgd", {"momentum": 0.9}, None, 1, False),
        ("adamw", {}, "adam", 0, True),
        ("adamw", {}, "rmsprop", 0, False),
        ("adam", {}, None, 0, False),
        ("lion", {}, "adam", 0, False),
    ],
)
def test_evidence_is_of_the_same_optimizer(
    optimizer: str, knobs: dict[str, float], of: str | None, p: int, is_quoted: bool
) -> None:
    assert ("slope" in found(optimizer, knobs, report(of, p))) is is_quoted


@pytest.mark.parametrize("change", [{"verdict": "fails"}, {"verdict": "cannot tell"}, {"at_bound": True}, {"ci": None}])
def test_a_turn_over_that_does_not_hold_is_not_quoted(change: dict[str, Any]) -> None:
    assert found("sgd", {}, report(None)) == ["slope", "b_c"]
    assert found("sgd", {}, report(None, turn_over=change)) == ["slope"]


@pytest.mark.parametrize(("objective", "model"), [("excess_risk", "least_squares"), ("train_loss", "network")])
def test_evidence_is_of_the_same_kind_of_model(objective: str, model: str) -> None:
    for asked in MODELS:
        quoted = find_evidence({"s": report(None, objective=objective)}, "sgd", {}, asked, 32, 256, 0.1, 1.0)
        assert bool(quoted) is (asked == model)


def test_a_slope_that_two_rules_fit_is_not_quoted() -> None:
    assert found("sgd", {}, report(None, slopes={"ci": [0.4, 1.1]})) == ["b_c"]
    assert found("sgd", {}, report(None, slopes={"ci": [0.51, 1.1]})) == ["slope", "b_c"]


@pytest.mark.parametrize(("after", "b_crit"), [(128, None), (256, None), (128, 100.0)])
def test_decoupled_decay_keeps_its_timescale(after: int, b_crit: float | None) -> None:
    knobs = {"weight_decay": 0.1}
    answer = translate("adamw", 1e-3, Batch(size=32), Batch(size=after), knobs, b_crit=b_crit).answer
    now = {knob.name: knob.after for knob in answer.knobs}
    steps = 32 / after  # over the same examples
    assert now["lr"] * now["weight_decay"] * steps == pytest.approx(1e-3 * 0.1)
