"""What a trial was asked under, and which recorded trials a study may use that asks for something else.

A cell's id is a hash of all that its training depends on, and of the version of the numbers. So trials of another training
are never found under a cell. What is left to compare is how the trials were chosen: interval, scale, sampler.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lrscale.provenance import NUMBERS
from lrscale.study.plan import Cell, Plan
from lrscale.study.records import StudyRecord, TrialRecord

LEEWAY = 1e-6
"""How far beyond an interval, relatively, a trial may lie: lattice points and factors are rounded."""


class Sorted(NamedTuple):
    """The recorded trials of a plan's cells: those that lie inside what the plan asks for, and those that are left out."""

    used: list[TrialRecord]
    left_out: list[TrialRecord]


def settings_of(study: StudyRecord, cell: Cell) -> dict[str, Any]:
    """Returns what a trial of a cell is asked under, as plain values."""
    intervals = {key: study.plan.interval_of(cell, key) for key in study.plan.intervals}
    return {
        "sampler": dict(study.plan.sampler),
        "n_trials": study.plan.n_trials,
        "intervals": {key: [i.low, i.high, i.log] for key, i in intervals.items()},
        "numbers": NUMBERS,
        "torch": study.made_by.get("torch", ""),
    }


def sort_trials(plan: Plan, trials: Iterable[TrialRecord]) -> Sorted:
    """Sorts the recorded trials of a plan's cells; trials of other cells are in neither part."""
    cells = {cell.id: cell for cell in plan.cells}
    found = Sorted([], [])
    for trial in trials:
        if trial.cell in cells:
            (found.used if _is_inside(plan, cells[trial.cell], trial.params) else found.left_out).append(trial)
    return found


def remarks_on_trials(study: StudyRecord, trials: Sequence[TrialRecord]) -> list[str]:
    """Returns a sentence for each kind of recorded trials that were made otherwise: how many, and what becomes of them."""
    plan, found = study.plan, sort_trials(study.plan, trials)
    cells = {cell.id: cell for cell in plan.cells}
    remarks = [left_out_remark(plan, len(found.left_out))] if found.left_out else []
    asked = {cell.id: settings_of(study, cell) for cell in plan.cells}
    for key, what in (("intervals", "in another interval"), ("sampler", "by another sampler"), ("torch", "with another torch")):
        others = [t for t in found.used if t.settings and t.settings.get(key) != asked[t.cell][key]]
        if others:
            digits = ", and may differ in the last digits" if key == "torch" else ", and lie inside what is asked"
            remarks.append(f"{len(others)} recorded trials were made {what}{digits}: they are used.")
    elsewhere = sum(trial.cell not in cells for trial in trials)
    if elsewhere:
        remarks.append(f"{elsewhere} recorded trials belong to other settings or to an older lrscale: they are left out.")
    return remarks


def left_out_remark(plan: Plan, count: int) -> str:
    """Returns a sentence on trials that are left out."""
    intervals = ", ".join(f"{key} = {i.low:g} to {i.high:g}" for key, i in plan.intervals.items())
    return f"{count} recorded trials lie outside what is asked ({intervals or 'nothing is tuned'}): they are left out."


def _is_inside(plan: Plan, cell: Cell, params: Mapping[str, float]) -> bool:
    """Returns whether a plan could have asked for these hyperparameters."""
    if set(params) != set(plan.intervals):
        return False
    if plan.sampler.get("widen"):
        return True
    slack = {key: LEEWAY * abs(params[key]) for key in params}
    intervals = {key: plan.interval_of(cell, key) for key in params}
    return all(i.low - slack[key] <= params[key] <= i.high + slack[key] for key, i in intervals.items())
