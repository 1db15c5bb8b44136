"""The remarks on a table of cells: what the intervals cover, and why there is no theory."""

from typing import Any

from lrscale.study.families import CellAnswer, answer_cell
from lrscale.study.plan import Cell, TunedInterval
from lrscale.study.records import TrialRecord
from lrscale.study.remarks import coverage, theory_remarks, widening_remarks
from tests.configs import config
from tests.studies import make_plan


def cell(runs: int = 2, **changes: Any) -> CellAnswer:
    trial = TrialRecord("", "a", 0, {"optimizer.lr": 0.1}, (1.0,) * runs, (False,) * runs, 0)
    return answer_cell(Cell("a", "a", {}, config(**changes)), [trial])


def test_intervals_cover_what_differs_between_seeds() -> None:
    shared, own = cell(), cell(data_seeds="own")
    assert coverage([shared]).endswith("(order and initial weights) and the grid of lrs, not other data.")
    assert coverage([own]) == "Intervals cover seeds (data, order and initial weights) and the grid of lrs."
    assert "other data only where data_seeds is own" in coverage([shared, own])
    assert coverage([cell(1), cell(1, data_seeds="own")]).startswith("One seed was run")
    assert coverage([]) == ""


def test_lrs_outside_the_interval_are_said_where_it_may_be_left() -> None:
    inside = {"optimizer.lr": TunedInterval(0.01, 1.0, True)}
    left = {"optimizer.lr": TunedInterval(0.001, 0.01, True)}
    found = cell()
    assert widening_remarks(make_plan([found.cell], intervals=left), [found]) == []
    widening = {"sampler": {"name": "ladder", "widen": True}}
    assert widening_remarks(make_plan([found.cell], intervals=inside, **widening), [found]) == []
    (sentence,) = widening_remarks(make_plan([found.cell], intervals=left, **widening), [found])
    assert sentence == "The interval of optimizer.lr was left in 1 of 1 cells, for lrs from 0.1 to 0.1."


def test_each_reason_without_theory_is_one_sentence() -> None:
    loud = {"task": "linear", "task__noise": 100.0, "objective": "excess_risk"}
    known, lost, other = cell(), cell(**loud), cell(optimizer="adam")
    assert theory_remarks([known, known]) == []
    (sentence,) = theory_remarks([lost, lost])
    assert sentence == f"No theory: {lost.theory_note}" and "noise 100" in sentence
    partly = theory_remarks([known, lost, other, other])
    assert [line.partition(":")[0] for line in partly] == ["No theory in 1 of 4 cells", "No theory in 2 of 4 cells"]
