"""Reading an MLflow store: studies, trials and single trainings as records, and what else its runs hold."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from mlflow.entities import Experiment, Run

from lrscale.errors import Failure, Refusal, printable_all
from lrscale.files import reason
from lrscale.study.document import cell_id, compute_of, read_document, without_compute
from lrscale.study.records import Curve, StudyRecord, TrialRecord, WorkRecord
from lrscale.tracking.client import check_uri, open_client, sqlite_file
from lrscale.tracking.schema import (
    CELL,
    COMPUTE,
    CONFIG,
    DIVERGED,
    EXECUTED,
    KIND,
    MADE_BY,
    NUMBER,
    OBJECTIVES,
    PARAMS,
    PARENT,
    QUANTITIES,
    ROUND,
    SECONDS,
    STUDY_FILE,
)
from lrscale.training.quantity import Quantity

PAGE = 1000
"""Runs read at a time."""
OLDER = '"memory_mb"'
"""Stands in the configs of older versions: see `cell_id`."""


class Reader:
    """An MLflow store, a database on this machine or a server, as far as it is read."""

    def __init__(self, uri: str) -> None:
        """Opens a store, creating a database that is not there yet.

        Raises:
          Refusal: it cannot be opened.
        """
        self.uri, self.file = uri, sqlite_file(uri)
        self.client = open_client(uri)
        self.address = self.client.uri

    @classmethod
    def existing(cls, uri: str) -> Self:
        """Opens a store to read from; a database that is not there is refused, not made."""
        check_uri(uri)
        if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
            raise Refusal(
                f"`--tracking-uri` must be a store that is there, got {uri}. Run a study first: lrscale run -m sweeps=quickstart."
            )
        return cls(uri)

    def trials(self, experiment: str) -> list[TrialRecord]:
        """Reads an experiment's finished trials."""
        found = []
        for run in self._runs(experiment, f"tags.`{KIND}` = 'trial' and attributes.status = 'FINISHED'"):
            with _named(self.uri, run.info.run_id):
                found.append(_trial(run))
        return found

    def last_trial(self, experiment: str) -> float | None:
        """When an experiment's last trial was recorded, in seconds; None if there is none."""
        query = f"tags.`{KIND}` = 'trial' and attributes.status = 'FINISHED'"
        found = self.client.search_runs([experiment], query, max_results=1, order_by=["attributes.end_time DESC"])
        return found[0].info.end_time / 1000 if found else None

    def study(self, name: str | None) -> StudyRecord:
        """Reads the latest execution of a study, or of any study if no name is given.

        Raises:
          Refusal: there is none.
        """
        experiments = {e.experiment_id: e.name for e in self._experiments()}
        wanted = [i for i, n in experiments.items() if name in (None, n)]
        latest = [f"tags.`{EXECUTED}` DESC"]
        runs = self.client.search_runs(wanted, f"tags.`{KIND}` = 'study'", max_results=1, order_by=latest) if wanted else []
        if not runs:
            known = ", ".join(sorted(n for n in experiments.values() if n != "Default")) or "none"
            raise Refusal(
                f"`STUDY` must be a study in {self.uri}, got {name or 'no name'}. There: {known}. "
                "Run one with lrscale run -m sweeps=quickstart."
            )
        run = runs[0]
        return self.study_of(run.info.run_id)

    def study_of(self, run_id: str) -> StudyRecord:
        """Reads a study by its run."""
        return self._study_record(self.client.get_run(run_id), self.load_json(run_id, STUDY_FILE))

    def kind(self, run_id: str) -> str:
        """What a run records: a study, a trial or a single training.

        Raises:
          Refusal: there is no such run, or it records something else.
        """
        try:
            found = str(self.client.get_run(run_id).data.tags.get(KIND))
        except Failure:
            raise Refusal(f"`--from` must be the id of a run in {self.uri}, got {run_id!r:.60}. lrscale ui shows them.") from None
        if found not in ("study", "trial", "single"):
            raise Refusal(f"`--from` must be the run of a study, a trial or a single training, got one of kind {found:.60}.")
        return found

    def work(self, run_id: str) -> WorkRecord:
        """Reads a trial with its round, or a single training."""
        run = self.client.get_run(run_id)
        tags, trial = run.data.tags, _trial(run)
        config = json.loads(tags[CONFIG])
        if tags[KIND] == "single":
            compute = compute_of(json.loads(tags[COMPUTE]) if COMPUTE in tags else config)
            return WorkRecord(without_compute(config), compute, (trial.params,), 0, trial, True, json.loads(tags[MADE_BY]))
        same_round = [t for t in self.trials(run.info.experiment_id) if (t.cell, t.together) == (trial.cell, trial.together)]
        trained = sorted(same_round if trial.together is not None else [trial], key=lambda t: t.number)
        study = self.study_of(tags[PARENT])
        return WorkRecord(
            config=without_compute(config),
            compute=study.compute,
            together=tuple(t.params for t in trained),
            index=[t.run_id for t in trained].index(run_id),
            outcome=trial,
            is_whole=trial.together is not None,
            made_by=study.made_by,
        )

    def line(self, run_id: str, name: str) -> Curve:
        """Reads a trial's curve."""
        points = sorted((m.step, m.value) for m in self.client.get_metric_history(run_id, name))
        return Curve(tuple(step for step, _ in points), tuple(value for _, value in points))

    def load_json(self, run_id: str, path: str) -> Any:
        """Reads a JSON artifact."""
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            text = Path(self.client.download_artifacts(run_id, path, folder)).read_bytes()
            with _named(self.uri, run_id):
                return json.loads(text)

    def files(self, run_id: str, folder: str) -> list[str]:
        """Paths of the artifacts in a folder of a run's."""
        return [str(file.path) for file in self.client.list_artifacts(run_id, folder)]

    def run_tags(self, run_id: str) -> dict[str, str]:
        return dict(self.client.get_run(run_id).data.tags)

    def experiment_tags(self, experiment: str) -> dict[str, str]:
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

    def _study_record(self, run: Run, document: object) -> StudyRecord:
        with _named(self.uri, run.info.run_id):
            study = read_document(printable_all(document), run.info.run_id, run.info.experiment_id, run.info.status)
            return replace(study, seconds=float(run.data.tags.get(SECONDS, 0)))


@contextmanager
def _named(uri: str, run_id: str) -> Iterator[None]:
    """Names the run where a record in it is damaged, or not one of ours.

    Raises:
      Refusal: it is.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        text = reason(error) if isinstance(error, Refusal) else f"{type(error).__name__} {reason(error)}"
        raise Refusal(
            f"run {run_id} in {uri} is damaged, or a newer lrscale's: {text.rstrip('.')}. Put back a whole copy, or delete it."
        ) from None


def _trial(run: Run) -> TrialRecord:
    tags = run.data.tags
    params = {str(name): float(value) for name, value in json.loads(tags[PARAMS]).items()}
    cell = tags.get(CELL, "")
    if OLDER in (config := tags.get(CONFIG, "")):
        cell = cell_id(cell, json.loads(config), params)
    return TrialRecord(
        run_id=run.info.run_id,
        cell=cell,
        number=int(tags.get(NUMBER, 0)),
        params=params,
        together=int(tags[ROUND]) if ROUND in tags else None,
        objectives=tuple(float(objective) for objective in json.loads(tags[OBJECTIVES])),
        diverged=tuple(bool(d) for d in json.loads(tags[DIVERGED])),
        quantities=tuple(Quantity(**fields) for fields in json.loads(tags.get(QUANTITIES, "[]"))),
    )
