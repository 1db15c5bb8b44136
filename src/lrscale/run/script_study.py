"""Runs a study whose cells a training script trains: each trial and seed is a job, and a trial is the mean over its seeds."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from rich.console import Console

from lrscale.files import write_whole
from lrscale.locks import folder_lock
from lrscale.run.job import Outcome
from lrscale.run.reporting import write_report
from lrscale.run.script_jobs import Job, JobEnd, JobLimits, ScriptJobs, ScriptLauncher
from lrscale.run.setup import Setup
from lrscale.run.slots import Ended
from lrscale.run.study import run_study
from lrscale.study.config import job_id
from lrscale.study.plan import Cell, Plan, Share, trial_label
from lrscale.study.records import StudyRecord
from lrscale.study.script import Returned, mean_curves
from lrscale.study.settings import sort_trials
from lrscale.study.space import flat_keys
from lrscale.study.twins import LR_KEY
from lrscale.tracking.lease import Lease
from lrscale.tracking.schema import SWEEP_DIR
from lrscale.tracking.store import Store
from lrscale.training.results import Result, mean_objective

FindFolders = Callable[[str | None], Iterator[str]]
"""A function from the recorded folder of a sweep, or None, to the folders that it can go on in, the wanted one first."""
MakeLaunch = Callable[[str], ScriptLauncher]
"""A function that sets up the launcher to write into a folder."""
RESULTS_FILE = "optimization_results.yaml"
"""The file with the best parameters in the folder of a sweep, as Hydra's Optuna sweeper writes it."""


@dataclass(frozen=True)
class ScriptSetup:
    """How the jobs of a study of a script are run and recorded.

    `lr_key` and `seed_key` are the keys of the overrides that set the lr and the seed; `seed_key` is None without a seed.
    The other fields are those of `Setup`.
    """

    uri: str
    storage: str
    limits: JobLimits
    max_failure_rate: float
    lr_key: str
    seed_key: str | None


def run_script_study(plan: Plan, setup: ScriptSetup, find_folders: FindFolders, make_launch: MakeLaunch) -> None:
    """Carries out the plan of a study of a script, and reports; see `run_study`.

    Args:
      plan: the plan of the study.
      setup: how its jobs are run and recorded.
      find_folders: returns the folders that can be Hydra's folder of the sweep.
      make_launch: sets up Hydra's launcher.
    """
    stores = Setup(
        setup.uri,
        setup.storage,
        n_jobs=setup.limits.n_jobs,
        max_failure_rate=setup.max_failure_rate,
    )
    with ExitStack() as locks:
        study = _ScriptStudy(plan, setup, find_folders, make_launch, locks)
        run_study(plan, stores, None, study.report, open_slots=study.open)


def open_jobs(
    store: Store,
    experiment: str,
    parent: str,
    find_folders: FindFolders,
    make_launch: MakeLaunch,
    limits: JobLimits,
    locks: ExitStack,
    lease: Lease,
    say: Callable[[str], object],
) -> ScriptJobs:
    """Returns the jobs of a sweep, with those that are recorded. The sweep continues in the folder that it began in.

    Args:
      store: the MLflow store.
      experiment: the id of the sweep's experiment.
      parent: the id of the run of the study or sweep.
      find_folders: returns the folders that can be Hydra's folder of the sweep.
      make_launch: sets up Hydra's launcher.
      limits: how many jobs run at a time, and how often one is run again.
      locks: holds the lock of the folder.
      lease: the lease of the study; no job is launched after another process has taken it over.
      say: prints a line, where a job was lost too often.

    Raises:
      Refusal: another sweep writes into the folder now.
    """
    folder = locks.enter_context(folder_lock(find_folders(store.experiment_tags(experiment).get(SWEEP_DIR))))
    store.tag_experiment(experiment, {SWEEP_DIR: folder})
    launcher = make_launch(folder)
    launcher = launcher._replace(launch=lease.guarded(launcher.launch))
    jobs = ScriptJobs(launcher, Path(folder), limits, say)
    jobs.open(store, experiment, parent)
    return jobs


class _Trial(NamedTuple):
    """A trial that runs: the keys of the jobs of its seeds, and the time when it was started."""

    keys: tuple[str, ...]
    started: float


