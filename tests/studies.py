"""Plans and records of studies for tests: what is given, and defaults for the rest."""

from collections.abc import Iterable, Mapping
from typing import Any

from lrscale.study.plan import Cell, Plan
from lrscale.study.records import StudyRecord


def make_plan(cells: Iterable[Cell] = (), **changes: Any) -> Plan:
    settings: dict[str, Any] = {
        "study": "test",
        "intervals": {},
        "sampler": {"name": "ladder"},
        "n_trials": 1,
        "question": None,
        "law": None,
        "ranges": {},
        "claims": [],
        "command": "",
    }
    return Plan(cells=tuple(cells), **{**settings, **changes})


def make_record(cells: Iterable[Cell] = (), **changes: Any) -> StudyRecord:
    """The record of a study, run `parent` of experiment 7; changes are of its plan."""
    return StudyRecord(make_plan(cells, **changes), {}, run_id="parent", experiment_id="7", seconds=9.0)


def probe_cell(name: str, scientific: Mapping[str, Any]) -> Cell:
    """A cell that is measured by a probe, of which nothing but its name and its axes matters."""
    return Cell(name, name, scientific, {"probe": {"name": "made up"}, "objective": "excess_risk"})
