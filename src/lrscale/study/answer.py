"""Computes the answer of a study from its records: the result of each family of cells, the slopes, and the verdicts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lrscale.estimate.intervals import Interval
from lrscale.study.claims import Verdict, verdicts
from lrscale.study.families import CellAnswer, Family, Measurement, answer_cell, answer_family, batch_ranges
from lrscale.study.plan import Plan
from lrscale.study.records import StudyRecord, TrialRecord
from lrscale.study.settings import sort_trials, unequal_records
from lrscale.study.twins import STEP_AXES, shared_axes
from lrscale.study.verdict import has_one_seed


@dataclass(frozen=True)
class Slope:
    """Slope of log lr* over log B, for one reduction of one family in one range of batch sizes.

    `of` holds the axis values that the family's cells share. `range` is the name of the range; `low` and `high` are
    its ends. `slope` is None where it could not be measured, or from one seed alone.
    """

    of: Mapping[str, Any]
    reduction: str
    range: str
    low: float
    high: float
    slope: Interval | None


@dataclass(frozen=True)
class Answer:
    """Everything that is estimated from a study's records.

    A study whose lr was tuned has `families` of cells. A study that ran a probe has `measurements` instead. `slopes`
    has one entry for each family, reduction and range. `verdicts` holds the outcome of each claim. `left_out` is the number
    of recorded trials that lie outside what the plan asks for. `unequal` has a sentence for each trial with unequal records.
    """

    study: StudyRecord
    families: tuple[Family, ...]
    measurements: tuple[Measurement, ...]
    slopes: tuple[Slope, ...]
    verdicts: tuple[Verdict, ...]
    left_out: int = 0
    unequal: tuple[str, ...] = ()

    @property
    def plan(self) -> Plan:
        """The plan of the study."""
        return self.study.plan

    @property
    def cells(self) -> tuple[CellAnswer, ...]:
        """The cells of all families."""
        return tuple(cell for family in self.families for cell in family.cells)


def answer(study: StudyRecord, trials: Sequence[TrialRecord]) -> Answer:
    """Estimates everything from a study's records.

    Args:
      study: the record of the study, with its plan.
      trials: the finished trials of the study's experiment. Trials of cells that are not in the plan are ignored, and
        trials that lie outside what the plan asks for are left out.

    Returns:
      The families of cells where the lr was tuned, or else the measurements of the last trial of each cell.
    """
    by_cell: dict[str, list[TrialRecord]] = {}
    found = sort_trials(study.plan, trials)
    for trial in sorted(found.used, key=lambda t: t.number):
        by_cell.setdefault(trial.cell, []).append(trial)
    plan = study.plan
    if plan.is_probed:
        last = [(cell, trial) for cell in plan.cells for trial in by_cell.get(cell.id, [])[-1:]]
        return answer_of(study, (), tuple(Measurement(cell, quantity) for cell, trial in last for quantity in trial.quantities))
    families: dict[str, list[CellAnswer]] = {}
    answers = {cell.id: answer_cell(cell, by_cell.get(cell.id, [])) for cell in plan.cells}
    for cell in plan.cells:
        shared = repr(sorted(shared_axes(cell).items()))
        families.setdefault(shared, []).append(_as_its_reference(answers[cell.id], answers))
    answered = tuple(answer_family(cells, _base(cells, families.values())) for cells in families.values())
    return replace(answer_of(study, answered, ()), left_out=len(found.left_out), unequal=tuple(unequal_records(plan, trials)))


def _as_its_reference(cell: CellAnswer, answers: Mapping[str, CellAnswer]) -> CellAnswer:
    """Returns a cell with the best lr of its reference times the factor, where both are the same runs.

    From the same objectives, two estimates would differ by the rounding of the lrs, and now and then choose another of two
    equally low minima.
    """
    twin = cell.cell.twin
    if twin is None or not twin.is_same_run or twin.of not in answers:
        return cell
    reference = answers[twin.of]
    objectives = [sorted(trial.objectives for trial in each.trials) for each in (cell, reference)]
    if reference.best is None or objectives[0] != objectives[1]:
        return cell
    return replace(cell, best=reference.best.times(cell.cell.factor("optimizer.lr")))


def _base(cells: Sequence[CellAnswer], families: Iterable[Sequence[CellAnswer]]) -> Sequence[CellAnswer]:
    """Returns the cells of the family that differs only in accumulating fewer micro-batches; empty where there is none."""
    shared = shared_axes(cells[0].cell, STEP_AXES)
    kin = [family for family in families if shared_axes(family[0].cell, STEP_AXES) == shared]
    fewest = min(kin, key=lambda family: family[0].training.accumulation)
    return fewest if fewest[0].training.accumulation < cells[0].training.accumulation else ()


def answer_of(study: StudyRecord, families: tuple[Family, ...], measurements: tuple[Measurement, ...]) -> Answer:
    """Returns the answer that these families or measurements give: adds the slopes and the verdicts.

    Args:
      study: the record of the study, with its plan.
      families: the families of cells; empty for a probe.
      measurements: what the probe measured; empty where the lr was tuned.
    """
    ranges = batch_ranges(study.plan)
    slopes = [
        Slope(family.of, reduction, name, low, high, None if one_seed else family.slope(reduction, low, high))
        for family, one_seed in [(family, has_one_seed(family.cells)) for family in families]
        for reduction in family.reductions()
        for name, (low, high) in ranges.items()
    ]
    return Answer(study, families, measurements, tuple(slopes), tuple(verdicts(study.plan, families, measurements)))
