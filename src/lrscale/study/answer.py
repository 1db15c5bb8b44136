"""The answer of a study, from its records: what each family of cells shows, slopes, and whether the claims hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lrscale.estimate.intervals import Interval
from lrscale.study.claims import Verdict, verdicts
from lrscale.study.families import CellAnswer, Family, Measurement, answer_cell, answer_family, batch_ranges, shared_axes
from lrscale.study.plan import Plan
from lrscale.study.records import StudyRecord, TrialRecord


@dataclass(frozen=True)
class Slope:
    """Slope of log lr* over log B of one reduction in one range of batch sizes; `slope` is None where it was not measured.

    `of`: what the cells share. `range`: the range's name, with its ends `low` and `high`.
    """

    of: Mapping[str, Any]
    reduction: str
    range: str
    low: float
    high: float
    slope: Interval | None


@dataclass(frozen=True)
class Answer:
    """All that a study's records say: families of cells where an lr was tuned, or what a probe measured.

    `slopes`: of every family, reduction and range. `verdicts`: the claims, held against the numbers.
    """

    study: StudyRecord
    families: tuple[Family, ...]
    measurements: tuple[Measurement, ...]
    slopes: tuple[Slope, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def plan(self) -> Plan:
        """What was asked."""
        return self.study.plan

    @property
    def cells(self) -> tuple[CellAnswer, ...]:
        """The cells of all families."""
        return tuple(cell for family in self.families for cell in family.cells)


def answer(study: StudyRecord, trials: Sequence[TrialRecord]) -> Answer:
    """Estimates everything from a study's records.

    Args:
      study: what was planned.
      trials: finished trials of its experiment; those of other cells are left aside.
    """
    by_cell: dict[str, list[TrialRecord]] = {}
    for trial in sorted(trials, key=lambda t: t.number):
        by_cell.setdefault(trial.cell, []).append(trial)
    plan = study.plan
    if plan.is_probed:
        last = [(cell, trial) for cell in plan.cells for trial in by_cell.get(cell.id, [])[-1:]]
        return answer_of(study, (), tuple(Measurement(cell, quantity) for cell, trial in last for quantity in trial.quantities))
    families: dict[str, list[CellAnswer]] = {}
    for cell in plan.cells:
        shared = repr(sorted(shared_axes(cell).items()))
        families.setdefault(shared, []).append(answer_cell(cell, by_cell.get(cell.id, [])))
    return answer_of(study, tuple(answer_family(cells) for cells in families.values()), ())


def answer_of(study: StudyRecord, families: tuple[Family, ...], measurements: tuple[Measurement, ...]) -> Answer:
    """Completes an answer by its slopes and verdicts."""
    ranges = batch_ranges(study.plan)
    slopes = [
        Slope(family.of, reduction, name, low, high, family.slope(reduction, low, high))
        for family in families
        for reduction in family.reductions()
        for name, (low, high) in ranges.items()
    ]
    return Answer(study, families, measurements, tuple(slopes), tuple(verdicts(study.plan, families, measurements)))
