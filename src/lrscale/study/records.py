"""The records of a study: what a store holds of it, as plain values. The answer is computed from these values alone."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lrscale.spec import Compute
from lrscale.study.plan import Plan
from lrscale.training.quantity import Quantity
from lrscale.training.results import Result


@dataclass(frozen=True)
class TrialRecord:
    """One finished trial.

    `run_id` is the id of its MLflow run, and `cell` the id of its cell. `together` is the number of the first trial
    of its round, or None where it is not known. `objectives` and `diverged` have one value for each seed. `settings` is what
    it was asked under; see `lrscale.study.settings`. It is empty for trials of older versions.
    """

    run_id: str
    cell: str
    number: int
    params: Mapping[str, float]
    objectives: tuple[float, ...]
    diverged: tuple[bool, ...]
    together: int | None
    quantities: tuple[Quantity, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


def trial_record(
    cell: str, number: int, together: int, params: Mapping[str, float], result: Result, settings: Mapping[str, Any]
) -> TrialRecord:
    """Returns the record of a result that is not in a store yet; its `run_id` is empty.

    Args:
      cell: the id of the trial's cell.
      number: the trial's number in its cell.
      together: the number of the first trial of its round.
      params: the tuned hyperparameters, by dotted key.
      result: what the training returned.
      settings: what the trial was asked under.
    """
    return TrialRecord("", cell, number, params, result.objectives, result.diverged, together, result.quantities, settings)


@dataclass(frozen=True)
class WorkRecord:
    """A trial or a single training, together with all trials that were trained in the same call.

    `together` holds the tuned hyperparameters of all these trials, and `outcome` is the trial at `index`. `config` is
    the config that they share, apart from the tuned hyperparameters. `is_whole` is True where it is known that no
    other trial was trained in the same call.
    """

    config: Mapping[str, Any]
    compute: Compute
    together: tuple[Mapping[str, float], ...]
    index: int
    outcome: TrialRecord
    is_whole: bool
    made_by: Mapping[str, str]


@dataclass(frozen=True)
class StudyRecord:
    """One execution of a study: its plan, the versions and the machine that made it, and the stores that hold it.

    `storage` is the URL of Optuna's storage, or None where it is not known. `status` is the status of the MLflow run.
    `seconds` is the time that its rounds took, summed over all executions that ended. `run_id` and `experiment_id`
    are empty where no store holds the study.
    """

    plan: Plan
    made_by: Mapping[str, str]
    compute: Compute = field(default_factory=Compute)
    storage: str | None = None
    run_id: str = ""
    experiment_id: str = ""
    status: str = "FINISHED"
    seconds: float = 0.0


@dataclass(frozen=True)
class Curve:
    """A curve of a trial, as it was read from a store: one value for each of the steps."""

    steps: tuple[int, ...]
    values: tuple[float, ...]
