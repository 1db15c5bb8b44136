"""A run as plain values: what is recorded of a trial, as MLflow's tags, parameters and metrics."""

import itertools
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lrscale.provenance import source_tags
from lrscale.study.config import make_training
from lrscale.tracking.schema import CONFIG, DIVERGED, NUMBER, OBJECTIVES, QUANTITIES
from lrscale.training.results import Result

LOSS_CURVES = ("excess_risk", "train_loss")
"""Curves that are recorded step by step; of the others the last value is. A point costs 0.08 ms."""


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
    """The record of one run: what it is in its tags, what varies in its parameters, loss curves and numbers as metrics."""
    tags = {
        **tags,
        **source_tags(),
        OBJECTIVES: json.dumps(result.objectives),
        DIVERGED: json.dumps([int(d) for d in result.diverged]),
        CONFIG: json.dumps(dict(config)),
    }
    if result.quantities:
        tags[QUANTITIES] = json.dumps([asdict(quantity) for quantity in result.quantities])
    now = now_ms()
    metrics = [(key, rounded(value), now, 0) for key, value in summary(params, result).items()]
    metrics += [("steps", make_training(config).steps, now, 0)]
    metrics += [("examples", *at) for at in zip(result.examples, itertools.repeat(now), result.steps, strict=False)]
    metrics += [("trial", int(tags[NUMBER]), now, 0)] if NUMBER in tags else []
    metrics += [("objective_by_seed", o, now, i) for i, o in enumerate(result.objectives) if math.isfinite(o)]
    for key in LOSS_CURVES:
        points = zip(result.steps, result.curves.get(key, ()), strict=False)
        metrics += [(key, value, now, step) for step, value in points if math.isfinite(value)]
    tuned = {key.rpartition(".")[2]: f"{value:.4g}" for key, value in params.items()}
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
    """A run as plain values: what `client.deliver` writes, now or from disk. Times are in milliseconds."""
    return {
        "kind": "run",
        "experiment": experiment,
        "name": name,
        "tags": dict(tags),
        "started": now_ms() if started is None else started,
        "ended": now_ms(),
        "params": dict(params or {}),
        "metrics": list(metrics),
        "files": dict(files or {}),
        "status": status,
    }


def summary(params: Mapping[str, float], result: Result) -> dict[str, float]:
    """The numbers of a trial that MLflow's table and charts show: finite ones only, as its screens take no inf."""
    if result.quantities:
        expected = {f"{q.name}.expected": q.expected for q in result.quantities if q.expected is not None}
        return {q.name: q.value for q in result.quantities} | expected
    worst = math.log10(max(10 * abs(result.curves["train_loss"][0]), 1e-300))
    objective = result.objective
    shown = {f"log10_{key.rpartition('.')[2]}": math.log10(value) for key, value in params.items() if value > 0}
    shown |= {"diverged": float(sum(result.diverged)), "seeds": float(len(result.objectives))}
    if math.isfinite(objective):
        shown["objective"] = objective
        shown["log10_objective"] = min(math.log10(max(objective, 1e-300)), worst)
    else:
        shown["log10_objective"] = worst
    return shown | {f"final/{name}": value for name, value in result.ends.items()}


def rounded(value: float) -> float:
    """Four significant digits, for numbers that are read in a table; exact values are in the tags."""
    return float(f"{value:.4g}")


def now_ms() -> int:
    return int(time.time() * 1000)
