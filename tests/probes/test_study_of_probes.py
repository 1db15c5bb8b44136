"""Probes: what is measured in a cell is recorded, reported, held against claims and kept over a restart."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lrscale import probes
from lrscale.probes import PROBES, Probe
from lrscale.published.files import tables
from lrscale.report.json import as_json
from lrscale.rules import integer
from lrscale.spec import Option, Training
from lrscale.study.answer import answer_of
from lrscale.study.families import Measurement
from lrscale.study.measures import PROBE_MEASURES
from lrscale.study.statements import laws
from lrscale.tasks.built_in import BuiltInTask
from lrscale.tracking.store import Store
from lrscale.training.quantity import Quantity
from tests.configs import ROOT
from tests.program import here
from tests.studies import make_record, probe_cell

CLAIMS = """\
# @package _global_
probe: {name: doubled, number: 1}
hydra:
  mode: MULTIRUN
  sweeper:
    params:
      probe.number: 1,2,4
      batch_size: 8,16
study:
  question: Is twice a number twice as much?
  claims:
    - {name: it is, measure: deviation, quantity: twice, expected: 0, tolerance: 0.2}
    - {name: it grows as the number, measure: slope_of, quantity: twice, against: probe.number, expected: 1}
    - {name: it is large, measure: least, quantity: twice, where: {batch_size: 16}, at_least: 3}
"""


def doubled(training: Training, task: BuiltInTask) -> list[Quantity]:
    assert training.probe is not None
    number = training.probe.options["number"]
    return [Quantity("twice", 2.0 * number, 2.0 * number - 0.1, 2.0 * number + 0.1, expected=2.0 * number)]


def declare(monkeypatch: pytest.MonkeyPatch, measure: Callable[[Training, BuiltInTask], list[Quantity]]) -> None:
    options = {"number": Option(1, integer(1, 100))}
    monkeypatch.setitem(PROBES._declared, "doubled", Probe(about="Twice a number.", options=options, measure=measure))


@pytest.fixture
def study(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a probe and a sweep of its own."""
    declare(monkeypatch, doubled)
    (folder / "sweeps").mkdir()
    (folder / "sweeps/double.yaml").write_text(CLAIMS)
    return folder


def test_a_published_probe_reproduces(study: Path) -> None:
    here(study, "run", "-m", "sweeps=double")
    here(study, "publish", "double")
    results = study / "sweeps" / "results" / "double"
    assert (results / "quantities.csv").read_text().splitlines()[1] == "1,8,number1 b8,twice,2.0,1.9,2.1,2.0"
    assert not (results / "trials.csv").exists() and (results / "figure.svg").stat().st_size < 150_000
    assert "reproduced double" in here(study, "reproduce", "double")
    report = json.loads((results / "report.json").read_text())
    report["quantities"][0]["value"] += 1e-12
    (results / "report.json").write_text(json.dumps(report))
    said = here(study, "reproduce", "double", status=2)
    assert "quantities.csv must hold the numbers of report.json" in " ".join(said.split())
    (results / "quantities.csv").write_text(tables(report)["quantities.csv"])
    assert "1 differences" in here(study, "reproduce", "double", status=1)


def test_what_is_measured_is_recorded_and_claims_are_held_against_it(study: Path) -> None:
    said = here(study, "run", "-m", "sweeps=double")
    found = json.loads(here(study, "report", "double", "--format", "json"))
    assert [(q["probe.number"], q["value"], q["expected"]) for q in found["quantities"][::2]] == [(1, 2, 2), (2, 4, 4), (4, 8, 8)]
    assert [claim["verdict"] for claim in found["claims"]] == ["holds", "holds", "fails"]
    assert found["law"] == [
        "2 of 3 claims hold, 1 fails, over 6 cells. It is: within 0 [0, 0.1] (twice). "
        "It grows as the number: 1 (exponent of twice). "
        "It is large: 2.00 [1.90, 2.10] (smallest twice) (fails)."
    ]
    assert found["law"][0] in " ".join(said.split())
    assert "2 [1.9, 2.1]" in said and ">= 3" in said and "fails" in said
    assert (study / "studies/double/figures/quantities.png").stat().st_size > 10_000
    assert "twice" in here(study, "report", "double", "--format", "html")
    store = Store("sqlite:///mlflow.db")
    experiment = store.experiment("double")
    runs = store.client.search_runs([experiment], "tags.`lrscale.kind` = 'trial'", order_by=["metrics.place ASC"])
    assert [run.info.run_name for run in runs] == [f"number{n} b{b}" for n in (1, 2, 4) for b in (8, 16)]


