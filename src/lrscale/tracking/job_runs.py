"""Writes and reads the MLflow runs of a script's jobs: each job has a run of its own, into which the script itself may log."""

import json
import math
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mlflow.entities import Metric, Param, RunTag

from lrscale.errors import masked, printable
from lrscale.provenance import holder, source_tags
from lrscale.study.script import Returned
from lrscale.tracking.client import keep_texts
from lrscale.tracking.reader import PAGE
from lrscale.tracking.schema import HOLDER, JOB, JOB_FILE, JOB_KEY, KIND, PARENT, RETURNED
from lrscale.tracking.store import Store

MOST_POINTS = 250
"""The largest number of points of a curve that are recorded. They are spread evenly."""


class JobRecord(NamedTuple):
    """The record of a job.

    It has the id of its MLflow run, its key, its number, the file that the job leaves, its objective if that is recorded, and
    whether its run has not ended.
    """

    run_id: str
    key: str
    number: int
    file: Path
    objective: float | None
    is_open: bool


class JobRuns:
    """The runs of a script's jobs in one experiment."""

    def __init__(self, store: Store, experiment: str, parent: str) -> None:
        """Opens the runs of jobs.

        Args:
          store: the MLflow store.
          experiment: the id of the experiment.
          parent: the id of the run of the study or sweep.
        """
        self.store, self.client, self.experiment, self.parent = store, store.client, experiment, parent

    def records(self) -> Iterator[JobRecord]:
        """Yields the records of all jobs of the experiment."""
        token = None
        while True:
            query = f"tags.`{KIND}` = 'job'"
            page = self.client.search_runs([self.experiment], query, max_results=PAGE, page_token=token)
            for run in page:
                tags = run.data.tags
                objective = float(tags[RETURNED]) if RETURNED in tags else None
                is_open = run.info.status in ("RUNNING", "SCHEDULED")
                yield JobRecord(run.info.run_id, tags[JOB_KEY], int(tags[JOB]), Path(tags[JOB_FILE]), objective, is_open)
            token = page.token
            if not token:
                return

    def start(self, name: str, key: str, number: int, folder: Path) -> JobRecord:
        """Creates the run of a job, before the job is launched.

        Args:
          name: the name of the run.
          key: what the job trains.
          number: the number of the job.
          folder: the folder in which the job leaves what it returned.
        """
        file = folder / f"{number}-{uuid.uuid4().hex[:12]}.json"  # another sweep in the folder may have the same numbers
        tags = {KIND: "job", PARENT: self.parent, JOB_KEY: key, JOB: str(number), JOB_FILE: str(file)}
        tags |= {**source_tags(), "mlflow.source.name": Path(sys.argv[0]).name or "script"}
        run = self.client.create_run(self.experiment, int(time.time() * 1000), tags, printable(name)[:250])
        return JobRecord(str(run.info.run_id), key, number, file, None, True)

    def environment(self, record: JobRecord) -> dict[str, str]:
        """Returns the environment variables with which MLflow's fluent API logs into the run of a job."""
        return {
            "MLFLOW_TRACKING_URI": self.store.address,
            "MLFLOW_EXPERIMENT_ID": self.experiment,
            "MLFLOW_RUN_ID": record.run_id,
        }

    def finish(self, record: JobRecord, params: Mapping[str, Any], result: Returned) -> None:
        """Records what a job returned, and ends its run.

        The parameters are written now and not at the start, so that the script may log parameters of the same names.

        Args:
          record: the record of the job.
          params: its parameters by the script's own keys.
          result: what it returned; an objective that is not finite stands in a tag alone, because MLflow cannot show it.
        """
        now = int(time.time() * 1000)
        metrics = [Metric("objective", result.objective, now, 0)] if math.isfinite(result.objective) else []
        for name, line in result.curves.items():
            shown = min(len(line), MOST_POINTS)
            points = sorted({round(i * (len(line) - 1) / max(1, shown - 1)) for i in range(shown)})
            metrics += [Metric(name, line[i], now, i) for i in points if math.isfinite(line[i])]
        tags = [RunTag(RETURNED, repr(result.objective))]
        rest = metrics[850:]
        for start in range(0, len(rest), 850):
            self.client.log_batch(record.run_id, metrics=rest[start : start + 850])
        named = self._new_params(record, params)
        self.client.log_batch(record.run_id, metrics[:850], named, tags)  # tags are last: a run with this tag is complete
        self.client.set_terminated(record.run_id, "FINISHED")

    def name(self, record: JobRecord, params: Mapping[str, Any]) -> None:
        """Records the parameters of a job that is recorded without them."""
        self.client.log_batch(record.run_id, params=self._new_params(record, params))

    def _new_params(self, record: JobRecord, params: Mapping[str, Any]) -> list[Param]:
        """Returns the parameters that the script itself has not logged."""
        known = self.client.get_run(record.run_id).data.params
        written = [Param(key.lstrip("+"), printable(str(value))[:500]) for key, value in params.items()]
        return [param for param in written if param.key not in known]

    def fail(self, record: JobRecord, text: str) -> None:
        """Ends the run of a job that failed, with its traceback."""
        keep_texts(self.client, record.run_id, {"traceback.txt": masked(text)})
        self.client.set_terminated(record.run_id, "FAILED")

    def stop(self, record: JobRecord) -> None:
        """Ends the run of a job that was stopped."""
        self.client.set_terminated(record.run_id, "KILLED")


def sweep_run(store: Store, experiment: str, name: str, values: Mapping[str, Any]) -> str:
    """Returns the id of the run of a sweep without roles, which is the parent of its jobs; creates it where there is none.

    Args:
      store: the MLflow store.
      experiment: the id of the experiment.
      name: the name of the sweep.
      values: what the sweep asks, kept as an artifact `sweep.json`.
    """
    found = store.client.search_runs([experiment], f"tags.`{KIND}` = 'sweep'", max_results=1)
    if found:
        run_id = str(found[0].info.run_id)
        store.client.update_run(run_id, status="RUNNING")
        store.tag_run(run_id, {HOLDER: holder()})
    else:
        tags = {KIND: "sweep", HOLDER: holder(), **source_tags()}
        run_id = str(store.client.create_run(experiment, tags=tags, run_name=name).info.run_id)
    store.client.log_text(run_id, json.dumps(values, indent=1, default=str), "sweep.json")
    return run_id
