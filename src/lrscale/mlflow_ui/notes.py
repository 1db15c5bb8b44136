"""The note of a study, which MLflow's UI shows as markdown; its first line is the answer."""

from collections.abc import Sequence
from urllib.parse import quote

from lrscale.mlflow_ui.saved_views import View, link
from lrscale.study.answer import Answer
from lrscale.study.statements import laws
from lrscale.tracking.trial_note import DASHBOARD, escape_markdown

MOST_SHOWN = 20
"""So many laws and figures stand in a note, which MLflow takes up to 20,000 characters of."""


def study_note(found: Answer, views: Sequence[View], figures: Sequence[str]) -> str:
    """The note of a study's experiment and of its parent run.

    Args:
      found: the answer, which is the first line.
      views: linked in this order.
      figures: paths of artifacts of the parent run, the first are shown in this order.
    """
    study, plan = found.study, found.plan
    trials = sum(len(cell.trials) for cell in found.cells)
    runs = sum(len(trial.objectives) for cell in found.cells for trial in cell.trials)
    links = [f"[{view.name}]({link(study.experiment_id, view.id, charts=view == views[0])})" for view in views]
    run = f"#/experiments/{study.experiment_id}/runs/{study.run_id}"
    files = {"report": "report.html", "cells": "cells.csv"} if figures else {}
    files |= {"figure to point at": "interactive.html"} if figures and found.families else {}
    links += [f"[{words}]({run}/artifacts/{name}?workflowType=machine_learning)" for words, name in files.items()]
    said = laws(found)
    more = f"and {len(said) - MOST_SHOWN} more in the report" if len(said) > MOST_SHOWN else ""
    lines = [
        " ".join([*map(escape_markdown, said[:MOST_SHOWN]), more]).rstrip(),
        f"**{escape_markdown(plan.question)}**" if plan.question else "",
        f"{len(found.cells)} cells, {trials} trials, {runs} runs; objective {escape_markdown(plan.objective)}." if trials else "",
        " · ".join(links),
        *(
            f"![{escape_markdown(name)}]({image(study.run_id, path)})"
            for name, path in ((p.split("/")[-1], p) for p in figures[:MOST_SHOWN])
        ),
        f"Repeat it: `{plan.command}`, report it: `lrscale report {plan.study}`, "
        f"its Optuna studies, [here]({DASHBOARD}) "
        f"while this runs on port 8080: `lrscale ui {plan.study} --optuna`.",
    ]
    return "\n\n".join(line for line in lines if line)


def image(run_id: str, path: str) -> str:
    """Where MLflow's server has an artifact, as notes can show it."""
    return f"get-artifact?path={quote(path, safe='')}&run_uuid={run_id}"
