"""The settings of an execution of a study: the stores that record it, and how its jobs are run. No plan contains them."""

from collections.abc import Callable
from dataclasses import dataclass, field

from lrscale.spec import Compute


def _nothing() -> None:
    """Begins and cancels nothing: jobs in this process end with it."""


@dataclass(frozen=True)
class Workers:
    """What a launcher's workers can do.

    `apart` says whether jobs run in other processes, so that the launcher can be called from several threads. `shared` says
    whether a worker that dies takes the jobs of other calls with it. `begin` is called before the first job. `cancel` ends the
    jobs of the study that run or wait in a queue.
    """

    apart: bool = False
    shared: bool = False
    begin: Callable[[], None] = _nothing
    cancel: Callable[[], None] = _nothing


@dataclass(frozen=True)
class Setup:
    """The stores that record a study, and how its jobs are run.

    `uri` is the URI of the MLflow store. `storage` is Optuna's storage: the path of a journal file, or a database URL.
    `compute` holds the settings of the machine. `n_jobs` is the number of jobs that are launched at a time.
    `max_failure_rate` is the largest share of the study's trials that may crash before the study stops, from 0 to 1.
    `n_retries` is how often a job is launched again whose worker was lost, or that took too long.
    `profile` is True where the wall time of each phase is printed at the end. `workers` says what the launcher's workers can do.
    """

    uri: str
    storage: str
    compute: Compute = field(default_factory=Compute)
    n_jobs: int = 1
    max_failure_rate: float = 0.0
    n_retries: int = 0
    profile: bool = False
    workers: Workers = field(default_factory=Workers)
