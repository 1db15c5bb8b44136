"""What a store holds of a study, as plain values: the answer is made from these alone."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lrscale.spec import Compute
from lrscale.study.plan import Plan
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
    """Returns the record of a result that no store has given a run yet."""
    return TrialRecord("", cell, number, params, result.objectives, result.diverged, together, result.quantities)


@dataclass(frozen=True)
class WorkRecord:
    """A trial or a single training, with all that was trained in one go with it.

    `config` is that of all trials in `together`, tuned hyperparameters aside; the one at `index` had the
    outcome. `is_whole`: whether it is known that no other trial was among them.
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
    """One execution of a study: its plan, who made it with what, and where it was run.

    `storage`: of Optuna's studies, None where it is not known. `status` is that of MLflow's run; `seconds` is what
    its rounds took, in all executions that ended. `run_id` and `experiment_id` are empty where no store holds it.
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
    """A curve read back from a store."""

    steps: tuple[int, ...]
    values: tuple[float, ...]
