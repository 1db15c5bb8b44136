"""Runs the jobs of a training script, each once: what a job returned is recorded, and found again after a kill."""

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from lrscale.run.crew import Crew
from lrscale.run.setup import Workers
from lrscale.run.slots import Ended, Slots
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
    """A job that is launched.

    It has its number, its overrides, its environment variables, and the file in which it leaves what it returned.
    """

    number: int
    overrides: tuple[str, ...]
    environment: Mapping[str, str]
    file: Path


class Late(str):
    """The traceback of a job that took longer than it may."""


LaunchScripts = Callable[[Sequence[Launched]], Sequence[Returned | str | WrongReturn]]
"""A function that runs jobs whose numbers follow each other, and returns when all have ended.

It returns for each job what the job returned, or the traceback of a job that failed, which is Late where it took too long. It
may raise LauncherBroke.
"""


class ScriptLauncher(NamedTuple):
    """Hydra's launcher, set up to write into a folder, and what its workers can do."""

    launch: LaunchScripts
    workers: Workers


class JobLimits(NamedTuple):
    """How many jobs run at a time, and how often one is run again.

    `n_jobs` is the number of slots. `retries` is how often a job that failed is run again before it counts as failed, and
    `n_retries` how often one whose worker was lost, or that took too long.
    """

    n_jobs: int = 1
    retries: int = 0
    n_retries: int = 0


class JobEnd(NamedTuple):
    """The end of a job: what it returned or the traceback of its last attempt, and how long this took, in seconds.

    A job that was recorded before took 0 s.
    """

    job: Job
    result: Returned | str
    seconds: float


class ScriptJobs:
    """Runs jobs in slots, and keeps what they returned. Leaving the context cancels the jobs that run."""

    def __init__(self, launcher: ScriptLauncher, folder: Path, limits: JobLimits, say: Callable[[str], object]) -> None:
        """Prepares to run jobs; `open` must be called before the first.

        Args:
          launcher: runs the jobs.
          folder: Hydra's folder of the sweep. Job numbers continue after the folders in it.
          limits: how many run at a time, and how often one is run again.
          say: prints a line, where a job was lost too often.
        """
        self.launch, self.folder, self.limits, self.say = launcher.launch, folder.absolute(), limits, say
        self.slots: Slots[Launched, Returned | str | WrongReturn] = Slots(self._launch, limits.n_jobs, launcher.workers)
        self.crew: Crew[Job, Launched, Returned | str | WrongReturn] = Crew(self.slots, self._start, limits.n_retries)
        self.known: dict[str, Returned] = {}
        self.nameless: dict[str, JobRecord] = {}
        self.waiting: list[Job] = []
        self.recorded: list[JobEnd] = []
        self.running: dict[str, tuple[Job, JobRecord]] = {}
        self.failures: Counter[str] = Counter()
        self.next_number = 0
        self.runs: JobRuns | None = None

    def __enter__(self) -> Self:
        self.slots.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.slots.__exit__(kind, error, trace)
        with uninterrupted():
            for job, record in self.running.values():  # some may have left what they returned
                self._adopt(record)
                self._name(job)
        with suppress(OSError):  # it has other files, or there was no job
            self.results.rmdir()

    @property
    def pending(self) -> int:
        """The number of jobs that run or wait."""
        return len(self.waiting) + len(self.crew.alone) + len(self.slots.running)

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

    def add(self, jobs: Sequence[Job]) -> None:
        """Adds jobs, which are run in this order. Those that are recorded have ended already."""
        for job in jobs:
            self._name(job)
            if job.key in self.known:
                self.recorded.append(JobEnd(job, self.known[job.key], 0.0))
            else:
                self.waiting.append(job)

    def ended(self, wait: bool) -> list[JobEnd]:
        """Keeps the slots full, and records the jobs that have ended.

        Args:
          wait: whether to wait until one has ended for good. Where none runs or waits, there is none.

        Returns:
          The jobs that have ended for good since the last call.

        Raises:
          WrongReturn: a job returned something that is no objective; it is recorded as failed.
        """
        found, self.recorded = self.recorded, []
        while True:
            self.crew.fill(self.waiting, lambda _: [self.waiting.pop(0)])
            for ended in self.slots.ended(wait and not found):
                stop_if_asked()  # what it returned may be the value of half a training
                found += self._end(ended)
            if found or not wait or not self.pending:
                return found

    def _name(self, job: Job) -> None:
        """Records the parameters of a job that a killed sweep or a broken launcher has left."""
        record = self.nameless.pop(job.key, None)
        if record is not None and self.runs is not None:
            with uninterrupted():
                self.runs.name(record, job.params)

    def _start(self, job: Job) -> Launched:
        """Creates the run of a job that is launched now."""
        assert self.runs is not None, "open() comes first"
        self.results.mkdir(parents=True, exist_ok=True)
        number, self.next_number = self.next_number, self.next_number + 1
        with uninterrupted():
            record = self.runs.start(f"{job.name} #{number}", job.key, number, self.results)
            self.running[job.key] = job, record
        return Launched(number, job.overrides, self.runs.environment(record), record.file)

    def _launch(self, jobs: Sequence[Sequence[Launched]]) -> Sequence[Sequence[Returned | str | WrongReturn]]:
        """Launches jobs of one training each; this runs in the thread of a slot."""
        sys.stdout.flush()
        return [[result] for result in self.launch([job for (job,) in jobs])]

    def _end(self, ended: Ended[Returned | str | WrongReturn]) -> list[JobEnd]:
        """Records a job whose launch has ended. Returns it, or nothing where it is run again."""
        assert self.runs is not None
        (job,) = self.crew.jobs[ended.number]
        _, record = self.running.pop(job.key)
        result = ended.lost if ended.lost or isinstance(ended.outcomes, str) else ended.outcomes[0]
        with uninterrupted():
            if ended.lost:
                self._adopt(record)
                self._name(job)
                result = self.known.get(job.key, result)
            elif isinstance(result, Returned):
                self.runs.finish(record, job.params, result)
                self.known[job.key] = result
            again = not isinstance(result, Returned) and self._again(ended, job, result)
            if not isinstance(result, Returned) and not (ended.lost and again):
                self.runs.fail(record, str(result))
            record.file.unlink(missing_ok=True)
        del self.crew.jobs[ended.number]
        if isinstance(result, WrongReturn):
            raise result
        return [] if again else [JobEnd(job, result, ended.seconds)]

    def _again(self, ended: Ended[Returned | str | WrongReturn], job: Job, result: str | WrongReturn) -> bool:
        """Puts a job back that failed, was lost or took too long; returns False where this happened too often."""
        if ended.lost or isinstance(result, Late):
            losses = self.crew.again(ended, job, job.key, isinstance(result, Late))
            if losses:
                self.say(f"lost     {job.name}, {losses} times: {str(result).strip().splitlines()[-1]}")
            return not losses
        self.failures[job.key] += 1
        if isinstance(result, WrongReturn) or self.failures[job.key] > self.limits.retries:
            return False
        self.waiting.append(job)
        return True
