"""Runs a sweep without roles: asks Optuna, runs jobs, records them in MLflow, tells Optuna, until all trials are complete."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from lrscale.errors import Failure, masked
from lrscale.locks import study_lock
from lrscale.run.progress import Display
from lrscale.run.script_jobs import Job, JobLimits, ScriptJobs
from lrscale.run.script_study import FindFolders, MakeLaunch, open_jobs, write_results
from lrscale.search.storage import check_storage, open_storage, storage_file
from lrscale.search.sweep import Sweep, SweepTrial
from lrscale.study.script import Returned
from lrscale.study.space import Space, space_in_words
from lrscale.system import uninterrupted
from lrscale.tracking.client import check_place, check_uri
from lrscale.tracking.job_runs import sweep_run
from lrscale.tracking.lease import study_lease
from lrscale.tracking.places import sqlite_file
from lrscale.tracking.store import Store


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep without roles asks, and how it is run.

    `space` has what is swept, by the keys of overrides. `fixed` holds the overrides with one value, and `fixed_values` the
    same by their keys. `fixed_config` is all of the app's config that is not swept, by dotted keys. `override_of` makes the
    override that sets a key to a value. `extend` is a user's function that draws further parameters of an Optuna trial.
    """

    name: str
    space: Space
    fixed: tuple[str, ...]
    fixed_values: Mapping[str, str]
    fixed_config: Mapping[str, Any]
    direction: Literal["minimize", "maximize"]
    sampler: Mapping[str, Any]
    n_trials: int
    limits: JobLimits
    max_failure_rate: float
    uri: str
    storage: str
    override_of: Callable[[str, Any], str]
    extend: Callable[[Any], None] | None = None


def run_sweep(plan: SweepPlan, find_folders: FindFolders, make_launch: MakeLaunch) -> None:
    """Carries out a sweep; continues it where the stores hold a part of it.

    Args:
      plan: what is asked.
      find_folders: returns the folders that can be Hydra's folder of the sweep.
      make_launch: sets up Hydra's launcher.

    Raises:
      Refusal: the plan or a store cannot be used, or another process runs the sweep.
      Failure: more trials failed than `max_failure_rate` allows.
    """
    check_uri(plan.uri)
    check_storage(plan.storage, plan.uri)
    check_place(plan.uri, plan.name)
    files = [file for file in (sqlite_file(plan.uri), storage_file(plan.storage)) if file is not None]
    console = Console(highlight=False, markup=False, emoji=False)
    with ExitStack() as locks:
        lease = locks.enter_context(study_lease(plan.uri, plan.name, console.print))
        locks.enter_context(study_lock(plan.name, files or [Path("optuna.journal")]))
        with uninterrupted():
            sweep = Sweep(
                plan.name, open_storage(plan.storage), plan.space, plan.direction, plan.sampler, plan.fixed_config,
                plan.fixed_values, plan.extend,
            )  # fmt: skip
            store = Store(plan.uri)
            experiment = store.experiment(plan.name)
            run_id = sweep_run(store, experiment, plan.name, _asked(plan))
        status = "FAILED"
        try:
            ways = (find_folders, make_launch, plan.limits, locks, lease, lambda line: console.print(line, soft_wrap=True))
            jobs = open_jobs(store, experiment, run_id, *ways)
            _Loop(plan, sweep, jobs).run(console)
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            with uninterrupted():
                if not lease.is_lost:  # else the run is that of another process
                    store.finish_study(run_id, status)


def _asked(plan: SweepPlan) -> dict[str, Any]:
    """Returns what a sweep asks, as plain values."""
    numbers = {"n_trials": plan.n_trials, "direction": plan.direction, "sampler": dict(plan.sampler)}
    return {"sweep": plan.name, **numbers, "space": space_in_words(plan.space), "fixed": dict(plan.fixed_config)}


