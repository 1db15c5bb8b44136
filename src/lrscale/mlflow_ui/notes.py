"""Notes that MLflow's UI shows as markdown: the answer of a study, and what a trial is; the first line says it all."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

from lrscale.mlflow_ui.saved_views import View, link
from lrscale.study.plan import Cell, study_name, trial_label, with_values
from lrscale.training.results import Result

if TYPE_CHECKING:
    from lrscale.study.answer import Answer

DASHBOARD = "http://127.0.0.1:8080/dashboard/"
"""Where `lrscale ui --optuna` serves optuna-dashboard, unless that port is taken."""

SHOWN = 20
"""So many laws and figures stand in a note, which MLflow takes up to 20,000 characters of."""


def study_note(found: "Answer", views: Sequence[View], figures: Sequence[str]) -> str:
    """The note of a study's experiment and of its parent run.

    Args:
      found: the answer, which is the first line.
      views: linked in this order.
      figures: paths of artifacts of the parent run, the first are shown in this order.
    """
    from lrscale.study.statements import laws  # scipy: only where there is an answer

    study = found.study
    trials = sum(len(cell.trials) for cell in found.cells)
    runs = sum(len(trial.objectives) for cell in found.cells for trial in cell.trials)
    links = [f"[{view.name}]({link(study.experiment_id, view.id, charts=view == views[0])})" for view in views]
    run = f"#/experiments/{study.experiment_id}/runs/{study.run_id}"
    files = {"report": "report.html", "cells": "cells.csv"} if figures else {}
    files |= {"figure to point at": "interactive.html"} if figures and found.families else {}
    links += [f"[{words}]({run}/artifacts/{name}?workflowType=machine_learning)" for words, name in files.items()]
    said = laws(found)
    more = f"and {len(said) - SHOWN} more in the report" if len(said) > SHOWN else ""
    lines = [
        " ".join([*map(plain, said[:SHOWN]), more]).rstrip(),
        f"**{plain(study.question)}**" if study.question else "",
        f"{len(found.cells)} cells, {trials} trials, {runs} runs; objective {plain(study.objective)}." if trials else "",
        " · ".join(links),
        *(f"![{plain(name)}]({image(study.run_id, path)})" for name, path in ((p.split("/")[-1], p) for p in figures[:SHOWN])),
        f"Repeat it: `{study.command}`, report it: `lrscale report {study.study}`, "
        f"its Optuna studies, [here]({DASHBOARD}) "
        f"while this runs on port 8080: `lrscale ui {study.study} --optuna`.",
    ]
    return "\n\n".join(line for line in lines if line)


def trial_note(study: str, cell: Cell, number: int, params: Mapping[str, float], result: Result) -> str:
    """The note of a trial: its outcome, its Optuna trial, its overrides, and its resolved config as YAML."""
    outcome = f"objective {result.objective:.4g}" if math.isfinite(result.objective) else "objective infinite"
    seeds = f"{sum(result.diverged)} of {len(result.diverged)} seeds diverged"
    overrides = [*cell.overrides, *(f"{key}={value}" for key, value in {**cell.values, **params}.items())]
    lines = [
        f"{plain(trial_label(cell.label, params))}: {outcome}, {seeds}",
        f"[Optuna]({DASHBOARD}): trial {number} of the study `{study_name(study, cell.label, cell.id)}`, "
        f"served by `lrscale ui {study} --optuna` (the link holds for port 8080; where that is taken, it prints its own)",
        f"Overrides: `{' '.join(overrides)}`",
        f"```yaml\n{yaml(with_values(cell.config, params))}\n```",
    ]
    return "\n\n".join(lines)


def yaml(config: Mapping[str, object]) -> str:
    """A config of plain values, two levels deep, as YAML."""
    lines = []
    for key, value in config.items():
        if isinstance(value, Mapping):
            lines += [f"{key}:", *(f"  {name}: {_scalar(inner)}" for name, inner in value.items())]
        else:
            lines.append(f"{key}: {_scalar(value)}")
    return "\n".join(lines)


def _scalar(value: object) -> str:
    return json.dumps(value)


def image(run_id: str, path: str) -> str:
    """Where MLflow's server has an artifact, as notes can show it."""
    return f"get-artifact?path={quote(path, safe='')}&run_uuid={run_id}"


def plain(text: str) -> str:
    """Text in which markdown finds nothing to format.

    Example:
      >>> print(plain("lr_sum* = c^-1"))
      lr\\_sum\\* = c^-1
    """
    return "".join("\\" + c if c in "\\`*_[]<>#" else c for c in text)
