"""The note of a study, which MLflow's UI shows as markdown; its first line is the answer."""

from collections.abc import Sequence
from urllib.parse import quote

from lrscale.mlflow_ui.saved_views import View, link
from lrscale.study.answer import Answer
from lrscale.study.statements import laws
from lrscale.tracking.trial_note import DASHBOARD, escape_markdown

MOST_SHOWN = 20
"""Largest number of laws and of figures in a note: MLflow accepts 20,000 characters."""


def study_note(answer: Answer, views: Sequence[View], figures: Sequence[str]) -> str:
    """Returns the note of a study's experiment and of its parent run, as markdown.

    Args:
      answer: the answer; its laws are the first line.
      views: the saved views, linked in this order.
      figures: paths of the parent run's artifacts; the first MOST_SHOWN are shown, in this order.
    """
    study, plan = answer.study, answer.plan
    trials = sum(len(cell.trials) for cell in answer.cells)
    runs = sum(len(trial.objectives) for cell in answer.cells for trial in cell.trials)
    links = [f"[{view.name}]({link(study.experiment_id, view.id, charts=view == views[0])})" for view in views]
    run = f"#/experiments/{study.experiment_id}/runs/{study.run_id}"
    files = {"report": "report.html", "cells": "cells.csv"} if figures else {}
    files |= {"figure to point at": "interactive.html"} if figures and answer.families else {}
    links += [f"[{words}]({run}/artifacts/{name}?workflowType=machine_learning)" for words, name in files.items()]
    said = laws(answer)
    more = f"and {len(said) - MOST_SHOWN} more in the report" if len(said) > MOST_SHOWN else ""
    lines = [
        " ".join([*map(escape_markdown, said[:MOST_SHOWN]), more]).rstrip(),
        f"**{escape_markdown(plan.question)}**" if plan.question else "",
        f"{len(answer.cells)} cells, {trials} trials, {runs} runs; objective {escape_markdown(plan.objective)}."
        if trials
        else "",
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
    """Returns the address of an artifact for an image in a note."""
    return f"get-artifact?path={quote(path, safe='')}&run_uuid={run_id}"
