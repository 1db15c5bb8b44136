"""What a trial was asked under, and which recorded trials a study may use that asks for something else.

A cell's id is a hash of all that its training depends on, and of the version of the numbers. So trials of another training
are never found under a cell. What is left to compare is how the trials were chosen: interval, scale, sampler.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lrscale.provenance import NUMBERS
from lrscale.spec import is_own
from lrscale.study.plan import Cell, Plan, exact_label
from lrscale.study.records import StudyRecord, TrialRecord
from lrscale.training.results import mean_objective

LEEWAY = 1e-6
"""How far beyond an interval, relatively, a trial may lie: lattice points and factors are rounded."""
QUESTION = ("sampler", "intervals")
"""The settings that say which points are asked for. Trials whose settings agree in them were asked one after another."""
OTHERWISE = {
    "intervals": "in another interval",
    "sampler": "by another sampler",
    "torch": "with another torch",
    "device": "on another device",
}
"""The settings in which a trial that is used may differ from what is asked, with the words for it."""
OLDER_TRIALS = {"device": "cpu"}
"""Settings that older trials lack, with the values that stand for them."""


class Sorted(NamedTuple):
    """The recorded trials of a plan's cells: those that lie inside what the plan asks for, and those that are left out.

    Each stands once.
    """

    used: list[TrialRecord]
    left_out: list[TrialRecord]


def settings_of(study: StudyRecord, cell: Cell) -> dict[str, Any]:
    """Returns what a trial of a cell is asked under, as plain values."""
    machine = {"numbers": NUMBERS, "torch": study.made_by.get("torch", "")}
    if not study.plan.is_script:
        machine["device"] = device_of(study, cell)
    return {**asked_for(study.plan, cell), "n_trials": study.plan.n_trials, **machine}


def device_of(study: StudyRecord, cell: Cell) -> str:
    """Returns the device that trains a cell: `cpu` for a task that comes with lrscale, else the one of the study."""
    return study.made_by.get("device", "cpu") if is_own(cell.config.get("task", {}).get("name")) else "cpu"


def asked_for(plan: Plan, cell: Cell) -> dict[str, Any]:
    """Returns the settings of a cell's trials that say which points are asked for: `QUESTION`."""
    intervals = {key: plan.interval_of(cell, key) for key in plan.intervals}
    return {"sampler": dict(plan.sampler), "intervals": {key: [i.low, i.high, i.log] for key, i in intervals.items()}}


def sort_trials(plan: Plan, trials: Iterable[TrialRecord]) -> Sorted:
    """Sorts the recorded trials of a plan's cells; trials of other cells are in neither part.

    Two processes of an older lrscale may each have recorded the same trial. The last of `trials` counts: a store lists the
    trial that began first last.
    """
    cells = {cell.id: cell for cell in plan.cells}
    found = Sorted([], [])
    for *_, trial in _together(plan, trials):
        (found.used if _is_inside(plan, cells[trial.cell], trial) else found.left_out).append(trial)
    return found


def unequal_records(plan: Plan, trials: Iterable[TrialRecord]) -> list[str]:
    """Returns a sentence for each trial of a plan's cells that is recorded more than once, and not equally."""
    labels, remarks = {cell.id: cell.label for cell in plan.cells}, []
    for *others, used in _together(plan, trials):
        found = [f"{mean_objective(t.objectives)!r} in run {t.run_id}" for t in others if _outcome(t) != _outcome(used)]
        if found:
            trial = exact_label(labels[used.cell], used.params)
            counts = f"{mean_objective(used.objectives)!r} in run {used.run_id} is used"
            remarks.append(f"{trial} is recorded more than once: {counts}, not {', '.join(found)}.")
    return remarks


