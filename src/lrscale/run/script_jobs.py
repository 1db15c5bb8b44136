"""Runs the jobs of a training script, each once: what a job returned is recorded, and found again after a kill."""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from lrscale.study.script import Returned, WrongReturn
from lrscale.system import stop_if_asked, uninterrupted
from lrscale.tracking.job_runs import JobRecord, JobRuns
from lrscale.tracking.store import Store


class Job(NamedTuple):
    """One training of a script.

    `key` says what it trains: jobs with equal keys are run once. `name` is the name of its MLflow run. `params` has the
    values of what varies, by the script's own keys, and `overrides` are those of Hydra.
    """

    key: str
    name: str
    params: Mapping[str, Any]
    overrides: tuple[str, ...]


class Launched(NamedTuple):
    """A job that is launched: its overrides, its environment variables, and the file in which it leaves what it returned."""

    overrides: tuple[str, ...]
    environment: Mapping[str, str]
    file: Path


class LauncherBroke(Exception):
    """Hydra's launcher raised an error, and not a job: as where a worker process was killed. The text is the traceback."""


LaunchScripts = Callable[[Sequence[Launched], int], Sequence[Returned | str | WrongReturn]]
"""A function that runs jobs, given the number of the first. Other jobs have the numbers that follow.

It returns for each job what the job returned, or the traceback of a job that failed. It may raise LauncherBroke.
"""


class ScriptJobs:
    """Runs jobs in batches, and keeps what they returned."""

    def __init__(self, launch: LaunchScripts, folder: Path, n_jobs: int, retries: int) -> None:
        """Prepares to run jobs; `open` must be called before the first.

        Args:
          launch: the function that runs a batch of jobs.
          folder: Hydra's folder of the sweep. Job numbers continue after the folders in it.
          n_jobs: the number of jobs in a batch.
          retries: how often a job that failed is run again before it counts as failed.
        """
        self.launch, self.folder, self.n_jobs, self.retries = launch, folder.absolute(), n_jobs, retries
        self.known: dict[str, Returned] = {}
        self.nameless: dict[str, JobRecord] = {}
        self.next_number = 0
        self.runs: JobRuns | None = None

    @property
    def results(self) -> Path:
        """The folder in which jobs leave what they returned, until it is recorded."""
        return self.folder / ".lrscale"

    def open(self, store: Store, experiment: str, parent: str) -> None:
        """Reads the records of earlier jobs.

        A job that had ended when the sweep was killed has left a file, which is recorded now. Other jobs without a record
        are ended; they are run again under new numbers.

        Args:
          store: the MLflow store.
          experiment: the id of the experiment.
          parent: the id of the run of the study or sweep.
        """
        self.runs = JobRuns(store, experiment, parent)
        numbers = [-1]
        for record in self.runs.records():
            numbers.append(record.number)
            if record.objective is not None:
                self.known[record.key] = Returned(record.objective, {})
            else:  # the script may have ended the run itself
                self._adopt(record)
        if self.folder.is_dir():
            numbers += [int(path.name) for path in self.folder.iterdir() if path.name.isdecimal()]
        self.next_number = max(numbers) + 1

    def _adopt(self, record: JobRecord) -> None:
        """Records what a job of a killed sweep has left. Where it has left nothing, its run is ended."""
        assert self.runs is not None
        try:
            result = Returned.from_json(record.file.read_text("utf-8"))
        except (OSError, ValueError):
            if record.is_open:
                with uninterrupted():
                    self.runs.stop(record)
            return
        with uninterrupted():
            self.runs.finish(record, {}, result)
        record.file.unlink(missing_ok=True)
        self.known[record.key] = result
        self.nameless[record.key] = record  # its parameters are not known before the job is asked for again

    def run(self, jobs: Sequence[Job]) -> list[Returned | str]:
        """Runs jobs that are not recorded yet, `n_jobs` at a time.

        Args:
          jobs: the jobs; each key once.

        Returns:
          For each job what it returned, or the traceback of its last attempt.

        Raises:
          WrongReturn: a job returned something that is no objective; the others of its batch are recorded.
        """
        failed: dict[str, str] = {}
        alone: list[Job] = []
        self._name(jobs)
        waiting = [job for job in jobs if job.key not in self.known]
        attempts = dict.fromkeys((job.key for job in waiting), 0)
        while waiting or alone:
            queue, size = (alone, 1) if alone else (waiting, self.n_jobs)
            batch, queue[:] = queue[:size], queue[size:]
            for job, result in zip(batch, self._run_batch(batch), strict=True):
                if isinstance(result, Returned):
                    self.known[job.key] = result
                    continue
                if result is None:  # one of the batch broke the launcher: each is run by itself, so that only that one fails
                    alone.append(job)
                    continue
                attempts[job.key] += 1
                if attempts[job.key] <= self.retries:
                    queue.append(job)
                else:
                    failed[job.key] = result
        return [self.known[job.key] if job.key in self.known else failed[job.key] for job in jobs]

    def _name(self, jobs: Sequence[Job]) -> None:
        """Records the parameters of jobs that a killed sweep or a broken launcher has left."""
        for job in jobs:
            record = self.nameless.pop(job.key, None)
            if record is not None and self.runs is not None:
                with uninterrupted():
                    self.runs.name(record, job.params)

    def _run_batch(self, batch: Sequence[Job]) -> list[Returned | str | None]:
        """Launches a batch, and records what each job returned. A batch that is stopped has its runs ended.

        Returns:
          For each job what it returned, its traceback, or None where the launcher broke before it ended.
        """
        assert self.runs is not None, "open() comes first"
        self.results.mkdir(parents=True, exist_ok=True)
        first, self.next_number = self.next_number, self.next_number + len(batch)
        records: list[JobRecord] = []
        with uninterrupted():
            for number, job in enumerate(batch, start=first):
                records.append(self.runs.start(f"{job.name} #{number}", job.key, number, self.results))
        launched = [
            Launched(job.overrides, self.runs.environment(record), record.file)
            for job, record in zip(batch, records, strict=True)
        ]
        sys.stdout.flush()
        try:
            results = self.launch(launched, first)
            stop_if_asked()
        except BaseException as error:
            with uninterrupted():
                for record in records:
                    self._adopt(record)
            stop_if_asked()
            if not isinstance(error, LauncherBroke):
                raise
            self._name(batch)
            if len(batch) == 1 and batch[0].key not in self.known:
                with uninterrupted():
                    self.runs.fail(records[0], str(error))
            return [self.known.get(job.key, str(error) if len(batch) == 1 else None) for job in batch]
        with uninterrupted():
            for job, record, result in zip(batch, records, results, strict=True):
                if isinstance(result, Returned):
                    self.runs.finish(record, job.params, result)
                else:
                    self.runs.fail(record, str(result))
                record.file.unlink(missing_ok=True)
        with suppress(OSError):  # it has other files
            self.results.rmdir()
        for result in results:
            if isinstance(result, WrongReturn):
                raise result
        return [result if isinstance(result, Returned) else str(result) for result in results]
