"""Makes the records of a study and of its trials from what a store holds of their runs. Imports no MLflow."""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from lrscale.errors import Refusal, printable_all
from lrscale.files import reason
from lrscale.study.document import OlderRecord, read_document
from lrscale.study.records import StudyRecord, TrialRecord
from lrscale.tracking.schema import (
    ASKED_UNDER,
    CELL,
    CHECKSUM,
    CONFIG,
    DIVERGED,
    NUMBER,
    OBJECTIVES,
    PARAMS,
    QUANTITIES,
    ROUND,
    SECONDS,
    checksum,
)
from lrscale.training.quantity import Quantity
from lrscale.training.results import mean_objective

TRIAL_TAGS = (ASKED_UNDER, CELL, CHECKSUM, DIVERGED, NUMBER, OBJECTIVES, PARAMS, QUANTITIES, ROUND)
"""The tags from which the record of a trial is made."""
METRIC_ROUNDING = 1e-3
"""The largest relative difference between a metric, which has four digits, and what was measured."""


@contextmanager
def naming_the_run(uri: str, run_id: str) -> Iterator[None]:
    """Adds the id of the run to an error that is raised while its record is read.

    Raises:
      Refusal: the record is damaged, or another version wrote it.
    """
    try:
        yield
    except OlderRecord:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        text = reason(error) if isinstance(error, Refusal) else f"{type(error).__name__} {reason(error)}"
        raise Refusal(
            f"run {run_id} in {uri} is damaged, or a newer lrscale wrote it: {text.rstrip('.')}. "
            "Put back an intact copy, or delete it."
        ) from None


def study_of_run(uri: str, document: object, run_id: str, experiment: str, status: str, tags: Mapping[str, str]) -> StudyRecord:
    """Returns the record of a study from its document, and from its run's experiment, status and tags."""
    with naming_the_run(uri, run_id):
        study = read_document(printable_all(document), run_id, experiment, status)
        return replace(study, seconds=float(tags.get(SECONDS, 0)))


def trial_of(run_id: str, tags: Mapping[str, str]) -> TrialRecord:
    """Returns the record of a trial or a single training from the tags of its run."""
    if tags.get(CHECKSUM, checksum(tags)) != checksum(tags):
        raise ValueError("what was measured was changed after it was recorded")
    params = {str(name): float(value) for name, value in json.loads(tags[PARAMS]).items()}
    return TrialRecord(
        run_id=run_id,
        cell=tags.get(CELL, ""),
        number=int(tags.get(NUMBER, 0)),
        params=params,
        together=int(tags[ROUND]) if ROUND in tags else None,
        objectives=tuple(float(objective) for objective in json.loads(tags[OBJECTIVES])),
        diverged=tuple(bool(d) for d in json.loads(tags[DIVERGED])),
        quantities=tuple(Quantity(**fields) for fields in json.loads(tags.get(QUANTITIES, "[]"))),
        settings=dict(json.loads(tags.get(ASKED_UNDER, "{}"))),
    )


def check_metrics(trial: TrialRecord, tags: Mapping[str, str], metrics: Mapping[str, float]) -> None:
    """Checks that the metrics of a trial, which MLflow's charts show, are what its tags say was measured.

    Raises:
      ValueError: one was changed after it was recorded.
    """
    if '"roles"' in tags.get(CONFIG, ""):  # a script may record metrics of the same names
        return
    measured = {q.name: q.value for q in trial.quantities} or {"objective": mean_objective(trial.objectives)}
    for name, value in measured.items():
        shown = metrics.get(name, value)
        if math.isfinite(value) and not math.isclose(shown, value, rel_tol=METRIC_ROUNDING):
            raise ValueError(f"its metric {name} is {shown:g} and was changed after it was recorded as {value:g}")