def _together(plan: Plan, trials: Iterable[TrialRecord]) -> Iterable[list[TrialRecord]]:
    """Returns the records of each trial of a plan's cells. A trial of a probe has no lr, and is known by its number."""
    cells = {cell.id for cell in plan.cells}
    same: dict[tuple[Any, ...], list[TrialRecord]] = {}
    for trial in trials:
        if trial.cell in cells:
            same.setdefault((trial.cell, frozenset(trial.params.items()) or trial.number), []).append(trial)
    return same.values()


def _outcome(trial: TrialRecord) -> str:
    """Returns what must agree between two records of one trial, as text: nan equals nan there."""
    return repr((trial.objectives, trial.diverged, trial.quantities))


def question_of(settings: Mapping[str, Any]) -> str:
    """Returns a key of what a trial was asked for; trials of one cell with the same key have numbers of their own."""
    return json.dumps([settings.get(key) for key in QUESTION], sort_keys=True)


def remarks_on_trials(study: StudyRecord, trials: Sequence[TrialRecord]) -> list[str]:
    """Returns a sentence for each kind of recorded trials that were made otherwise: how many, and what becomes of them."""
    plan, found = study.plan, sort_trials(study.plan, trials)
    cells = {cell.id: cell for cell in plan.cells}
    remarks = unequal_records(plan, trials)
    remarks += [left_out_remark(plan, len(found.left_out))] if found.left_out else []
    asked = {cell.id: settings_of(study, cell) for cell in plan.cells}
    for key, what in OTHERWISE.items():
        others = [
            t
            for t in found.used
            if t.settings and {**OLDER_TRIALS, **t.settings}.get(key) != {**OLDER_TRIALS, **asked[t.cell]}[key]
        ]
        if others:
            digits = "their last digits may differ" if key in ("torch", "device") else "inside what is asked"
            remarks.append(f"{_count(len(others))} made {what}, {digits}: used.")
    counts = [sum(trial.cell == cell for trial in found.used) for cell in cells]
    if plan.intervals and max(counts, default=0) > plan.n_trials:
        remarks.append(f"Some cells have more trials than n_trials = {plan.n_trials}, up to {max(counts)}: all are used.")
    elsewhere = sum(trial.cell not in cells for trial in trials)
    if elsewhere:
        remarks.append(f"{_count(elsewhere)} of other settings or of an older lrscale: left out.")
    return remarks


def left_out_remark(plan: Plan, count: int) -> str:
    """Returns a sentence on trials that are left out."""
    intervals = ", ".join(f"{key} = {i.low:g} to {i.high:g}" for key, i in plan.intervals.items())
    return plan.in_own_words(f"{_count(count)} outside what is asked ({intervals or 'nothing is tuned'}): left out.")


def _count(trials: int) -> str:
    return f"{trials} recorded trial{'s' if trials != 1 else ''}"


def round_of(trial: TrialRecord) -> tuple[str, str, int | None]:
    """Returns a key that the trials of one round share: they were trained together."""
    return trial.cell, question_of(trial.settings), trial.together


def rounds_of(trials: Iterable[TrialRecord]) -> list[list[TrialRecord]]:
    """Returns the rounds of a cell's trials, in the order in which they were asked."""
    rounds: dict[tuple[str, str, int | None], list[TrialRecord]] = {}
    for trial in sorted(trials, key=lambda trial: (question_of(trial.settings), trial.number)):
        rounds.setdefault(round_of(trial), []).append(trial)
    return list(rounds.values())


def _is_inside(plan: Plan, cell: Cell, trial: TrialRecord) -> bool:
    """Returns whether a trial lies inside what a plan asks for. Where the plan widens, its own trials may lie outside."""
    params = trial.params
    if set(params) != set(plan.intervals):
        return False
    if plan.sampler.get("widen") and question_of(trial.settings) == question_of(asked_for(plan, cell)):
        return True
    slack = {key: LEEWAY * abs(params[key]) for key in params}
    intervals = {key: plan.interval_of(cell, key) for key in params}
    return all(i.low - slack[key] <= params[key] <= i.high + slack[key] for key, i in intervals.items())
