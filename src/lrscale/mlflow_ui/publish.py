"""Writes to a store what MLflow's UI shows of a study: saved views, colours, curves and notes. Every report renews them."""

import hashlib
import time
from collections.abc import Mapping, Sequence

from lrscale.mlflow_ui.notes import study_note
from lrscale.mlflow_ui.probe_views import RunDisplay, hidden_metrics, probe_points
from lrscale.mlflow_ui.saved_views import tags
from lrscale.mlflow_ui.study_views import HIDDEN, cell_points, study_points, views
from lrscale.study.answer import Answer
from lrscale.study.records import TrialRecord
from lrscale.tracking.schema import COLOUR, IMAGES, NOTE, NOTE_WRITTEN, image_key
from lrscale.tracking.store import Store

STUDY_COLOUR = "#1c1c1e"
"""The colour of the study's own run, the parent run of its trials."""
IN_NOTE = ("figures/best_lr_against_batch_size", "figures/objective_against_lr", "figures/quantities")
"""The paths of the figures that a note shows start with these."""


def show_study(store: Store, answer: Answer, trials: Sequence[TrialRecord], figures: Sequence[str]) -> None:
    """Writes the views, curves, colours and notes of a study to its store.

    Args:
      store: the MLflow store that holds the study.
      answer: the answer of the study.
      trials: all trials of the study's experiment.
      figures: the paths of the figures among the artifacts of the parent run; the notes show the IN_NOTE.
    """
    study = answer.study
    pictures = sorted({image_key(path) for path in store.files(study.run_id, IMAGES)}) if figures else []
    menu = views(answer, trials, pictures)
    cells = {run_id: RunDisplay(points, None) for run_id, points in cell_points(answer).items()}
    cells = cells or probe_points(answer, trials)
    parent = RunDisplay([("place", 0.0, 0), *study_points(answer)], STUDY_COLOUR)
    store.mark_shown(study.experiment_id, [study.run_id, *cells])
    for run_id, (points, colour) in {study.run_id: parent, **cells}.items():
        store.log_points(run_id, points, {COLOUR: colour} if colour else {})
    note = study_note(answer, menu, sorted(path for path in figures if path.startswith(IN_NOTE)))
    view_tags = tags(menu, [*HIDDEN, *hidden_metrics(answer)], int(time.time() * 1000))
    store.tag_experiment(study.experiment_id, {**view_tags, **note_tags(note, store.experiment_tags(study.experiment_id))})
    store.tag_run(study.run_id, note_tags(note, store.run_tags(study.run_id)))


def note_tags(note: str, current_tags: Mapping[str, str]) -> dict[str, str]:
    """Returns the tags that replace a note; none if a user has edited the note.

    Args:
      note: the new text of the note.
      current_tags: the tags that the run or the experiment has now.
    """
    if NOTE in current_tags and current_tags.get(NOTE_WRITTEN) != _hash(current_tags[NOTE]):
        return {}
    return {NOTE: note, NOTE_WRITTEN: _hash(note)}


def _hash(text: str) -> str:
    """Returns a short hash of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
