"""MLflow's door: writes studies and trials to a store in few calls, of which `reading` is the other half."""

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunTag

from lrscale.errors import Failure, Refusal
from lrscale.files import can_write, safe_name
from lrscale.locks import study_lock
from lrscale.provenance import source_tags
from lrscale.spec import Compute
from lrscale.study.document import document
from lrscale.study.plan import Cell, Plan, trial_label
from lrscale.study.records import StudyRecord
from lrscale.tracking.client import answers, deliver, failure, open_client
from lrscale.tracking.entries import entry, now_ms, rounded, trial_entry
from lrscale.tracking.outbox import Courier, Outbox, deliver_all, outbox_path
from lrscale.tracking.reader import Reader
from lrscale.tracking.schema import (
    ALWAYS_SHOWN,
    CELL,
    COLOUR,
    COMPUTE,
    EXECUTED,
    IN_SUMMARY,
    KIND,
    MADE_BY,
    NOTE,
    NUMBER,
    PARAMS,
    PARENT,
    PLAN,
    ROUND,
    SECONDS,
    STUDY_FILE,
    STUDY_PARAMETERS,
)
from lrscale.tracking.trial_note import trial_note
from lrscale.training.results import Result


class Undelivered(Failure):
    """What was asked for is complete, and some of its records wait on disk for a server."""