def test_a_finished_probe_is_not_measured_again(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here(study, "run", "-m", "sweeps=double")
    declare(monkeypatch, lambda training, task: pytest.fail("measured again"))
    assert "2 of 3 claims hold" in " ".join(here(study, "run", "-m", "sweeps=double").split())


def test_claims_that_select_by_an_axis_narrowed_to_one_value_cannot_be_told(study: Path) -> None:
    said = here(study, "run", "-m", "sweeps=double", "probe.number=2", "batch_size=8,16")
    assert "2 of 3 claims hold, 1 cannot be told, over 2 cells." in " ".join(said.split())
    assert "it selects by probe.number, which this study does not vary" in " ".join(said.split())


def test_one_cell_alone_is_printed(folder: Path) -> None:
    assert "p_first 1, expected 1" in here(folder, "run", "probe=homogeneity", "probe.optimizer=sgd")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("quantity: twice, expected: 0, tolerance: 0.2", "expected: 0", "`study.claims[0].quantity` must name a quantity"),
        ("against: probe.number", "against: probe.other", "must select by axes of the study (probe.number, batch_size)"),
        ("{batch_size: 16}", "[16]", "`study.claims[2].where` must give values of axes"),
        ("at_least: 3", "tolerance: 3", "`study.claims[2]` must have a bound"),
        ("measure: least", "measure: theory", "`study.claims[2].measure` must be one of deviation"),
        ("probe.number: 1,2,4", "probe.number: 0,2", "`probe.number` must be a whole number from 1 to 100, got 0"),
        ("name: doubled", "name: trebled", "`probe.name` must be one of"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(old: str, new: str, says: str, study: Path) -> None:
    sweep = study / "sweeps/double.yaml"
    assert old in sweep.read_text()
    sweep.write_text(sweep.read_text().replace(old, new))
    said = here(study, "run", "-m", "sweeps=double", status=2)
    assert says in said and len(said.splitlines()) == 1
    assert not (study / "optuna.journal").exists()


def measured(*values: float, expected: float | None = None, wide: float = 0.0) -> list[Measurement]:
    return [
        Measurement(probe_cell(f"b{2**i}", {"batch_size": 2**i}), Quantity("x", v, v - wide, v + wide, expected=expected))
        for i, v in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("measure", "found", "value"),
    [
        ("deviation", measured(1, 2, 4, expected=2), 2),
        ("log_deviation", measured(1, 2, 8, expected=2), pytest.approx(1.3863, abs=1e-4)),
        ("log_deviation", measured(-1, expected=2), float("inf")),
        ("least", measured(3, 1, 2), 1),
        ("largest", measured(3, 1, 2), 3),
        ("coverage", measured(1, 2, 3, 4, expected=2, wide=0.5), 0.25),
        ("slope_of", measured(3, 12, 48), pytest.approx(2)),
    ],
)
def test_measures(measure: str, found: list[Measurement], value: float) -> None:
    interval = PROBE_MEASURES[measure](found, {"against": "batch_size"})
    assert interval is not None and interval.value == value


def test_a_slope_leaves_out_what_has_no_logarithm() -> None:
    measurements = [
        Measurement(probe_cell(f"b{b}", {"b": b}), Quantity("x", v)) for b, v in ((0, 5.0), (1, 3.0), (2, 6.0), (4, 12.0))
    ]
    interval = PROBE_MEASURES["slope_of"](measurements, {"against": "b"})
    assert interval is not None and interval.value == pytest.approx(1)


def test_a_study_without_claims_says_so() -> None:
    measurements = (Measurement(probe_cell("b1", {"b": 1}), Quantity("x", 1.0)),)
    [said] = laws(answer_of(make_record([m.cell for m in measurements]), (), measurements))
    assert said == "The study makes no claims; its cells show what was measured."


def test_the_answer_says_how_what_was_measured_goes_with_what_is_expected() -> None:
    pairs = ((1, 1.0), (2, 2.02), (4, 4.0), (8, 8.0))
    found = tuple(Measurement(probe_cell(f"b{b}", {"b": b}), Quantity("c", v, expected=float(b))) for b, v in pairs)
    claims = [{"name": "c is B", "measure": "log_deviation", "quantity": "c", "at_most": 0.02}]
    [said] = laws(answer_of(make_record([m.cell for m in found], claims=claims), (), found))
    assert said == "1 of 1 claims hold, over 4 cells. C is B: within 1 % (c), measured = expected^0.999 [0.982, 1.015]."


@pytest.mark.parametrize("measure", PROBE_MEASURES)
def test_a_claim_on_nothing_cannot_be_told(measure: str) -> None:
    assert PROBE_MEASURES[measure]([], {"against": "batch_size"}) is None
    claim = {"name": "c is B", "measure": measure, "quantity": "c", "against": "batch_size", "at_least": 0.0}
    of_another = measured(1, 2)
    study = make_record([m.cell for m in of_another], claims=[claim])
    [said] = laws(answer_of(study, (), tuple(of_another)))
    assert said.startswith("0 of 1 claims hold, 1 cannot be told, over 2 cells. C is B: cannot tell: ")


def test_an_infinite_deviation_fails_and_is_no_number_of_json() -> None:
    claim = {"name": "x is 2", "measure": "log_deviation", "quantity": "x", "at_most": 1}
    found = measured(-1, expected=2)
    document = as_json(answer_of(make_record([m.cell for m in found], claims=[claim]), (), tuple(found)))
    json.dumps(document, allow_nan=False)
    [told] = document["claims"]
    assert (
        told["verdict"] == "fails"
        and told["measured"] is None
        and "x is 2: within inf % (x) (fails)" in document["law"][0].lower()
    )


def test_a_slope_through_two_points_has_no_interval_and_cannot_be_told() -> None:
    claim = {"name": "x grows", "measure": "slope_of", "quantity": "x", "against": "batch_size", "expected": 1, "tolerance": 0.1}
    found = measured(1, 2)
    [verdict] = answer_of(make_record([m.cell for m in found], claims=[claim]), (), tuple(found)).verdicts
    assert (verdict.verdict, verdict.reason) == ("cannot tell", "too few cells were measured")
    found = measured(1, 2, 4)
    [verdict] = answer_of(make_record([m.cell for m in found], claims=[claim]), (), tuple(found)).verdicts
    assert verdict.verdict == "holds"


def test_every_probe_has_rules_options_and_a_sweep() -> None:
    modules = {path.stem for path in Path(probes.__file__).parent.glob("[!_]*.py")}
    assert set(PROBES.names()) == set(PROBES.choices()) == modules
    for name in PROBES.names():
        options = PROBES[name].options
        assert options and all(option.rule.holds(option.default) and option.rule.text for option in options.values())
        sweep = yaml.safe_load((ROOT / "sweeps" / f"{name}.yaml").read_text())
        assert {"override /probe": name} in sweep["defaults"]
