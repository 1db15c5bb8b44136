"""The jobs of a script: which are run together, and what is kept where the launcher breaks."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lrscale.run.script_jobs import Job, Launched, LauncherBroke, ScriptJobs
from lrscale.study.script import Returned, WrongReturn
from lrscale.tracking.job_runs import JobRecord, JobRuns

GUILTY = "2"


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


@pytest.mark.parametrize("retries", [0, 1])
def test_a_job_that_kills_its_worker_fails_alone(tmp_path: Path, retries: int) -> None:
    batches = []

    def launch(jobs: Sequence[Launched], first: int) -> list[Returned | str | WrongReturn]:
        keys = [job.overrides[0] for job in jobs]
        batches.append("".join(keys))
        if GUILTY in keys:
            if keys[0] != GUILTY:
                jobs[0].file.write_text(Returned(float(keys[0]), {}).as_json())  # this one had ended before
            raise LauncherBroke("a worker was killed")
        return [Returned(float(key), {}) for key in keys]

    jobs = ScriptJobs(launch, tmp_path, 3, retries)
    runs = jobs.runs = Runs()
    found = jobs.run([Job(key, key, {"x": key}, (key,)) for key in "12345"])
    values = [result.objective if isinstance(result, Returned) else result for result in found]
    assert values == [1.0, "a worker was killed", 3.0, 4.0, 5.0]
    assert batches == (["123", "2", "3", "45"] if retries == 0 else ["123", "2", "3", "2", "45"])
    assert runs.ended == {**dict.fromkeys("1345", "FINISHED"), "2": "a worker was killed"}
    assert all(runs.named[key] == {"x": key} for key in "1345")


def test_two_sweeps_in_one_folder_leave_their_results_in_different_files(tmp_path: Path) -> None:
    one, other = Runs().start("a", "a", 0, tmp_path), Runs().start("b", "b", 0, tmp_path)
    assert one.number == other.number and one.file != other.file