class _Loop:
    """The loop of one sweep.

    Where workers are apart and the sampler does not learn, a trial is asked as soon as a slot is free. A sampler that learns is
    asked for `n_jobs` trials at a time, when all before are told: else its trials would depend on which job ends first.
    """

    def __init__(self, plan: SweepPlan, sweep: Sweep, jobs: ScriptJobs) -> None:
        self.plan, self.sweep, self.jobs = plan, sweep, jobs
        self.n_trials = int(min(plan.n_trials, sweep.most()))
        self.at_once = jobs.slots.workers.apart and not sweep.learns
        self.open: dict[str, SweepTrial] = {}

    def run(self, console: Console) -> None:
        """Runs trials, `n_jobs` at a time, until all are complete, and writes the best parameters when some have ended.

        Raises:
          Failure: more trials failed than `max_failure_rate` allows.
        """
        for remark in self.sweep.remarks:
            console.print(remark)
        if self.n_trials < self.plan.n_trials:
            console.print(f"The grid has {self.n_trials} points, so n_trials is {self.n_trials}.")
        done = min(self.sweep.held(), self.n_trials)
        with Display(console, self.plan.name, 0, self.n_trials, done) as display, self.jobs:
            while self._ask(display):
                for end in self.jobs.ended(wait=True):
                    self._tell(self.open.pop(end.job.key), end.result, display)
                self._write_best()
        self._write_best()
        self._show_best(console)

    def _ask(self, display: Display) -> bool:
        """Starts the trials that a killed execution left, then new ones; returns whether there are trials that run."""
        if not self.open or self.at_once:
            running = self.sweep.running()
            at_work = {trial.number for trial in self.open.values()}
            free = self.plan.limits.n_jobs - len(self.open)
            left = [trial for trial in running if trial.number not in at_work][:free]
            missing = min(self.n_trials - self.sweep.held() - len(running), free - len(left))
            with uninterrupted():
                new = [*left, *self.sweep.ask(max(0, missing))]
            if new and not self.open:
                display.round(0)
            jobs = {job.key: (trial, job) for trial in new for job in [self._job(trial)]}
            self.open |= {key: trial for key, (trial, _) in jobs.items()}
            self.jobs.add([job for _, job in jobs.values()])
        return bool(self.open)

    def _job(self, trial: SweepTrial) -> Job:
        """Returns the job of a trial."""
        overrides = (*self.plan.fixed, *(self.plan.override_of(key, value) for key, value in trial.params.items()))
        values = " ".join(f"{key.rpartition('.')[2]}={_short(value)}" for key, value in trial.params.items())
        text = json.dumps([self.plan.name, trial.number, overrides, dict(self.plan.fixed_config)], sort_keys=True, default=str)
        key = f"trial {trial.number} {hashlib.sha256(text.encode()).hexdigest()[:16]}"
        return Job(key, values, trial.params, overrides)

    def _tell(self, trial: SweepTrial, result: Returned | str, display: Display) -> None:
        """Tells Optuna what a job returned, after MLflow; raises Failure once too many trials failed."""
        with uninterrupted():
            if isinstance(result, Returned):
                self.sweep.tell(trial.number, result.objective)
            else:
                self.sweep.fail(trial.number)
        failed = isinstance(result, str)
        diverged = isinstance(result, Returned) and not math.isfinite(result.objective)
        display.job(f"trial {trial.number}", int(not failed), int(diverged), int(not failed), int(failed))
        if isinstance(result, str) and self.sweep.failed() > self.plan.max_failure_rate * self.n_trials:
            self._write_best()
            raise Failure(
                f"{self.sweep.failed()} of {self.n_trials} trials failed, more than "
                f"hydra.sweeper.max_failure_rate={self.plan.max_failure_rate} allows. The same command runs them again. "
                f"The last was trial {trial.number}:\n{result}"
            )

    def _write_best(self) -> None:
        best = self.sweep.best()
        if best is not None:
            write_results(self.jobs.folder, dict(best.params), float(best.value or 0.0))

    def _show_best(self, console: Console) -> None:
        best = self.sweep.best()
        if best is None:
            console.print("best     none: no trial returned a finite number")
            return
        values = ", ".join(f"{key}={value}" for key, value in best.params.items())
        console.print(f"best     {best.value:.6g} in trial {best.number}: {values}", soft_wrap=True)
        console.print(
            f"records  {self.jobs.folder}, MLflow experiment {self.plan.name} in {masked(self.plan.uri)}", soft_wrap=True
        )


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
