"""Writes what MLflow's UI shows of a study: saved views, colours, curves and notes, anew at every report."""

import hashlib
import time
from collections.abc import Mapping, Sequence

from lrscale.mlflow_ui.notes import study_note
from lrscale.mlflow_ui.probe_views import Shown, hidden_metrics, probe_points
from lrscale.mlflow_ui.saved_views import tags
from lrscale.mlflow_ui.study_views import HIDDEN, cell_points, study_points, views
from lrscale.study.answer import Answer
from lrscale.study.records import TrialRecord
from lrscale.tracking.schema import COLOUR, NOTE, NOTE_WRITTEN
from lrscale.tracking.store import Store

STUDY_COLOUR = "#1c1c1e"

MAIN = ("figures/objective_against_lr", "figures/quantities")


def show_study(store: Store, answer: Answer, trials: Sequence[TrialRecord], figures: Sequence[str]) -> None:
    """Writes views, curves and notes of a study.

    Args:
      store: where the study is.
      answer: its answer.
      trials: all trials of its experiment.
      figures: paths of the parent run's figures, of which the notes show the main ones.
    """
    study = answer.study
    menu = views(answer, trials)
    shown = {run_id: Shown(points, None) for run_id, points in cell_points(answer).items()} or probe_points(answer, trials)
    store.mark_shown(study.experiment_id, [study.run_id, *shown])
    for run_id, (points, colour) in {
        study.run_id: Shown([("place", 0.0, 0), *study_points(answer)], STUDY_COLOUR),
        **shown,
    }.items():
        store.log_points(run_id, points, {COLOUR: colour} if colour else {})
    note = study_note(answer, menu, sorted(path for path in figures if path.startswith(MAIN)))
    saved = tags(menu, [*HIDDEN, *hidden_metrics(answer)], int(time.time() * 1000))
    store.tag_experiment(study.experiment_id, {**saved, **note_tags(note, store.experiment_tags(study.experiment_id))})
    store.tag_run(study.run_id, note_tags(note, store.run_tags(study.run_id)))


def note_tags(note: str, now: Mapping[str, str]) -> dict[str, str]:
    """Returns the tags that write a note; none if a user has edited it.

    Args:
      note: the new text.
      now: the tags as they are now.
    """
    if NOTE in now and now.get(NOTE_WRITTEN) != _hash(now[NOTE]):
        return {}
    return {NOTE: note, NOTE_WRITTEN: _hash(note)}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
