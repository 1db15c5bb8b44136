"""Evidence is of the same optimizer, over both batch sizes, and never from what does not hold."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from numpy.testing import assert_allclose

from lrscale.law.evidence import MODELS, RULE_EVIDENCE, RuleEvidence, find_evidence, find_rule_evidence
from lrscale.law.translation import Batch, translate
from lrscale.report.translation import published
from tests.configs import ROOT


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


def line(reduction: str, low: int | None, high: int | None, slope: float) -> dict[str, Any]:
    return {"of": {}, "reduction": reduction, "low": low, "high": high, "slope": slope, "ci": [slope - 0.1, slope + 0.2]}


REPORT = {
    "objective": "train_loss",
    "cells": [{"batch_size": 1}, {"batch_size": 16}, {"batch_size": 512}],
    "ratios": [{"of": {}, "expected": -1}],
    "slopes": [line("sum", 1, 16, 0.0), line("sum", None, None, -0.5), {**line("sum", 300, 400, 0.0), "slope": None, "ci": None}],
    "turn_over": [{"of": {}, "b_c": 100.0, "ci": [50.0, 200.0]}],
}


def test_a_published_study_speaks_where_it_measured() -> None:
    found = translate("sgd", 0.1, Batch("mean", 32), Batch("sum", 256), reports={"made_up": REPORT})
    slope, turn = found.evidence
    assert_allclose(slope.value, [0.5, 0.4, 0.7])
    assert_allclose(slope.lr, [0.1 * 8**power / 256 for power in (0.5, 0.4, 0.7)])
    assert_allclose(turn.value, [100, 50, 200])
    assert_allclose(turn.lr, [0.1 / 32 * (32 + b) / (256 + b) for b in (100, 50, 200)])
    assert not translate("adam", 0.1, Batch("mean", 32), Batch("sum", 256), reports={"made_up": REPORT}).evidence
    assert not translate("sgd", 0.1, Batch("mean", 32), Batch("sum", 1024), reports={"made_up": REPORT}).evidence


def test_of_several_ranges_the_narrowest_that_holds_both_batch_sizes_speaks() -> None:
    found = translate("sgd", 0.1, Batch("mean", 2), Batch("mean", 8), reports={"made_up": REPORT})
    assert_allclose(found.evidence[0].value[0], 1)
    assert found.evidence[0].conditions.startswith("B 1 to 16")


def test_published_studies_are_read_from_their_folder(tmp_path: Path) -> None:
    (tmp_path / "made_up").mkdir()
    (tmp_path / "made_up" / "report.json").write_text(json.dumps(REPORT))
    assert published(tmp_path) == {"made_up": REPORT}
    assert published(tmp_path / "nosuch") == {}


def test_a_law_that_does_not_hold_is_not_quoted() -> None:
    for verdict in ("fails", "cannot tell"):
        report = {**REPORT, **{k: [row | {"verdict": verdict} for row in REPORT[k]] for k in ("slopes", "turn_over")}}
        assert not translate("sgd", 0.1, Batch("mean", 32), Batch("sum", 256), reports={"made_up": report}).evidence


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "lion"])
@pytest.mark.parametrize("verdict", ["holds", "fails", "cannot tell"])
def test_a_study_is_quoted_with_the_outcome_it_had(optimizer: str, verdict: str) -> None:
    reports: dict[str, Any] = {e.study: {"claims": []} for e in RULE_EVIDENCE}
    for e in RULE_EVIDENCE:
        reports[e.study]["claims"].append({"name": e.claim, "verdict": verdict})
    for rule in ("linear", "square root"):
        found = find_rule_evidence(reports, optimizer, {"momentum": 0.9, "weight_decay": 0.1}, rule)
        fits = [e for e in RULE_EVIDENCE if optimizer in e.optimizers and e.rule == rule]
        assert list(found) == [e for e in fits if e.verdict == verdict]
        bare = find_rule_evidence(reports, optimizer, {"momentum": 0.0}, rule)
        assert list(bare) == [e for e in found if not e.knob]


@pytest.mark.parametrize("quoted", RULE_EVIDENCE, ids=lambda e: e.says[:40])
def test_each_quoted_claim_is_one_of_its_study(quoted: RuleEvidence) -> None:
    study = yaml.safe_load((ROOT / "sweeps" / f"{quoted.study}.yaml").read_text())["study"]
    assert any(
        quoted.claim in (c["name"], f"{c['name']} ({'/'.join(map(str, (c.get('where') or {}).values()))})")
        for c in study["claims"]
    )
