"""The report of a study: as text, as JSON, as one HTML page with figures; from what MLflow holds alone."""

import gc
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.console import Console

from lrscale.files import safe_name, write_whole
from lrscale.mlflow_ui.publish import put_on_show
from lrscale.mlflow_ui.saved_views import SUMMARY, link
from lrscale.report.html import as_html
from lrscale.report.json import as_json
from lrscale.report.text import show
from lrscale.signals import whole
from lrscale.study.answer import Answer, answer
from lrscale.study.claims import check_claims, verdicts
from lrscale.study.records import Line, StudyRecord
from lrscale.tracking.store import Store
from lrscale.training.results import examples_seen


def print_report(study: str | None, uri: str, form: str) -> None:
    """Prints the report of a study in a form: text, json or html.

    Raises:
      Refusal: the store or the study is not there.
    """
    store = Store.existing(uri)
    record = store.study(study)
    check_claims(record)
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
            with whole():
                put_on_show(store, found, trials, [p for p in store.files(record.run_id, "figures") if p.endswith(".png")])


def write_report(store: Store, study: StudyRecord, console: Console) -> None:
    """Shows the answer, and writes report and figures to `studies/<study>/` and to the study's run."""
    trials = store.trials(study.experiment_id)
    found = answer(study, trials)
    show(found, console)  # first: a disk that is full now costs the files alone
    figures = draw(found, best_lines(store, found))
    folder = _write(found, figures)
    checked = verdicts(found)
    metrics = {"claims_held": float(sum(v.holds for v in checked)), "claims": float(len(checked))}
    if len(found.families) == 1 and found.families[0].ratio is not None:
        metrics["ratio_slope"] = round(found.families[0].ratio.value, 4)
    with whole():
        store.keep_files(study.run_id, folder, metrics)
        put_on_show(store, found, trials, [f"figures/{name}.png" for name in figures])
    _name_files(console, folder, figures)
    console.print(f"browse   lrscale ui {study.study}")
    address = store.uri.rstrip("/") if store.uri.startswith("http") else "http://127.0.0.1:5000"
    console.print(f"link     {address}{link(study.experiment_id, SUMMARY, charts=True)}", soft_wrap=True, highlight=False)


def write_answer(found: Answer, console: Console) -> None:
    """Does what can be done while the store is away: report and figures in `studies/<study>/`, without the loss curves."""
    show(found, console)
    figures = draw(found, {})
    _name_files(console, _write(found, figures), figures)


def _write(found: Answer, figures: Mapping[str, Mapping[str, bytes]]) -> Path:
    """Writes report and figures to a study's folder."""
    from lrscale.report.csv import attachments

    folder = Path("studies") / safe_name(found.study.study)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for name, files in figures.items():
        for suffix, content in files.items():
            write_whole(folder / "figures" / f"{name}.{suffix}", content)
    document = as_json(found)
    write_whole(folder / "report.json", json.dumps(document, indent=2, allow_nan=False) + "\n")
    write_whole(folder / "report.html", as_html(found, figures))
    for name, text in attachments(found, document["cells"] or document["quantities"]).items():
        write_whole(folder / name, text)
    return folder


def _name_files(console: Console, folder: Path, figures: Iterable[str]) -> None:
    main = next((n for n in figures if n.startswith(("best_lr", "quantities"))), None)
    if main:
        console.print(f"figure   {folder / 'figures' / main}.png")
    console.print(f"report   {folder / 'report.html'}")


def draw(found: Answer, lines: Mapping[str, Line]) -> dict[str, dict[str, bytes]]:
    """Draws all figures: name -> format (png, svg) -> content; `lines` are the loss curves of each cell's best trial, by cell."""
    from lrscale.report.figures import curves as plots

    drawn: dict[str, dict[str, bytes]] = {}
    if found.measurements:
        from lrscale.report.figures import quantities as quantity_plots

        drawn["quantities"] = plots.files(quantity_plots.quantities(found))
    for i, family in enumerate(found.families):
        suffix = f"_{i + 1}" if len(found.families) > 1 else ""
        if not any(cell.best for cell in family.cells):
            continue
        figures = {
            "objective_against_lr": plots.objective_against_lr(found, family),
            "best_lr_against_batch_size": plots.best_lr_against_batch_size(found, family),
            **({"steps_against_batch_size": plots.steps_against_batch_size(family)} if family.trade_off else {}),
        }
        if any(max(lines[c.record.id].steps, default=0) > 0 for c in family.cells if c.record.id in lines):
            figures["loss_against_examples"] = plots.loss_against_examples(found, family, lines, _loss(found))
        for title, figure in figures.items():
            drawn[title + suffix] = plots.files(figure)
    return drawn


def main_figures(found: Answer) -> dict[str, bytes]:
    """The figures that answer the study's question, as SVG by file name: one for each family of cells."""
    chosen = [files["svg"] for name, files in draw(found, {}).items() if name.startswith(("best_lr", "quantities"))]
    return {f"figure{f'_{i}' if i > 1 else ''}.svg": content for i, content in enumerate(chosen, 1)}


def _loss(found: Answer) -> str:
    return "excess_risk" if found.study.objective == "excess_risk" else "train_loss"


def best_lines(store: Store, found: Answer) -> dict[str, Line]:
    """The loss curve of each cell's best trial, by cell, its steps counted in examples; a damaged store may lack them."""
    lines = {}
    for cell in found.cells:
        trial = cell.best_trial()
        if trial is not None:
            line = store.line(trial.run_id, _loss(found))
            lines[cell.record.id] = Line(tuple(examples_seen(cell.training, s) for s in line.steps), line.values)
    return lines
