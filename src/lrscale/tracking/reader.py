"""Reads an MLflow store: studies, trials and single trainings as records, and the tags and files of its runs."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from mlflow.entities import Experiment, Run, ViewType

from lrscale.errors import Failure, Refusal
from lrscale.study.document import compute_of, without_compute
from lrscale.study.records import Curve, StudyRecord, TrialRecord, WorkRecord
from lrscale.study.settings import round_of
from lrscale.tracking.client import check_uri, open_client
from lrscale.tracking.places import sqlite_file
from lrscale.tracking.read_tags import check_metrics, naming_the_run, study_of_run, trial_of
from lrscale.tracking.schema import (
    AUDITS,
    COMPUTE,
    CONFIG,
    EXECUTED,
    KIND,
    MADE_BY,
    PARENT,
    STUDY_FILE,
    SWEEP_DIR,
)

PAGE = 1000
"""The number of runs that are read in one call."""


def restoring(kind: str, number: str) -> str:
    """Returns a sentence with the command that restores a deleted run or experiment of MLflow."""
    option = "--run-id" if kind == "run" else "--experiment-id"
    return f"Restore it, with MLFLOW_TRACKING_URI set to this store: mlflow {kind}s restore {option} {number}."


class Reader:
    """An MLflow store that is read: a database on this machine, or a server."""

    def __init__(self, uri: str, to_read: bool = False) -> None:
        """Opens a store; creates a database where there is none.

        `to_read` also opens a database that cannot be written.

        Raises:
          Refusal: the store cannot be opened.
          Failure: the disk is full.
        """
        self.uri, self.file = uri, sqlite_file(uri)
        self.client = open_client(uri, to_read)
        self.address = self.client.uri

    @classmethod
    def existing(cls, uri: str) -> Self:
        """Opens a store that exists; creates no database.

        Raises:
          Refusal: there is no store at the URI, or it cannot be opened.
        """
        check_uri(uri, to_read=True)
        if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
            raise Refusal(
                f"`--tracking-uri` must be a store that exists, got {uri}. Run a study first: lrscale run -m sweeps=quickstart."
            )
        return cls(uri, to_read=True)

    def trials(self, experiment: str) -> list[TrialRecord]:
        """Returns the finished trials of an experiment.

        Raises:
          Refusal: the record of a trial is damaged.
        """
        trials = []
        for run in self._runs(experiment, f"tags.`{KIND}` = 'trial' and attributes.status = 'FINISHED'"):
            with naming_the_run(self.uri, run.info.run_id):
                trials.append(trial_of(run.info.run_id, run.data.tags))
                check_metrics(trials[-1], run.data.tags, run.data.metrics)
        return trials

    def last_trial(self, experiment: str) -> float | None:
        """Returns the time when an experiment's last trial was recorded, in seconds; None if it has no trial."""
        query = f"tags.`{KIND}` = 'trial' and attributes.status = 'FINISHED'"
        runs = self.client.search_runs([experiment], query, max_results=1, order_by=["attributes.end_time DESC"])
        return runs[0].info.end_time / 1000 if runs else None

    def study(self, name: str | None) -> StudyRecord:
        """Returns the record of a study's latest execution; if `name` is None, of the latest execution of any study.

        Raises:
          Refusal: there is no such study, or its record is damaged.
        """
        experiments = {e.experiment_id: e.name for e in self._experiments()}
        searched = [i for i, n in experiments.items() if name in (None, n)]
        latest = [f"tags.`{EXECUTED}` DESC"]
        runs = self.client.search_runs(searched, f"tags.`{KIND}` = 'study'", max_results=1, order_by=latest) if searched else []
        if not runs:
            self._refuse_sweep(searched, name)
            studies = self.client.search_runs([*experiments], f"tags.`{KIND}` = 'study'", max_results=PAGE)
            names = sorted({experiments[run.info.experiment_id] for run in studies})
            self._refuse_deleted(name)
            known = ", ".join(map(shlex.quote, names)) or "none"
            raise Refusal(
                f"`STUDY` must be a study in {self.uri}, got {name or 'no name'}. There: {known}. "
                "Run one with lrscale run -m sweeps=quickstart."
            )
        run = runs[0]
        return self.study_of(run.info.run_id)

    def running(self) -> list[StudyRecord]:
        """Returns the records of the studies that the store has as running, the one that was started last first."""
        experiments = [e.experiment_id for e in self._experiments()]
        query = f"tags.`{KIND}` = 'study' and attributes.status = 'RUNNING'"
        runs = self.client.search_runs(experiments, query, order_by=[f"tags.`{EXECUTED}` DESC"]) if experiments else []
        return [self.study_of(run.info.run_id) for run in runs]

    def audits(self) -> str:
        """Returns the id of the experiment that holds the audits of training steps.

        Raises:
          Refusal: there is none.
        """
        found = self.client.get_experiment_by_name(AUDITS)
        if found is None:
            raise Refusal(
                f"`STUDY` must be in {self.uri}, got {AUDITS}, and there are none. Record one with lrscale audit STEP --record."
            )
        return str(found.experiment_id)

    def _refuse_sweep(self, experiments: Sequence[str], name: str | None) -> None:
        """Raises Refusal where a name is that of a sweep without roles, which has no cells and no answer."""
        for experiment in experiments if name is not None else []:
            if self.client.search_runs([experiment], f"tags.`{KIND}` = 'sweep'", max_results=1):
                folder = self.experiment_tags(experiment).get(SWEEP_DIR, "its folder")
                raise Refusal(
                    f"`STUDY` must be a study with an answer, got {name}, which is a sweep without `roles`. Its best parameters "
                    f"are in {folder}/optimization_results.yaml, and its jobs in MLflow: mlflow ui --backend-store-uri {self.uri}"
                )

    def _refuse_deleted(self, name: str | None) -> None:
        """Raises Refusal where the study with a name was deleted in MLflow; if `name` is None, where any study was."""
        with_deleted = self.client.search_experiments(ViewType.ALL)
        experiments = {e.experiment_id: e for e in with_deleted if name in (None, e.name)}
        query = f"tags.`{KIND}` = 'study'"
        deleted = self.client.search_runs([*experiments], query, ViewType.ALL, 1) if experiments else []
        if deleted:
            experiment = experiments[deleted[0].info.experiment_id]
            of_run = experiment.lifecycle_stage == "active"
            what = "run" if of_run else "experiment"
            way_out = restoring("run", deleted[0].info.run_id) if of_run else restoring("experiment", experiment.experiment_id)
            raise Refusal(
                f"`STUDY` must not have been deleted, got {experiment.name}, whose {what} was deleted in {self.uri}. "
                f"{way_out}" + (" Or run the study again: its trials are used." if of_run else "")
            )

    def study_of(self, run_id: str) -> StudyRecord:
        """Returns the record of a study, by the id of its MLflow run; raises Refusal where the record is damaged."""
        run = self.client.get_run(run_id)
        document = self.load_json(run_id, STUDY_FILE)
        return study_of_run(self.uri, document, run_id, run.info.experiment_id, run.info.status, run.data.tags)

    def kind(self, run_id: str) -> str:
        """Returns what a run records: `study`, `trial`, or `single` for a single training.

        Raises:
          Refusal: there is no such run, or it records something else.
        """
        try:
            kind = str(self.client.get_run(run_id).data.tags.get(KIND))
        except Failure:
            raise Refusal(f"`--from` must be the id of a run in {self.uri}, got {run_id!r:.60}. lrscale ui shows them.") from None
        if kind not in ("study", "trial", "single"):
            raise Refusal(f"`--from` must be the run of a study, a trial or a single training, got one of kind {kind:.60}.")
        return kind

    def work(self, run_id: str) -> WorkRecord:
        """Returns the record of a single training, or of a trial and the other trials of its round."""
        run = self.client.get_run(run_id)
        with naming_the_run(self.uri, run_id):
            tags, trial = run.data.tags, trial_of(run_id, run.data.tags)
        config = json.loads(tags[CONFIG])
        if tags[KIND] == "single":
            compute = compute_of(json.loads(tags[COMPUTE]) if COMPUTE in tags else config)
            return WorkRecord(without_compute(config), compute, (trial.params,), 0, trial, True, json.loads(tags[MADE_BY]))
        same_round = [t for t in self.trials(run.info.experiment_id) if round_of(t) == round_of(trial)]
        trained = sorted(same_round if trial.together is not None else [trial], key=lambda t: t.number)
        study = self.study_of(tags[PARENT])
        cells = {cell.id: cell for cell in study.plan.cells}
        cell = cells.get(trial.cell)
        factors: Mapping[str, float] = {}
        if cell is not None and cell.twin is not None and cell.twin.is_same_run:  # its runs were its reference's
            config, factors = dict(cells[cell.twin.of].config), cell.twin.factors
        return WorkRecord(
            config=without_compute(config),
            compute=study.compute,
            together=tuple({key: value / factors.get(key, 1.0) for key, value in t.params.items()} for t in trained),
            index=[t.run_id for t in trained].index(run_id),
            outcome=trial,
            is_whole=trial.together is not None,
            made_by=study.made_by,
        )

    def line(self, run_id: str, name: str) -> Curve:
        """Returns a curve of a trial.

        Args:
          run_id: the id of the trial's MLflow run.
          name: the name of the metric that holds the curve.
        """
        points = sorted((m.step, m.value) for m in self.client.get_metric_history(run_id, name))
        return Curve(tuple(step for step, _ in points), tuple(value for _, value in points))

    def load_json(self, run_id: str, path: str) -> Any:
        """Returns the values of a JSON artifact; raises Refusal where the artifact is damaged."""
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            text = Path(self.client.download_artifacts(run_id, path, folder)).read_bytes()
            with naming_the_run(self.uri, run_id):
                return json.loads(text)

    def files(self, run_id: str, folder: str) -> list[str]:
        """Returns the paths of the artifacts in one folder of a run."""
        return [str(file.path) for file in self.client.list_artifacts(run_id, folder)]

    def run_tags(self, run_id: str) -> dict[str, str]:
        """Returns the tags of a run."""
        return dict(self.client.get_run(run_id).data.tags)

    def experiment_tags(self, experiment: str) -> dict[str, str]:
        """Returns the tags of an experiment, by its id."""
        return dict(self.client.get_experiment(experiment).tags)

    def _experiments(self) -> Iterator[Experiment]:
        token = None
        while True:
            page = self.client.search_experiments(max_results=PAGE, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _runs(self, experiment: str, query: str) -> Iterator[Run]:
        token = None
        while True:
            page = self.client.search_runs([experiment], query, max_results=PAGE, page_token=token)
            yield from page
            token = page.token
            if not token:
                return