class TrialSlots:
    """The slots of a study of a script: each seed of a trial is a job in a slot of its own. See `lrscale.run.slots.Slots`."""

    def __init__(self, jobs: ScriptJobs, jobs_of: Callable[[Cell, float], Sequence[Job]]) -> None:
        """Prepares the slots.

        Args:
          jobs: runs the jobs.
          jobs_of: returns the jobs of a trial, one for each seed, by its cell and its lr.
        """
        self.jobs, self.jobs_of = jobs, jobs_of
        self.count, self.workers = jobs.slots.count, jobs.slots.workers
        self.running: set[int] = set()
        self.trials: dict[int, _Trial] = {}
        self.ends: dict[str, JobEnd] = {}
        self.busy_seconds = 0.0
        self._next = 0

    @property
    def free(self) -> int:
        """The number of slots without a job, now or when the jobs that wait have started."""
        return max(0, self.count - self.jobs.pending)

    def __enter__(self) -> Self:
        self.jobs.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.jobs.__exit__(kind, error, trace)

    def start(self, jobs: Sequence[Sequence[Share]]) -> list[int]:
        """Adds the jobs of trials. Each of `jobs` is a single trial."""
        numbers = []
        for ((cell, (params,)),) in jobs:
            number, self._next = self._next, self._next + 1
            of_trial = self.jobs_of(cell, params[LR_KEY])
            open_keys = {key for trial in self.trials.values() for key in trial.keys}
            self.trials[number] = _Trial(tuple(job.key for job in of_trial), time.time())
            self.running.add(number)
            self.jobs.add([job for job in of_trial if job.key not in open_keys])
            numbers.append(number)
        return numbers

    def ended(self, wait: bool) -> list[Ended[Outcome]]:
        """Returns the trials of which all seeds have ended since the last call."""
        found: list[Ended[Outcome]] = []
        while self.running:
            self.ends |= {end.job.key: end for end in self.jobs.ended(wait)}
            for number, trial in list(self.trials.items()):
                if all(key in self.ends for key in trial.keys):
                    outcome = _outcome([self.ends[key] for key in trial.keys])
                    found.append(Ended(number, [outcome], "", trial.started, outcome.seconds))
                    self.running.discard(number)
                    del self.trials[number]
            if found or not wait:
                break
        still = {key for trial in self.trials.values() for key in trial.keys}
        self.ends = {key: end for key, end in self.ends.items() if key in still}
        self.busy_seconds = self.jobs.slots.busy_seconds
        return found


class _ScriptStudy:
    """The jobs of one study of a script."""

    def __init__(
        self, plan: Plan, setup: ScriptSetup, find_folders: FindFolders, make_launch: MakeLaunch, locks: ExitStack
    ) -> None:
        self.plan, self.setup, self.find_folders, self.make_launch, self.locks = plan, setup, find_folders, make_launch, locks
        self.jobs: ScriptJobs | None = None

    def open(self, store: Store, study: StudyRecord, lease: Lease, console: Console) -> TrialSlots:
        """Reads the jobs that are recorded, when the stores of the study are open; returns the slots of its trials."""
        ways = (self.find_folders, self.make_launch, self.setup.limits, self.locks, lease)
        self.jobs = open_jobs(store, study.experiment_id, study.run_id, *ways, lambda line: console.print(line, soft_wrap=True))
        return TrialSlots(self.jobs, self._jobs_of)

    def _jobs_of(self, cell: Cell, lr: float) -> list[Job]:
        """Returns the jobs of a trial, one for each seed."""
        jobs = []
        for seed in cell.training.seeds:
            tuned: dict[str, Any] = {self.setup.lr_key: lr}
            if self.setup.seed_key is not None:
                tuned[self.setup.seed_key] = seed
            key = f"{job_id(cell.config)} lr {lr!r} seed {seed}"
            name = f"{trial_label(cell.label, {LR_KEY: lr})} seed {seed}"
            overrides = (*cell.overrides, *(f"{name}={value!r}" for name, value in tuned.items()))
            jobs.append(Job(key, name, {**own_values(cell), **tuned}, overrides))
        return jobs

    def report(self, store: Store, study: StudyRecord, console: Console) -> None:
        """Writes the report of the study, and the best parameters into the folder of the sweep."""
        write_report(store, study, console)
        trials = sort_trials(self.plan, store.trials(study.experiment_id)).used
        best = min(trials, key=lambda trial: (mean_objective(trial.objectives), trial.number), default=None)
        if best is not None and self.jobs is not None:
            cell = next(cell for cell in self.plan.cells if cell.id == best.cell)
            params = {**own_values(cell), self.setup.lr_key.lstrip("+"): best.params[LR_KEY]}
            write_results(self.jobs.folder, params, mean_objective(best.objectives))


def own_values(cell: Cell) -> dict[str, Any]:
    """Returns the values of a cell on the axes of its study, by the script's own keys."""
    values, roles = flat_keys(cell.config["script"]), cell.config["roles"]
    keys = {key: roles.get(key, key) for key in cell.scientific}
    return {own: values.get(own, cell.scientific[key]) for key, own in keys.items()}


def write_results(folder: Path, params: dict[str, Any], value: float) -> None:
    """Writes the best parameters and the best objective into the folder of a sweep, as Hydra's Optuna sweeper does."""
    import yaml

    values = {"name": "optuna", "best_params": params, "best_value": value}
    write_whole(folder / RESULTS_FILE, yaml.safe_dump(values, sort_keys=False))


def _outcome(seeds: Sequence[JobEnd]) -> Outcome:
    """Returns the outcome of a trial, from how the job of each seed ended."""
    seconds = sum(end.seconds for end in seeds)
    failed = [end.result for end in seeds if isinstance(end.result, str)]
    if failed:
        return Outcome([], failed[0], seconds)
    return Outcome([_result([end.result for end in seeds if isinstance(end.result, Returned)])], None, seconds)


def _result(seeds: Sequence[Returned]) -> Result:
    """Returns the result of a trial, from what the job of each seed returned. An objective that is not finite has diverged."""
    curves = mean_curves([result.curves for result in seeds])
    points = max(map(len, curves.values()), default=0)
    return Result(
        objectives=tuple(r.objective if math.isfinite(r.objective) else math.inf for r in seeds),
        diverged=tuple(not math.isfinite(r.objective) for r in seeds),
        steps=tuple(range(points)),
        examples=(),
        curves=curves,
        ends={name: line[-1] for name, line in curves.items() if line},
    )
