"""The report of a study: as text, as JSON, as one HTML page with figures; from what MLflow holds alone."""

import gc
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.console import Console

from lrscale.files import as_yaml, safe_name, write_whole
from lrscale.mlflow_ui.publish import show_study
from lrscale.mlflow_ui.saved_views import SUMMARY, link
from lrscale.report.csv import as_csv
from lrscale.report.draw import draw, loss_name
from lrscale.report.html import as_html
from lrscale.report.json import as_json
from lrscale.report.text import show
from lrscale.signals import uninterrupted
from lrscale.study.answer import Answer, answer
from lrscale.study.claims import check_claims
from lrscale.study.records import Curve, StudyRecord
from lrscale.tracking.store import Store
from lrscale.training.results import examples_seen


def print_report(study: str | None, uri: str, form: str) -> None:
    """Prints the report of a study in a form: text, json or html.

    Raises:
      Refusal: the store or the study is not there.
    """
    store = Store.existing(uri)
    record = store.study(study)
    check_claims(record.plan)
    gc.freeze()  # what is loaded by now stays: collecting it over and over took half of the reading
    trials = store.trials(record.experiment_id)
    found = answer(record, trials)
    if form == "json":
        print(json.dumps(as_json(found), indent=2, allow_nan=False))
    elif form == "html":
        print(as_html(found, draw(found, best_lines(store, found))), end="")
    else:
        show(found, Console(highlight=False, markup=False, emoji=False))
        if store.writable():
            with uninterrupted():
                show_study(store, found, trials, [p for p in store.files(record.run_id, "figures") if p.endswith(".png")])


def write_report(store: Store, study: StudyRecord, console: Console) -> None:
    """Shows the answer, and writes report and figures to `studies/<study>/` and to the study's run."""
    trials = store.trials(study.experiment_id)
    found = answer(study, trials)
    show(found, console)  # first: a disk that is full now costs the files alone
    figures = draw(found, best_lines(store, found))
    folder = _write(found, figures)
    checked = found.verdicts
    metrics = {"claims_held": float(sum(v.holds for v in checked)), "claims": float(len(checked))}
    if len(found.families) == 1 and found.families[0].ratio is not None:
        metrics["ratio_slope"] = round(found.families[0].ratio.value, 4)
    with uninterrupted():
        store.keep_files(study.run_id, folder, metrics)
        show_study(store, found, trials, [f"figures/{name}.png" for name in figures])
    _name_files(console, folder, figures)
    console.print(f"browse   lrscale ui {study.plan.study}")
    address = store.uri.rstrip("/") if store.uri.startswith("http") else "http://127.0.0.1:5000"
    console.print(f"link     {address}{link(study.experiment_id, SUMMARY, charts=True)}", soft_wrap=True, highlight=False)


def write_answer(found: Answer, console: Console) -> None:
    """Does what can be done while the store is away: report and figures in `studies/<study>/`, without the loss curves."""
    show(found, console)
    figures = draw(found, {})
    _name_files(console, _write(found, figures), figures)


def _write(found: Answer, figures: Mapping[str, Mapping[str, bytes]]) -> Path:
    """Writes report and figures to a study's folder."""
    from lrscale.report.figures.interactive import page

    folder = Path("studies") / safe_name(found.plan.study)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for name, files in figures.items():
        for suffix, content in files.items():
            write_whole(folder / "figures" / f"{name}.{suffix}", content)
    document = as_json(found)
    write_whole(folder / "report.json", json.dumps(document, indent=2, allow_nan=False) + "\n")
    write_whole(folder / "report.html", as_html(found, figures))
    write_whole(folder / "cells.csv", as_csv(document["cells"] or document["quantities"]))
    write_whole(folder / "environment.yaml", as_yaml(found.study.made_by) + "\n")
    if found.families:
        write_whole(folder / "interactive.html", page(found))
    return folder


def _name_files(console: Console, folder: Path, figures: Iterable[str]) -> None:
    main = next((n for n in figures if n.startswith(("best_lr", "quantities"))), None)
    if main:
        console.print(f"figure   {folder / 'figures' / main}.png")
    console.print(f"report   {folder / 'report.html'}")


def best_lines(store: Store, found: Answer) -> dict[str, Curve]:
    """The loss curve of each cell's best trial, by cell, its steps counted in examples; a damaged store may lack them."""
    lines = {}
    for cell in found.cells:
        trial = cell.best_trial()
        if trial is not None:
            line = store.line(trial.run_id, loss_name(found))
            lines[cell.cell.id] = Curve(tuple(examples_seen(cell.training, s) for s in line.steps), line.values)
    return lines
