"""Writes the note of a study, which MLflow's UI shows as markdown. Its first line is the answer."""

import shlex
from collections.abc import Sequence
from urllib.parse import quote

from lrscale.mlflow_ui.saved_views import View, link
from lrscale.study.answer import Answer
from lrscale.study.claims import Verdict, in_count
from lrscale.study.statements import laws
from lrscale.study.verdict import HOLDS
from lrscale.tracking.trial_note import DASHBOARD, escape_markdown

OPEN = "Summary:"
"""The first word of a note, which links the summary: `mlflow ui` opens an experiment with this note and none of its runs."""
MOST_SHOWN = 20
"""The largest number of laws, of claims, and of figures in a note. MLflow accepts at most 20,000 characters."""


def study_note(answer: Answer, views: Sequence[View], figures: Sequence[str]) -> str:
    """Returns the note of a study's experiment and of its parent run, as markdown.

    The address of the first link stands in the last line: MLflow's list of experiments shows the first words as they are.

    Args:
      answer: the answer of the study; its laws are the first line.
      views: the saved views, from the summary on; the note links them in this order.
      figures: the paths of the figures among the artifacts of the parent run; the note shows the first MOST_SHOWN.
    """
    study, plan = answer.study, answer.plan
    trials = sum(len(cell.trials) for cell in answer.cells)
    runs = sum(len(trial.objectives) for cell in answer.cells for trial in cell.trials)
    links = [f"[{view.name}]({link(study.experiment_id, view.id, charts=view == views[0])})" for view in views]
    run = f"#/experiments/{study.experiment_id}/runs/{study.run_id}"
    files = {"report": "report.html", "cells": "cells.csv"} if figures else {}
    links += [f"[{text}]({run}/artifacts/{name}?workflowType=machine_learning)" for text, name in files.items()]
    sentences = laws(answer)
    more = f"and {len(sentences) - MOST_SHOWN} more in the report" if len(sentences) > MOST_SHOWN else ""
    lines = [
        " ".join([f"[{OPEN}]", *map(escape_markdown, sentences[:MOST_SHOWN]), more]).rstrip(),
        f"**{escape_markdown(plan.question)}**" if plan.question else "",
        _claims(answer.verdicts) if answer.families else "",
        f"{len(answer.cells)} cells, {trials} trials, {runs} runs; objective {escape_markdown(plan.objective)}."
        if trials
        else "",
        " · ".join(links),
        *(
            f"![{escape_markdown(name)}]({image(study.run_id, path)})"
            for name, path in ((figure.split("/")[-1], figure) for figure in figures[:MOST_SHOWN])
        ),
        f"Repeat the study: `{plan.command}`. Report it again: `lrscale report {shlex.quote(plan.study)}`. "
        f"[Its Optuna studies]({DASHBOARD}) can be seen while `lrscale ui {shlex.quote(plan.study)} --optuna` runs "
        "(the link is for port 8080; if another program uses that port, the command prints another link).",
        f"[{OPEN}]: {link(study.experiment_id, views[0].id, charts=True)}",
    ]
    return "\n\n".join(line for line in lines if line)


def _claims(verdicts: Sequence[Verdict]) -> str:
    """Returns how many claims have each verdict, and the first few that do not hold; empty for no claims."""
    if not verdicts:
        return ""
    others = [f"{escape_markdown(v.name)} ({v.verdict})" for v in verdicts if v.verdict != HOLDS]
    more = [f"and {len(others) - MOST_SHOWN} more"] if len(others) > MOST_SHOWN else []
    return ": ".join(filter(None, (in_count([v.verdict for v in verdicts]), ", ".join(others[:MOST_SHOWN] + more)))) + "."


def image(run_id: str, path: str) -> str:
    """Returns the address of an image in a note.

    Args:
      run_id: the id of the run that holds the image.
      path: the path of the image among the run's artifacts.
    """
    return f"get-artifact?path={quote(path, safe='')}&run_uuid={run_id}"
