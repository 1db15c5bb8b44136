"""Reads how far the studies of a database on this machine are, by SQL: MLflow, which takes seconds to import, is not needed."""

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from lrscale.study.records import StudyRecord, TrialRecord
from lrscale.tracking.places import ARTIFACTS, is_writable, sqlite_file
from lrscale.tracking.read_tags import TRIAL_TAGS, naming_the_run, study_of_run, trial_of
from lrscale.tracking.schema import EXECUTED, KIND, STUDY_FILE

_OF_KIND = f"lifecycle_stage = 'active' AND run_uuid IN (SELECT run_uuid FROM tags WHERE key = '{KIND}' AND value = ?)"
"""The condition of the runs of a kind that were not deleted."""
_FINISHED = f"status = 'FINISHED' AND {_OF_KIND}"


class NotHere(Exception):
    """Raised where this reader does not find what it needs, so that `Reader` must look, or say what is wrong."""


class QuickReader:
    """A database on this machine, of which only the progress of studies is read. It has the methods of `Reader` for this.

    Each method raises NotHere where the database cannot be read in this way.
    """

    def __init__(self, uri: str, file: Path) -> None:
        self.uri, self.file = uri, file

    @classmethod
    def existing(cls, uri: str) -> Self:
        """Opens a database that exists and can be written: SQLite needs files beside it."""
        file = sqlite_file(uri)
        if file is None or not file.is_file() or not is_writable(file):
            raise NotHere
        return cls(uri, file)

    def study(self, name: str | None) -> StudyRecord:
        """Returns the record of a study's latest execution; if `name` is None, of the latest execution of any study."""
        studies = self._studies("study = ?", name) if name is not None else self._studies("1")
        if not studies:
            raise NotHere
        return self.study_of(studies[0])

    def running(self) -> list[StudyRecord]:
        """Returns the records of the studies that the store has as running, the one that was started last first."""
        return [self.study_of(run_id) for run_id in self._studies("status = 'RUNNING'")]

    def study_of(self, run_id: str) -> StudyRecord:
        """Returns the record of a study, by the id of its run."""
        rows = self._rows("SELECT artifact_uri, experiment_id, status FROM runs WHERE run_uuid = ?", run_id)
        if not rows:
            raise NotHere
        place, experiment, status = rows[0]
        file = Path(unquote(urlsplit(str(place)).path)) / STUDY_FILE
        if not (file.is_relative_to(self.file.parent / ARTIFACTS) and file.is_file()):  # its folder was moved, for example
            raise NotHere
        with naming_the_run(self.uri, run_id):
            document = json.loads(file.read_bytes())
        return study_of_run(self.uri, document, run_id, str(experiment), str(status), self.run_tags(run_id))

    def trials(self, experiment: str) -> list[TrialRecord]:
        """Returns the finished trials of an experiment."""
        runs: dict[str, dict[str, str]] = {}
        places = ", ".join("?" * len(TRIAL_TAGS))
        query = f"SELECT run_uuid, key, value FROM tags NATURAL JOIN runs WHERE experiment_id = ? AND {_FINISHED}"
        for run_id, key, value in self._rows(f"{query} AND key IN ({places})", experiment, "trial", *TRIAL_TAGS):
            runs.setdefault(run_id, {})[key] = value
        trials = []
        for run_id, tags in runs.items():
            with naming_the_run(self.uri, run_id):
                trials.append(trial_of(run_id, tags))
        return trials

    def last_trial(self, experiment: str) -> float | None:
        """Returns the time when an experiment's last trial was recorded, in seconds; None if it has no trial."""
        query = f"SELECT max(end_time) FROM runs WHERE experiment_id = ? AND {_FINISHED}"
        ((ended,),) = self._rows(query, experiment, "trial")
        return None if ended is None else ended / 1000

    def run_tags(self, run_id: str) -> dict[str, str]:
        """Returns the tags of a run."""
        return dict(self._rows("SELECT key, value FROM tags WHERE run_uuid = ?", run_id))

    def _studies(self, condition: str, *values: str) -> list[str]:
        """Returns the ids of the runs of studies with a condition, the one that was started last first."""
        query = (
            "SELECT run_uuid FROM (SELECT runs.*, experiments.name AS study FROM runs JOIN experiments USING (experiment_id) "
            "WHERE experiments.lifecycle_stage = 'active')"
            f" JOIN tags USING (run_uuid) WHERE key = ? AND {_OF_KIND} AND {condition} ORDER BY value DESC"
        )
        return [run_id for (run_id,) in self._rows(query, EXECUTED, "study", *values)]

    def _rows(self, query: str, *values: Any) -> Sequence[tuple[Any, ...]]:
        """Returns the rows of a query. The database is open for a moment only, so that its study can make it one file."""
        try:
            with closing(sqlite3.connect(f"{self.file.as_uri()}?mode=rw", uri=True)) as connection:
                return connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise NotHere from error
