"""Writes studies and trials to an MLflow store, in few calls. `reader.py` reads them, and `delivery.py` delivers entries."""

import json
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlflow.entities import Metric, Param, RunTag

from lrscale.errors import Refusal
from lrscale.locks import first_start
from lrscale.provenance import holder, source_tags
from lrscale.study.document import document
from lrscale.study.plan import Cell, trial_label, with_values
from lrscale.study.records import StudyRecord
from lrscale.study.settings import device_of, settings_of
from lrscale.tracking.artifacts import Unstored
from lrscale.tracking.client import failure
from lrscale.tracking.datasets import datasets, own_data, own_schedule
from lrscale.tracking.delivery import DeliveringStore
from lrscale.tracking.entries import entry, now_ms, rounded, trial_entry
from lrscale.tracking.places import artifact_folder, is_writable
from lrscale.tracking.reader import restoring
from lrscale.tracking.schema import (
    ALWAYS_SHOWN,
    ASKED_UNDER,
    CELL,
    COLOUR,
    EXECUTED,
    HAS_IMAGES,
    HOLDER,
    IMAGES,
    IN_SUMMARY,
    KIND,
    NAMED_GROUPS,
    NOTE,
    NUMBER,
    PARAMS,
    PARENT,
    PLAN,
    ROUND,
    SAME_RUN,
    SECONDS,
    STUDY_FILE,
    STUDY_PARAMETERS,
    image_files,
)
from lrscale.tracking.trial_note import trial_note
from lrscale.training.results import Result


