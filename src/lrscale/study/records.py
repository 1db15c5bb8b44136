"""What a store holds of a study, as plain values: the report is made from these alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lrscale.training.quantity import Quantity
from lrscale.training.results import Result


@dataclass(frozen=True)
class TrialRecord:
    """One finished trial. `cell`: id of its cell; `together`: number of the first trial of its round, if that is known."""

    run_id: str
    cell: str
    number: int
    params: Mapping[str, float]
    objectives: tuple[float, ...]
    diverged: tuple[bool, ...]
    together: int | None
    quantities: tuple[Quantity, ...] = ()


def trial_record(cell: str, number: int, together: int, params: Mapping[str, float], result: Result) -> TrialRecord:
    """The record of a result that no store has given a run yet."""
    return TrialRecord("", cell, number, params, result.objectives, result.diverged, together, result.quantities)


@dataclass(frozen=True)
class WorkRecord:
    """A trial or a single training, with all that was trained in one go with it.

    `config` is that of all trials in `together`, tuned hyperparameters aside; the one at `place` had the
    outcome. `whole`: whether it is known that no other trial was among them.
    """

    config: Mapping[str, Any]
    together: tuple[Mapping[str, float], ...]
    place: int
    outcome: TrialRecord
    whole: bool
    made_by: Mapping[str, str]


@dataclass(frozen=True)
class CellRecord:
    """One cell, with the config that all its trials share."""

    id: str
    label: str
    scientific: Mapping[str, Any]
    config: Mapping[str, Any]


@dataclass(frozen=True)
class StudyRecord:
    """One execution of a study: its plan, and where it was run.

    `status` is that of MLflow's run; `seconds` is what its rounds took, in all executions that ended.
    """

    run_id: str
    experiment_id: str
    study: str
    question: str | None
    objective: str
    n_trials: int
    ranges: Mapping[str, tuple[float, float]]
    claims: tuple[Mapping[str, Any], ...]
    cells: tuple[CellRecord, ...]
    made_by: Mapping[str, str]
    command: str
    status: str
    seconds: float


@dataclass(frozen=True)
class Line:
    """A curve read back from a store."""

    steps: tuple[int, ...]
    values: tuple[float, ...]
