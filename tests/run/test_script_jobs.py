"""The jobs of a script: which run at a time, and what is kept where the launcher breaks."""

import itertools
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lrscale.errors import Failure
from lrscale.run.script_jobs import Job, JobLimits, Launched, ScriptJobs, ScriptLauncher
from lrscale.run.setup import Workers
from lrscale.run.slots import LauncherBroke
from lrscale.study.script import Returned, WrongReturn
from lrscale.tracking.job_runs import JobRecord, JobRuns

GUILTY = "2"
PATIENCE_SECONDS = 60.0


class Runs(JobRuns):
    """Runs of jobs that are recorded in a dict."""

    def __init__(self) -> None:
        self.ended: dict[str, str] = {}
        self.named: dict[str, Mapping[str, Any]] = {}
        ids = itertools.count()
        self.client: Any = SimpleNamespace(
            create_run=lambda *_: SimpleNamespace(info=SimpleNamespace(run_id=str(next(ids)))), get_run=None
        )
        self.experiment, self.parent = "1", "2"

    def environment(self, record: JobRecord) -> dict[str, str]:
        return {}

    def finish(self, record: JobRecord, params: Mapping[str, Any], result: Returned) -> None:
        self.ended[record.key], self.named[record.key] = "FINISHED", params

    def name(self, record: JobRecord, params: Mapping[str, Any]) -> None:
        self.named[record.key] = params

    def fail(self, record: JobRecord, text: str) -> None:
        self.ended[record.key] = text

    def stop(self, record: JobRecord) -> None:
        self.ended[record.key] = "KILLED"


def all_of(jobs: ScriptJobs, keys: str) -> dict[str, float | str]:
    """What jobs return, or their tracebacks, by their keys."""
    found: dict[str, float | str] = {}
    with jobs:
        jobs.add([Job(key, key, {"x": key}, (key,)) for key in keys])
        while ended := jobs.ended(wait=True):
            found |= {e.job.key: e.result.objective if isinstance(e.result, Returned) else str(e.result) for e in ended}
    return found


@pytest.mark.parametrize("n_retries", [0, 1])
def test_a_job_that_kills_its_worker_fails_alone(tmp_path: Path, n_retries: int) -> None:
    batches, said = [], []

    def launch(jobs: Sequence[Launched]) -> list[Returned | str | WrongReturn]:
        keys = [job.overrides[0] for job in jobs]
        batches.append("".join(keys))
        if GUILTY in keys:
            if keys[0] != GUILTY:
                jobs[0].file.write_text(Returned(float(keys[0]), {}).as_json())  # this one had ended before
            raise LauncherBroke("a worker was killed")
        return [Returned(float(key), {}) for key in keys]

    jobs = ScriptJobs(ScriptLauncher(launch, Workers()), tmp_path, JobLimits(3, 0, n_retries), said.append)
    runs = jobs.runs = Runs()
    values = all_of(jobs, "12345")
    assert values == {"1": 1.0, "2": "a worker was killed", "3": 3.0, "4": 4.0, "5": 5.0}
    assert batches == (["123", "2", "3", "45"] if n_retries == 0 else ["123", "2", "3", "2", "45"])
    assert runs.ended == {**dict.fromkeys("1345", "FINISHED"), "2": "a worker was killed"}
    assert all(runs.named[key] == {"x": key} for key in "1345")
    assert said == [f"lost     2, {n_retries + 1} times: a worker was killed"]


def test_a_slow_job_holds_no_other(tmp_path: Path) -> None:
    others, order, numbers = threading.Event(), [], []

    def launch(jobs: Sequence[Launched]) -> list[Returned | str | WrongReturn]:
        (job,) = jobs
        order.append(job.overrides[0])
        numbers.append(job.number)
        if job.overrides[0] == "1":
            assert others.wait(PATIENCE_SECONDS), "the other jobs wait for the slow one"
        if job.overrides[0] == "5":
            others.set()
        return [Returned(float(job.overrides[0]), {})]

    jobs = ScriptJobs(ScriptLauncher(launch, Workers(apart=True)), tmp_path, JobLimits(2), print)
    jobs.runs = Runs()
    assert all_of(jobs, "12345") == {key: float(key) for key in "12345"}
    assert sorted(order) == list("12345") and sorted(numbers) == [0, 1, 2, 3, 4]


def test_jobs_that_run_when_a_sweep_fails_are_cancelled_and_ended(tmp_path: Path) -> None:
    cancelled = threading.Event()

    def launch(jobs: Sequence[Launched]) -> list[Returned | str | WrongReturn]:
        if jobs[0].overrides[0] == "1":
            raise Failure("another process has taken the study over")
        cancelled.wait(PATIENCE_SECONDS)
        return ["cancelled"]

    workers = Workers(apart=True, cancel=cancelled.set)
    jobs = ScriptJobs(ScriptLauncher(launch, workers), tmp_path, JobLimits(2), print)
    runs = jobs.runs = Runs()
    with pytest.raises(Failure, match="taken the study over"):
        all_of(jobs, "12")
    assert cancelled.is_set() and runs.ended == {"1": "KILLED", "2": "KILLED"}


def test_two_sweeps_in_one_folder_leave_their_results_in_different_files(tmp_path: Path) -> None:
    one, other = Runs().start("a", "a", 0, tmp_path), Runs().start("b", "b", 0, tmp_path)
    assert one.number == other.number and one.file != other.file
