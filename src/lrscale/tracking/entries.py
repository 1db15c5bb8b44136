"""Makes the entry of an MLflow run: plain values that hold the tags, parameters, metrics and files to be written."""

import itertools
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lrscale.errors import masked
from lrscale.provenance import source_tags
from lrscale.study.config import make_training
from lrscale.tracking.schema import CHECKSUM, CONFIG, DIVERGED, NUMBER, OBJECTIVES, OUTCOME, QUANTITIES, checksum
from lrscale.training.results import Result

LOSS_CURVES = ("excess_risk", "population_risk", "train_loss")
"""Curves that are recorded step by step. Of the other curves only the last value is recorded. A point costs 0.08 ms."""


ENDS = ("valid_loss", "valid_error", "steps_to_target")
"""The last values that are recorded as metrics. The others are the ends of curves, or stand in the note of the trial."""


def trial_entry(
    experiment: str,
    name: str,
    tags: Mapping[str, str],
    config: Mapping[str, Any],
    shown: Mapping[str, str],
    params: Mapping[str, float],
    result: Result,
    started: int | None,
) -> dict[str, Any]:
    """Returns the entry of a finished trial or a single training.

    The tags say what it is and hold exact values. The parameters are what varies between the runs of the table. The
    metrics hold the loss curves and the numbers of `summary`.

    Args:
      experiment: the id of the MLflow experiment.
      name: the name of the MLflow run.
      tags: tags besides those that are made from the result.
      config: the config of the training.
      shown: parameters besides the tuned hyperparameters.
      params: the tuned hyperparameters, by dotted key.
      result: what the training returned.
      started: the start time in milliseconds; None for now.
    """
    tags = {
        **tags,
        **source_tags(),
        OBJECTIVES: json.dumps(result.objectives),
        DIVERGED: json.dumps([int(d) for d in result.diverged]),
        CONFIG: json.dumps(dict(config)),
    }
    if any(result.diverged):
        tags[OUTCOME] = result.diverged_in_words
    if result.quantities:
        tags[QUANTITIES] = json.dumps([asdict(quantity) for quantity in result.quantities])
    tags[CHECKSUM] = checksum(tags)
    now = now_ms()
    metrics = [(key, rounded(value), now, 0) for key, value in summary(params, result).items()]
    training = make_training(config)
    metrics += [("examples", *at) for at in zip(result.examples, itertools.repeat(now), result.steps, strict=False)]
    metrics += [("trial", int(tags[NUMBER]), now, 0)] if NUMBER in tags else []
    metrics += [("objective_by_seed", o, now, i) for i, o in enumerate(result.objectives) if math.isfinite(o)]
    for key in result.curves if training.is_script else LOSS_CURVES:
        points = zip(result.steps, result.curves.get(key, ()), strict=False)
        metrics += [(key, value, now, step) for step, value in points if math.isfinite(value)]
    tuned = {key.rpartition(".")[2]: f"{value:.4g}" for key, value in params.items()}
    tuned |= {} if result.quantities or training.is_script else {"steps": str(training.steps)}
    return entry(experiment, name, tags, started, {**shown, **tuned}, metrics)


def entry(
    experiment: str,
    name: str,
    tags: Mapping[str, str],
    started: int | None = None,
    params: Mapping[str, str] | None = None,
    metrics: Sequence[tuple[str, float, int, int]] = (),
    status: str = "FINISHED",
    files: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Returns the entry of a run. `client.deliver` writes it, either at once or later from disk.

    Args:
      experiment: the id of the MLflow experiment.
      name: the name of the MLflow run.
      tags: its tags.
      started: the start time in milliseconds; None for now. The end time is now.
      params: its parameters.
      metrics: name, value, time in milliseconds and step of each point.
      status: FINISHED or FAILED.
      files: the text of each artifact, by file name.
    """
    return {
        "kind": "run",
        "experiment": experiment,
        "name": name,
        "tags": dict(tags),
        "started": now_ms() if started is None else started,
        "ended": now_ms(),
        "params": dict(params or {}),
        "metrics": list(metrics),
        "files": {name: masked(text) for name, text in (files or {}).items()},
        "status": status,
    }


def summary(params: Mapping[str, float], result: Result) -> dict[str, float]:
    """Returns the numbers of a trial that MLflow's table and charts show. All are finite, because MLflow cannot show inf.

    They are few, because the page of a trial has a chart for each.
    """
    if result.quantities:
        expected = {f"{q.name}.expected": q.expected for q in result.quantities if q.expected is not None}
        return {q.name: q.value for q in result.quantities} | expected
    objective = result.objective
    shown = {f"log10_{key.rpartition('.')[2]}": math.log10(value) for key, value in params.items() if value > 0}
    shown |= {"diverged": float(sum(result.diverged))}
    if math.isfinite(objective):
        shown["objective"] = objective
        shown |= {"log10_objective": math.log10(objective)} if objective > 0 else {}
    return shown | {f"final/{name}": value for name, value in result.ends.items() if name in ENDS}


def rounded(value: float) -> float:
    """Returns a number with four significant digits, to be read in a table. The tags hold the exact values."""
    return float(f"{value:.4g}")


def now_ms() -> int:
    """Returns the time in milliseconds, as MLflow counts it."""
    return int(time.time() * 1000)