class Store(Reader):
    """An MLflow store, a database on this machine or a server, to read and to write."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.keep: Callable[[Mapping[str, Any]], object] = partial(deliver, self.client)
        self.courier: Courier | None = None
        self.seconds_before = 0.0

    @property
    def is_server(self) -> bool:
        return self.uri.startswith("http")

    def keep_on_disk(self, outbox: Path, study: str) -> None:
        """From now on writes a study's trials to disk first, from where they are delivered: for a server that may go away."""
        self.courier = Courier(Outbox(outbox), self.uri, study, partial(deliver, self.client), partial(answers, self.uri))
        self.keep = self.courier.put

    def settle(self, study: str) -> None:
        """Waits until everything is delivered.

        Raises:
          Undelivered: the server is away; says how to go on.
        """
        if self.courier is not None and (waiting := self.courier.settle()):
            raise Undelivered(
                f"the study is complete, but {waiting} of its records wait in {self.courier.outbox.path}, "
                f"as {self.uri} did not take them. When it does, the same command delivers them and reports to it; "
                "lrscale sync delivers alone."
            )

    def part(self) -> int:
        """Lets go of the server after a moment; returns how many records wait on disk for the next time."""
        if self.courier is None:
            return 0
        waiting = self.courier.settle(1.0)
        self.courier.stop()
        return waiting

    def _execute(self, *statements: str) -> None:
        """Runs statements where the store is an SQLite file."""
        if self.file is not None:
            try:
                with closing(sqlite3.connect(self.file)) as connection:
                    for statement in statements:
                        connection.execute(statement)
                    connection.commit()
            except sqlite3.Error as error:
                raise failure(self.uri, error) from error

    def experiment(self, name: str) -> str:
        """Returns the id of the experiment of that name, made if need be."""
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            if found.lifecycle_stage != "active":
                raise Refusal(
                    f"`study_name` must not be that of a deleted experiment, got {name}. Restore it or take another name."
                )
            return str(found.experiment_id)
        location = (self.file.parent / "mlartifacts" / safe_name(name)).as_uri() if self.file is not None else None
        return str(self.client.create_experiment(name, artifact_location=location))

    def start_study(self, study: StudyRecord) -> StudyRecord:
        """Opens the parent run of a study, the one of an earlier execution if there is one.

        Args:
          study: what is executed now, without a run.

        Returns:
          The study as its run holds it, with the seconds of earlier executions.
        """
        plan = study.plan
        experiment = self.experiment(plan.study)
        earlier = self.client.search_runs([experiment], f"tags.`{PLAN}` = '{plan.id}'", max_results=1)
        if earlier:
            run_id = str(earlier[0].info.run_id)
            self.client.update_run(run_id, status="RUNNING")
            self.client.set_tag(run_id, EXECUTED, _now())
        else:
            tags = {KIND: "study", PLAN: plan.id, EXECUTED: _now(), **source_tags()}
            run_id = str(self.client.create_run(experiment, tags=tags, run_name=f"study {plan.study}").info.run_id)
        values = (len(plan.cells), plan.n_trials, plan.sampler["name"], plan.objective)
        params = [Param(name, str(value)) for name, value in zip(STUDY_PARAMETERS, values, strict=True)]
        self.client.log_batch(run_id, params=params)
        self.client.log_inputs(run_id, _datasets(plan))
        self.client.log_dict(run_id, document(study), STUDY_FILE)
        run = self.client.get_run(run_id)
        self.seconds_before = float(run.data.tags.get(SECONDS, 0))
        return replace(study, run_id=run_id, experiment_id=experiment, status="RUNNING", seconds=self.seconds_before)

    def finish_study(self, run_id: str, status: str, seconds: float = 0.0) -> None:
        """Ends a parent run: FINISHED, FAILED or KILLED; its rounds took so many seconds more."""
        spent = {SECONDS: f"{self.seconds_before + seconds:.1f}"} if seconds else {}
        self.keep({"kind": "end", "run": run_id, "status": status, "ended": now_ms(), "tags": spent})
        # sorting 10,000 runs by a metric takes SQLite 9 s without these statistics and 0.2 s with them; they take 0.02 s
        self._execute("PRAGMA analysis_limit=400", "ANALYZE")

    def record_trial(
        self,
        study: StudyRecord,
        cell: Cell,
        number: int,
        together: int,
        params: Mapping[str, float],
        result: Result,
        started: float,
        colour: str,
    ) -> None:
        """Writes a finished trial as a child run, in three calls; `together` is the first trial of its round."""
        tags = {
            KIND: "trial",
            PARENT: study.run_id,
            COLOUR: colour,
            CELL: cell.id,
            NUMBER: str(number),
            ROUND: str(together),
            PARAMS: json.dumps(dict(params)),
            NOTE: trial_note(study.plan.study, cell, number, params, result),
        }
        always = {key: cell.config[key] for key in ALWAYS_SHOWN}
        scientific = {key: str(value) for key, value in {**always, **cell.scientific}.items()}
        name = trial_label(cell.label, params)
        self.keep(trial_entry(study.experiment_id, name, tags, cell.config, scientific, params, result, int(started * 1000)))

    def record_failure(self, study: StudyRecord, cell: Cell, params: Mapping[str, float], traceback: str) -> None:
        """Writes a crashed trial as a failed child run, its traceback in an artifact."""
        tags = {KIND: "crash", CELL: cell.id, PARENT: study.run_id, **source_tags()}
        name, files = trial_label(cell.label, params), {"traceback.txt": traceback}
        self.keep(entry(study.experiment_id, name, tags, status="FAILED", files=files))

    def record_single(
        self,
        experiment: str,
        name: str,
        config: Mapping[str, Any],
        compute: Compute,
        params: Mapping[str, float],
        result: Result,
        made_by: Mapping[str, str],
    ) -> str:
        """Writes a training that belongs to no study as one run, and returns its id.

        Raises:
          Undelivered: the server is away, and the record waits in an outbox of its own in the working folder.
        """
        groups = {group: config[group]["name"] for group in ("task", "optimizer")}
        named = {key: str(config[key]) for key in ("reduction", "batch_size", "accumulation", "objective", "seeds")}
        tags = {KIND: "single", PARAMS: json.dumps(dict(params)), MADE_BY: json.dumps(dict(made_by))}
        tags[COMPUTE] = json.dumps(compute._asdict())
        single = trial_entry(experiment, name, tags, config, {**groups, **named}, params, result, None)
        single |= {"uid": os.urandom(8).hex(), "uri": self.uri, "study": f"training {name}"}
        try:
            return deliver(self.client, single)
        except Failure:
            if not self.is_server:
                raise
            outbox = Outbox(outbox_path(None, f"training-{single['uid']}"))
            outbox.put(single)
            raise Undelivered(
                f"the training is complete, but its record waits in {outbox.path}, as {self.uri} did not take it. "
                "When it does: lrscale sync."
            ) from None

    def drop_unfinished(self, experiment: str, but: str) -> None:
        """Deletes trials that were being written when their process was killed, and ends the studies it left running."""
        for run in self._runs(experiment, "attributes.status = 'RUNNING'"):
            if run.data.tags.get(KIND) in ("trial", "crash"):
                self.client.delete_run(run.info.run_id)
            elif run.info.run_id != but:
                self.client.set_terminated(run.info.run_id, "KILLED")

    def writable(self) -> bool:
        """Whether the store can be written; of a server it is assumed."""
        return self.file is None or (os.access(self.file, os.W_OK) and can_write(self.file.parent))

    def keep_files(self, run_id: str, folder: Path, metrics: Mapping[str, float]) -> None:
        """Stores a folder's files, and numbers, on a study's run."""
        self.client.log_artifacts(run_id, str(folder))
        now = int(time.time() * 1000)
        self.client.log_batch(run_id, [Metric(*m, now, 0) for m in metrics.items()])

    def log_points(self, run_id: str, points: Iterable[tuple[str, float, int]], tags: Mapping[str, str]) -> None:
        """Adds points of metrics (name, value, step) to a run, and tags; the same again changes nothing."""
        now = self.client.get_run(run_id).info.start_time
        metrics = [Metric(key, rounded(value), now, step) for key, value, step in points]
        labels = [RunTag(*tag) for tag in tags.items()]
        for start in range(0, len(metrics), 1000):
            self.client.log_batch(run_id, metrics[start : start + 1000], tags=labels if start == 0 else [])

    def mark_shown(self, experiment: str, run_ids: Sequence[str]) -> None:
        """Marks the runs that a study's summary shows, and these alone."""
        marked = {run.info.run_id for run in self._runs(experiment, f"tags.`{IN_SUMMARY}` = 'yes'")}
        for run_id in marked - set(run_ids):
            self.client.delete_tag(run_id, IN_SUMMARY)
        for run_id in [run_id for run_id in run_ids if run_id not in marked]:
            self.client.set_tag(run_id, IN_SUMMARY, "yes")

    def tag_run(self, run_id: str, tags: Mapping[str, str]) -> None:
        self.client.log_batch(run_id, tags=[RunTag(*tag) for tag in tags.items()])

    def tag_experiment(self, experiment: str, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            self.client.set_experiment_tag(experiment, key, value)


def _datasets(plan: Plan) -> list[DatasetInput]:
    """The data that a plan's cells train on: the name and the options of a task say all of it."""
    found = []
    for text in dict.fromkeys(json.dumps(cell.config["task"], sort_keys=True) for cell in plan.cells):
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        found.append(DatasetInput(Dataset(json.loads(text)["name"], digest, "code", text, profile=text), []))
    return found


def _now() -> str:
    return datetime.now(UTC).isoformat()


def sync(folder: Path) -> list[tuple[Outbox, int, str]]:
    """Delivers what waits in a folder for servers: outboxes, how many records each held, and their study.

    Raises:
      Failure: a server is away.
      Refusal: nothing waits, or a study that is being run delivers it.
    """
    outboxes = [Outbox(path) for path in sorted(folder.glob("*.outbox"))]
    if not outboxes:
        raise Refusal(
            f"`FOLDER` must hold records that wait for a server (*.outbox), got {folder.resolve()}: nothing waits there."
        )
    delivered = []
    for outbox in outboxes:
        entries = outbox.entries()
        if not entries:
            outbox.clear()
            continue
        uri, study = str(entries[0]["uri"]), str(entries[0]["study"])
        with study_lock(study, [outbox.path]):
            if not uri.startswith("http") or not answers(uri):
                raise Failure(f"{uri} does not answer: {len(entries)} records go on waiting in {outbox.path}.")
            delivered.append((outbox, deliver_all(outbox, uri, partial(deliver, open_client(uri))), study))
    return delivered
