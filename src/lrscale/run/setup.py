"""Where a study is recorded and how its jobs are run: what it runs with, and no part of what it asks."""

from dataclasses import dataclass, field

from lrscale.spec import Compute


@dataclass(frozen=True)
class Setup:
    """Where a study is recorded, and how its jobs are run.

    `uri`: MLflow's store. `storage`: Optuna's, a journal file or a database URL. `n_jobs`: jobs launched at a time.
    `max_failure_rate`: the share of the study's trials that may crash before it stops, from 0 to 1. `profile`:
    whether to print where the time went.
    """

    uri: str
    storage: str
    compute: Compute = field(default_factory=Compute)
    n_jobs: int = 1
    max_failure_rate: float = 0.0
    profile: bool = False
