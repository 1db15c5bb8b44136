"""Makes the report of a study from MLflow's records alone: as text, as JSON, and as an HTML page with figures."""

import gc
import json
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.console import Console

from lrscale.errors import without_login
from lrscale.files import as_yaml, safe_name, write_whole
from lrscale.mlflow_ui.publish import show_study
from lrscale.mlflow_ui.saved_views import SUMMARY, link
from lrscale.report.csv import as_csv
from lrscale.report.draw import MAIN_FIGURES, draw, loss_name
from lrscale.report.figures.card import card
from lrscale.report.html import as_html
from lrscale.report.json import as_json
from lrscale.report.text import show
from lrscale.study.answer import Answer, answer
from lrscale.study.claims import check_claims, ratio_judgement, require_held, strict_verdicts
from lrscale.study.records import Curve, StudyRecord
from lrscale.study.verdict import CANNOT_TELL, FAILS, HOLDS
from lrscale.system import uninterrupted
from lrscale.tracking.delivery import Undelivered
from lrscale.tracking.store import Store
from lrscale.training.results import examples_seen


def print_report(study: str | None, uri: str, form: str, strict: bool = False, verbose: bool = False) -> None:
    """Prints the report of a study. The form `text` also refreshes what MLflow's screens show of the study.

    Args:
      study: the name of the study; None for the latest.
      uri: the URI of the MLflow store.
      form: `text`, `json` or `html`.
      strict: whether every claim must hold.
      verbose: whether the text has all rows of all tables.

    Raises:
      Refusal: the store does not exist or does not hold the study, or the study's record cannot be used.
      Failure: `strict`, and a claim fails or cannot be told; the report has been printed.
    """
    store = Store.existing(uri)
    record = store.study(study)
    check_claims(record.plan)
    gc.freeze()  # the objects loaded by now stay alive: collecting them again and again took half of the reading
    trials = store.trials(record.experiment_id)
    study_answer = answer(record, trials)
    if form == "json":
        print(json.dumps(as_json(study_answer), indent=2, allow_nan=False))
    elif form == "html":
        print(as_html(study_answer, draw(study_answer, best_curves(store, study_answer))), end="")
    else:
        console = Console(highlight=False, markup=False, emoji=False)
        console.print(f"study    {record.plan.study}", soft_wrap=True)
        show(study_answer, console, verbose)
        if store.writable():
            with uninterrupted():
                images = [path for path in store.files(record.run_id, "figures") if path.endswith(".png")]
                show_study(store, study_answer, trials, images)
    if strict:
        require_held(record.plan.study, strict_verdicts(study_answer.plan, study_answer.families, study_answer.verdicts))


def write_report(store: Store, study: StudyRecord, console: Console) -> None:
    """Prints the answer of a study, and writes its report and figures to `studies/<study>/` and to the study's run.

    Args:
      store: the MLflow store that holds the study.
      study: the record of the study.
      console: where the answer, the paths of the files and the link to MLflow are printed.

    Raises:
      Undelivered: the store of the files could not be used; all else is recorded.
    """
    trials = store.trials(study.experiment_id)
    study_answer = answer(study, trials)
    show(study_answer, console)  # before any file is written: where the disk is full, only the files are lost
    figures = draw(study_answer, best_curves(store, study_answer))
    folder = _write_files(study_answer, figures)
    verdicts, families = study_answer.verdicts, study_answer.families
    names = {"claims_held": HOLDS, "claims_failed": FAILS, "claims_untold": CANNOT_TELL}
    metrics = {name: float(sum(v.verdict == text for v in verdicts)) for name, text in names.items()}
    if len(families) == 1 and families[0].ratios:
        ratio = families[0].ratios[0]
        if ratio.slope and ratio_judgement(study_answer.plan, families[0], ratio).verdict != CANNOT_TELL:
            metrics["ratio_slope"] = round(ratio.slope.value, 4)
    with uninterrupted():
        unstored = store.keep_files(study.run_id, folder, pictures(figures), {**metrics, "claims": float(len(verdicts))})
        show_study(store, study_answer, trials, [] if unstored else [f"figures/{name}.png" for name in figures])
    _print_paths(console, folder, figures)
    if unstored:
        raise Undelivered(
            f"the study is complete and its trials are recorded, but the files of its report wait in {folder}, because "
            f"{unstored} Once they can be stored, the same command stores them."
        )
    console.print(f"browse   lrscale ui {shlex.quote(study.plan.study)}", soft_wrap=True)
    address = without_login(store.uri).rstrip("/") if store.uri.startswith("http") else "http://127.0.0.1:5000"
    console.print(f"link     {address}{link(study.experiment_id, SUMMARY, charts=True)}", soft_wrap=True, highlight=False)


def write_answer(answer: Answer, console: Console) -> None:
    """Prints an answer, and writes its report and figures to `studies/<study>/`, while the store cannot be reached.

    The figures have no loss curves, because only the store holds them.
    """
    show(answer, console)
    figures = draw(answer, {})
    _print_paths(console, _write_files(answer, figures), figures)


def _write_files(answer: Answer, figures: Mapping[str, Mapping[str, bytes]]) -> Path:
    """Writes the report and the figures to the study's folder, and returns the folder."""
    folder = Path("studies") / safe_name(answer.plan.study)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for name, files in figures.items():
        for suffix, content in files.items():
            write_whole(folder / "figures" / f"{name}.{suffix}", content)
    document = as_json(answer)
    write_whole(folder / "report.json", json.dumps(document, indent=2, allow_nan=False) + "\n")
    write_whole(folder / "report.html", as_html(answer, figures))
    write_whole(folder / "cells.csv", as_csv(document["cells"] or document["quantities"]))
    write_whole(folder / "environment.yaml", as_yaml(answer.study.made_by) + "\n")
    return folder


def pictures(figures: Mapping[str, Mapping[str, bytes]]) -> dict[str, tuple[bytes, bytes]]:
    """Returns the figures that answer the study's question as MLflow's image charts show them, by the key of the image."""
    return {
        name.replace("_", " "): card(files["png"], whole=name.startswith("best_lr"))
        for name, files in figures.items()
        if name.startswith(MAIN_FIGURES)
    }


def _print_paths(console: Console, folder: Path, figures: Iterable[str]) -> None:
    """Prints the paths of the main figure and of the HTML report."""
    main_figure = next((name for name in figures if name.startswith(MAIN_FIGURES)), None)
    if main_figure:
        console.print(f"figure   {folder / 'figures' / main_figure}.png", soft_wrap=True)
    console.print(f"report   {folder / 'report.html'}", soft_wrap=True)


def best_curves(store: Store, answer: Answer) -> dict[str, Curve]:
    """Returns the loss curve of each cell's best trial, by the cell's id.

    The curves count examples instead of steps. Where the store is damaged, a curve may be empty. There are none for a
    script, because it does not tell how many examples a point of its curves has seen.
    """
    curves = {}
    for cell in () if answer.plan.is_script else answer.cells:
        trial = cell.best_trial()
        if trial is not None:
            curve = store.line(trial.run_id, loss_name(answer))
            curves[cell.cell.id] = Curve(tuple(examples_seen(cell.training, step) for step in curve.steps), curve.values)
    return curves
