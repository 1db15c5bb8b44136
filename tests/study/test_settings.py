"""Which recorded trials a study may use that asks for something else."""

from dataclasses import replace
from typing import Any

import pytest

from lrscale.study.plan import Cell, Plan, TunedInterval, Twin
from lrscale.study.records import StudyRecord, TrialRecord
from lrscale.study.settings import question_of, remarks_on_trials, settings_of, sort_trials, unequal_records
from tests import studies

LR = "optimizer.lr"
CELL = Cell("a", "sum b4", {}, {})


def make_plan(low: float = 0.01, high: float = 1, **changes: Any) -> Plan:
    return studies.make_plan([CELL], **{"intervals": {LR: TunedInterval(low, high, True)}, "n_trials": 4, **changes})


def trial(lr: float, plan: Plan, number: int = 0, cell: str = "a") -> TrialRecord:
    settings = settings_of(StudyRecord(plan, {"torch": "2.13"}), plan.cells[0])
    return TrialRecord("", cell, number, {LR: lr}, (1.0,), (False,), 0, settings=settings)


def said(plan: Plan, trials: list[TrialRecord]) -> str:
    return " ".join(remarks_on_trials(StudyRecord(plan, {"torch": "2.13"}), trials))


def test_trials_asked_as_now_are_used_and_nothing_is_said() -> None:
    plan = make_plan()
    trials = [trial(lr, plan) for lr in (0.01, 0.1, 1)]
    assert sort_trials(plan, trials) == (trials, [])
    assert said(plan, trials) == ""
    assert said(replace(plan, n_trials=8), trials) == ""  # an extension asks the same question


def test_trials_outside_are_left_out_and_those_inside_are_used() -> None:
    wide, narrow = make_plan(), make_plan(0.05, 0.5)
    trials = [trial(lr, wide) for lr in (0.01, 0.1, 1)]
    assert [t.params[LR] for t in sort_trials(narrow, trials).used] == [0.1]
    text = said(narrow, trials)
    assert "2 recorded trials outside what is asked (optimizer.lr = 0.05 to 0.5): left out." in text
    assert "1 recorded trial made in another interval, inside what is asked: used." in text


def test_a_trial_that_is_recorded_twice_counts_once_and_unequal_records_are_named() -> None:
    plan = make_plan()
    first, other = replace(trial(0.1, plan), run_id="first"), trial(1.0, plan, 1)
    equal, unequal = replace(first, run_id="equal"), replace(first, run_id="unequal", objectives=(2.0,))
    assert sort_trials(plan, [equal, other, first]) == ([first, other], [])
    assert said(plan, [equal, other, first]) == ""
    assert sort_trials(plan, [unequal, equal, other, first]) == ([first, other], [])
    named = "sum b4 lr 0.1 is recorded more than once: 1.0 in run first is used, not 2.0 in run unequal."
    assert said(plan, [unequal, equal, other, first]) == named
    assert unequal_records(plan, [unequal, equal, other, first]) == [named]


def test_the_interval_of_a_twin_is_its_own() -> None:
    by_sum = replace(CELL, twin=Twin("reference", 100, {LR: 0.01}, False))
    plan = replace(make_plan(), cells=(by_sum,))
    assert [len(part) for part in sort_trials(plan, [trial(0.001, plan), trial(0.1, plan)])] == [1, 1]


def test_a_plan_that_widens_uses_its_own_trials_outside_and_no_others() -> None:
    wide, widening = make_plan(), make_plan(1e-6, 1e-5, sampler={"name": "ladder", "widen": True})
    trials = [trial(0.1, wide), trial(0.2, widening)]
    assert sort_trials(widening, trials) == (trials[1:], trials[:1])


@pytest.mark.parametrize(
    ("changes", "made_by", "says"),
    [
        ({"sampler": {"name": "tpe"}}, "2.13", "made by another sampler, inside what is asked: used."),
        ({}, "2.12", "made with another torch, their last digits may differ: used."),
        ({"n_trials": 1}, "2.13", "more trials than n_trials = 1, up to 2: all are used"),
    ],
)
def test_what_was_made_otherwise_is_said(changes: dict[str, Any], made_by: str, says: str) -> None:
    plan = make_plan()
    text = " ".join(
        remarks_on_trials(StudyRecord(replace(plan, **changes), {"torch": made_by}), [trial(0.1, plan), trial(0.2, plan)])
    )
    assert says in text


def test_other_cells_are_in_neither_part() -> None:
    plan = make_plan()
    assert sort_trials(plan, [trial(0.1, plan, cell="other")]) == ([], [])
    assert "1 recorded trial of other settings or of an older lrscale: left out." in said(plan, [trial(0.1, plan, cell="other")])


def test_a_question_is_sampler_and_interval() -> None:
    plan = make_plan()
    one, other = (settings_of(StudyRecord(p, {}), CELL) for p in (plan, make_plan(0.02)))
    assert question_of(one) == question_of(one | {"n_trials": 9, "torch": "3"}) != question_of(other)