class Store(DeliveringStore):
    """An MLflow store that is read and written: a database on this machine, or a server. The class above delivers."""

    seconds_before = 0.0
    """How long earlier executions of the study took, in seconds."""

    def _execute(self, *statements: str) -> None:
        """Runs SQL statements where the store is an SQLite file; does nothing elsewhere."""
        if self.file is not None:
            try:
                with closing(sqlite3.connect(self.file)) as connection:
                    for statement in statements:
                        connection.execute(statement)
                    connection.commit()
            except sqlite3.Error as error:
                raise failure(self.uri, error) from error

    def experiment(self, name: str) -> str:
        """Returns the id of the experiment with a name; creates it where there is none.

        Raises:
          Refusal: the experiment was deleted.
        """

        def get_or_create() -> str:
            experiment = self.client.get_experiment_by_name(name)
            if experiment is None:
                place = artifact_folder(self.file.parent, name) if self.file is not None else None
                return str(self.client.create_experiment(name, artifact_location=place))
            if experiment.lifecycle_stage != "active":
                raise Refusal(
                    f"`study_name` must not be that of a deleted experiment, got {name}. "
                    f"{restoring('experiment', experiment.experiment_id)} Or take another name."
                )
            return str(experiment.experiment_id)

        return first_start(get_or_create)

    def start_study(self, study: StudyRecord) -> StudyRecord:
        """Opens the parent run of a study. An earlier execution of the same plan has left one, which is used again.

        Args:
          study: the record of the study that is executed now; it has no run yet.

        Returns:
          The record with its run and its experiment, and with the seconds of earlier executions.
        """
        plan, now = study.plan, datetime.now(UTC).isoformat()
        experiment = self.experiment(plan.study)
        earlier = self.client.search_runs([experiment], f"tags.`{PLAN}` = '{plan.id}'", max_results=1)
        if earlier:
            run_id = str(earlier[0].info.run_id)
            self.client.update_run(run_id, status="RUNNING")
            self.tag_run(run_id, {EXECUTED: now, HOLDER: holder()})
        else:
            tags = {KIND: "study", PLAN: plan.id, EXECUTED: now, HOLDER: holder(), **source_tags()}
            run_id = str(self.client.create_run(experiment, tags=tags, run_name=f"study {plan.study}").info.run_id)
            self._adopt(experiment, run_id)
        values = (len(plan.cells), plan.n_trials, plan.sampler["name"], plan.objective)
        shown = {name: str(value) for name, value in zip(STUDY_PARAMETERS, values, strict=True)}
        of_cells = [filtered_by(cell.config) for cell in plan.cells]
        shown |= {key: _in_few(str(cell[key]) for cell in of_cells) for key in of_cells[0]}
        self.client.log_batch(run_id, params=[Param(*pair) for pair in shown.items()])
        first_start(lambda: self.client.log_inputs(run_id, datasets(plan)))
        self.client.log_dict(run_id, document(study), STUDY_FILE)
        run = self.client.get_run(run_id)
        self.seconds_before = float(run.data.tags.get(SECONDS, 0))
        return replace(study, run_id=run_id, experiment_id=experiment, status="RUNNING", seconds=self.seconds_before)

    def _adopt(self, experiment: str, run_id: str) -> None:
        """Makes a study's new run the parent of the experiment's trials whose own parent was deleted in MLflow."""
        orphans: dict[str, list[str]] = {}
        for run in self._runs(experiment, f"tags.`{KIND}` = 'trial'"):
            orphans.setdefault(run.data.tags.get(PARENT, ""), []).append(run.info.run_id)
        parents = {run.info.run_id for run in self._runs(experiment, f"tags.`{KIND}` = 'study'")}
        for parent in set(orphans) - parents:
            for orphan in orphans[parent]:
                self.client.set_tag(orphan, PARENT, run_id)

    def finish_study(self, run_id: str, status: str, seconds: float = 0.0) -> None:
        """Ends the parent run of a study.

        Args:
          run_id: the id of the run.
          status: FINISHED, FAILED or KILLED.
          seconds: the time that the rounds of this execution took.
        """
        tags = {SECONDS: f"{self.seconds_before + seconds:.1f}"} if seconds else {}
        self.keep({"kind": "end", "run": run_id, "status": status, "ended": now_ms(), "tags": tags})

    def prepare_sorting(self) -> None:
        """Makes the statistics with which an SQLite file is sorted quickly."""
        # SQLite sorts 10,000 runs by a metric in 9 s without these statistics and in 0.2 s with them; making them takes 0.02 s
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
        same_as: str = "",
    ) -> None:
        """Writes a finished trial as a child run, in three calls.

        Args:
          study: the record of the study, with its run.
          cell: the trial's cell.
          number: the trial's number in its cell.
          together: the number of the first trial of its round.
          params: the tuned hyperparameters, by dotted key.
          result: what the training returned.
          started: the start time in seconds.
          colour: the colour of the run in MLflow's charts.
          same_as: the exact label of the trial that is the same run and was trained; empty where this one was trained.
        """
        tags = {
            KIND: "trial",
            PARENT: study.run_id,
            COLOUR: colour,
            CELL: cell.id,
            NUMBER: str(number),
            ROUND: str(together),
            ASKED_UNDER: json.dumps(settings_of(study, cell)),
            PARAMS: json.dumps(dict(params)),
            NOTE: trial_note(study.plan, cell, number, params, result, same_as, device_of(study, cell)),
        }
        if same_as:
            tags[SAME_RUN] = same_as
        always = filtered_by(cell.config) | own_data(cell.config) | own_schedule(cell.config)
        scientific = {key: str(value) for key, value in {**always, **cell.scientific}.items()}
        name = trial_label(cell.label, params)
        config = with_values(cell.config, params)
        self.keep(trial_entry(study.experiment_id, name, tags, config, scientific, params, result, int(started * 1000)))

    def record_failure(self, study: StudyRecord, cell: Cell, params: Mapping[str, float], traceback: str) -> None:
        """Writes a crashed trial as a failed child run, with its traceback as an artifact.

        Args:
          study: the record of the study, with its run.
          cell: the trial's cell.
          params: the tuned hyperparameters, by dotted key.
          traceback: the text of the traceback.
        """
        tags = {KIND: "crash", CELL: cell.id, PARENT: study.run_id, **source_tags()}
        name, files = trial_label(cell.label, params), {"traceback.txt": traceback}
        self.keep(entry(study.experiment_id, name, tags, status="FAILED", files=files))

    def drop_unfinished(self, experiment: str, but: str) -> None:
        """Deletes the trials that a killed process had written only in part, and ends the studies that it left running.

        On a server, only what belongs to a study that took the lease is touched: this process holds the lease now, so the
        process of any other such study has ended. Runs of other programs are never touched.

        Args:
          experiment: the id of the experiment.
          but: the id of the study's run that is executed now; it stays as it is.
        """
        left = [run for run in self._runs(experiment, "attributes.status = 'RUNNING'") if run.info.run_id != but]
        studies = self._runs(experiment, f"tags.`{HOLDER}` LIKE '%'") if left and self.file is None else ()
        ours = {but} | {run.info.run_id for run in studies}
        for run in left:
            kind, owner = run.data.tags.get(KIND), run.data.tags.get(PARENT, run.info.run_id)
            if kind is None or (self.file is None and owner not in ours):
                continue
            if kind in ("trial", "crash"):
                self.client.delete_run(run.info.run_id)
            else:
                self.client.set_terminated(run.info.run_id, "KILLED")

    def writable(self) -> bool:
        """Returns whether the store can be written. A server is assumed to be writable."""
        return self.file is None or is_writable(self.file)

    def keep_files(
        self, run_id: str, folder: Path, images: Mapping[str, tuple[bytes, bytes]], metrics: Mapping[str, float]
    ) -> str:
        """Stores the files of a folder, images for MLflow's image charts, and some metrics, with a study's run.

        Args:
          run_id: the id of the run.
          folder: the folder; all its files are stored as artifacts.
          images: the PNG and the WebP of each image, by its key.
          metrics: numbers by the name of the metric.

        Returns:
          An empty text; or why the files could not be stored, where only the metrics could be.
        """
        why = ""
        try:
            self.client.log_artifacts(run_id, str(folder))
            with TemporaryDirectory() as temporary:
                for key, contents in images.items():
                    for name, content in zip(image_files(key), contents, strict=True):
                        (Path(temporary) / name).write_bytes(content)
                self.client.log_artifacts(run_id, temporary, IMAGES)
            self.tag_run(run_id, {HAS_IMAGES: "True"} if images else {})
        except Unstored as error:
            why = str(error)
        now = int(time.time() * 1000)
        self.client.log_batch(run_id, [Metric(*m, now, 0) for m in metrics.items()])
        return why

    def log_points(self, run_id: str, points: Iterable[tuple[str, float, int]], tags: Mapping[str, str]) -> None:
        """Adds points of metrics, and tags, to a run. A second call with the same points changes nothing.

        Args:
          run_id: the id of the run.
          points: name, value and step of each point.
          tags: tags by name.
        """
        now = self.client.get_run(run_id).info.start_time
        metrics = [Metric(key, rounded(value), now, step) for key, value, step in points]
        run_tags = [RunTag(*tag) for tag in tags.items()]
        for start in range(0, len(metrics), 1000):
            self.client.log_batch(run_id, metrics[start : start + 1000], tags=run_tags if start == 0 else [])

    def mark_shown(self, experiment: str, run_ids: Sequence[str]) -> None:
        """Marks the runs that a study's summary shows, and removes the mark from all other runs of the experiment."""
        marked = {run.info.run_id for run in self._runs(experiment, f"tags.`{IN_SUMMARY}` = 'yes'")}
        for run_id in marked - set(run_ids):
            self.client.delete_tag(run_id, IN_SUMMARY)
        for run_id in [run_id for run_id in run_ids if run_id not in marked]:
            self.client.set_tag(run_id, IN_SUMMARY, "yes")

    def tag_run(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Sets tags of a run."""
        self.client.log_batch(run_id, tags=[RunTag(*tag) for tag in tags.items()])

    def tag_experiment(self, experiment: str, tags: Mapping[str, str]) -> None:
        """Sets tags of an experiment, by its id."""
        for key, value in tags.items():
            self.client.set_experiment_tag(experiment, key, value)


def filtered_by(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parameters by which users look for runs: task, optimizer, reduction and batch size."""
    return {group: config[group]["name"] for group in NAMED_GROUPS} | {key: config[key] for key in ALWAYS_SHOWN}


def _in_few(values: Iterable[str]) -> str:
    """Returns different values as one text, in which LIKE finds each; cut where it is longer than MLflow accepts."""
    return ", ".join(dict.fromkeys(values))[:500]
