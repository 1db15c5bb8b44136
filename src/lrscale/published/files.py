"""Writes the files of a published study, `sweeps/results/<study>/`, from what MLflow holds, and reads them back.

record.json     the plan with its configs and seeds, versions, platform, commit, wall time in seconds
report.json     the report
cells.csv       one row for each cell: lr* with its interval
trials.csv      one row for each run: its exact objective, `inf` where the run diverged
quantities.csv  the quantities that a probe measured
figure.svg      the main figure of each family of cells
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from rich.console import Console

from lrscale.errors import Refusal
from lrscale.files import restore_folders, safe_name, write_folder
from lrscale.provenance import commit
from lrscale.published.studies_table import RESULTS, folders, write_table
from lrscale.report.csv import as_csv
from lrscale.report.draw import main_figures
from lrscale.report.json import as_json
from lrscale.rules import check
from lrscale.study.answer import Answer, answer
from lrscale.study.config import tunable
from lrscale.study.document import document, read_document
from lrscale.study.own_code import check_has_file
from lrscale.study.plan import Plan
from lrscale.study.records import StudyRecord, TrialRecord
from lrscale.study.settings import rounds_of
from lrscale.tracking.store import Store

NUMBERS_IN = ("report.json", "trials.csv")
"""The files that a reproduction compares. cells.csv and quantities.csv repeat numbers of the report as tables."""
TABLE = Path("sweeps") / "README.md"
"""The file that holds the table of all published studies."""


@dataclass(frozen=True)
class Published:
    """A published study, which may be a stranger's.

    `study` is its record, with the plan and the versions that made it. `files` holds the texts of the files NUMBERS_IN,
    by file name.
    """

    study: StudyRecord
    files: Mapping[str, str]


def publish(study: str | None, uri: str) -> None:
    """Writes the files of a study to `sweeps/results/` in the working folder, and renews the table of all published studies.

    The table is renewed only where `sweeps/README.md` has a place for it.

    Args:
      study: the name of the study; None for the latest.
      uri: the URI of the MLflow store.

    Raises:
      Refusal: the store or the study does not exist, or the study has not finished, or no file holds the code of its task;
        nothing has been written.
    """
    store = Store.existing(uri)
    answer = finished(store, store.study(study))
    record, name = answer.study, answer.plan.study
    read_document(_record_document(record))  # these two raise Refusal where lrscale reproduce would
    check_has_file(cell.config for cell in record.plan.cells)
    folder = RESULTS / name
    if safe_name(name) != name or folder.is_symlink():
        raise Refusal(
            f"`STUDY` must have a name that a folder can have, got {name}. "
            "Put a variant into a file of its own, sweeps/NAME.yaml, or set hydra.sweeper.study_name."
        )
    texts = {"record.json": _json_text(_record_document(record)), **number_files(answer), **tables(as_json(answer))}
    contents = {**main_figures(answer), **{file_name: text.encode() for file_name, text in texts.items()}}
    folder.parent.mkdir(parents=True, exist_ok=True)
    restore_folders(folder.parent)
    write_folder(folder, contents)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(f"published {folder}: {', '.join(sorted(file.name for file in folder.iterdir()))}")
    if write_table(TABLE, RESULTS):
        console.print(f"{TABLE} has the table of all published studies.")


def finished(store: Store, study: StudyRecord) -> Answer:
    """Returns the answer of a study that has finished.

    Args:
      store: the MLflow store that holds the study.
      study: the record of the study.

    Raises:
      Refusal: the study has not finished.
    """
    if study.status != "FINISHED":
        raise Refusal(
            f"`STUDY` must be a study that has finished, got {study.plan.study}, which is {study.status}. "
            f"Run it to its end: {study.plan.command}"
        )
    return answer(study, store.trials(study.experiment_id))


def _record_document(study: StudyRecord) -> dict[str, Any]:
    """Returns the values of record.json: the study's document without its storage, whose URL may hold a password."""
    values = document(replace(study, storage=None))
    return {**values, "seconds": study.seconds, "published_from": commit()}


def number_files(answer: Answer) -> dict[str, str]:
    """Returns the texts of the files NUMBERS_IN, by file name. A probe has no trials.csv."""
    rows = trial_rows(answer.plan, [trial for cell in answer.cells for trial in cell.trials])
    return {"report.json": _json_text(as_json(answer)), **({"trials.csv": as_csv(rows)} if rows else {})}


def tables(report: Mapping[str, Any]) -> dict[str, str]:
    """Returns the cells and the quantities of a report as CSV texts, by file name. An empty table is left out."""
    rows_by_file = {"cells.csv": report["cells"], "quantities.csv": report.get("quantities", [])}
    return {name: as_csv(rows) for name, rows in rows_by_file.items() if rows}


def trial_rows(plan: Plan, trials: Sequence[TrialRecord]) -> list[dict[str, str]]:
    """Returns one row for each run: its cell, round, tuned hyperparameters, seed, exact objective, and whether it diverged.

    Rounds are counted from 1 in each cell. The rows stand in the order in which the trials were asked.
    """
    rows = []
    for cell in plan.cells:
        of_cell = [trial for trial in trials if trial.cell == cell.id]
        for number, trials_of_round in enumerate(rounds_of(of_cell), start=1):
            for trial in trials_of_round:
                tuned = {key.rpartition(".")[2]: repr(value) for key, value in trial.params.items()}
                for seed, objective, diverged in zip(cell.training.seeds, trial.objectives, trial.diverged, strict=True):
                    numbers = {"seed": str(seed), "objective": repr(objective), "diverged": str(int(diverged))}
                    rows.append({"cell": cell.label, "round": str(number), **tuned, **numbers})
    return rows


def read_rounds(published: Published) -> dict[str, list[list[dict[str, float]]]] | None:
    """Returns the tuned hyperparameters of each trial of a published study, [round][trial] by the label of the cell.

    Returns:
      The rounds; None for a probe, and for studies that an older version published, which did not keep the rounds.

    Raises:
      Refusal: trials.csv is not as `lrscale publish` writes it.
    """
    rows = list(csv.DictReader(io.StringIO(published.files.get("trials.csv", ""))))
    if not rows or "round" not in rows[0]:
        return None
    plan = published.study.plan
    rules = tunable(cell.config["optimizer"] for cell in plan.cells)
    found: dict[str, dict[str, dict[tuple[str, ...], dict[str, float]]]] = {cell.label: {} for cell in plan.cells}
    try:
        for row in rows:
            params = {key: float(row[key.rpartition(".")[2]]) for key in plan.intervals}
            for key, value in params.items():
                check(f"trials.csv {key}", rules[key], value)
            found[row["cell"]].setdefault(row["round"], {}).setdefault(tuple(map(repr, params.values())), params)
    except (KeyError, TypeError, ValueError) as error:
        text = f"{type(error).__name__}, {error!s:.200}"
        raise Refusal(f"trials.csv must be a file that lrscale publish has written: {text}") from None
    return {label: [list(trials.values()) for trials in rounds.values()] for label, rounds in found.items()}


def names() -> list[str]:
    """Returns the names of the studies that are published in the working folder or in the package."""
    return sorted({file.parent.name for folder in folders() for file in folder.glob("*/record.json")})


def read(name: str) -> Published:
    """Reads a published study from the working folder, or else from the package.

    Args:
      name: the name of the study.

    Raises:
      Refusal: no study of that name is published, or one of its files is not as `lrscale publish` writes it.
    """
    if name not in (known := names()):
        near = get_close_matches(name, known, 1)
        way_out = f"Did you mean {near[0]}? " if near else "Publish one with lrscale publish, or take --from RUN_ID. "
        raise Refusal(f"`STUDY` must be published in {RESULTS}, got {name!r:.100}. {way_out}There: {', '.join(known) or 'none'}.")
    folder = next(folder / name for folder in folders() if (folder / name / "record.json").is_file())
    try:
        record = json.loads((folder / "record.json").read_text("utf-8"))
        texts = {file: (folder / file).read_text("utf-8") for file in NUMBERS_IN if (folder / file).is_file()}
        derived = tables(json.loads(texts["report.json"]))
        differing = [file for file, text in derived.items() if (folder / file).read_text("utf-8") != text]
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise Refusal(f"{folder} must hold the files of a published study: {type(error).__name__}, {error!s:.200}") from None
    if differing:
        raise Refusal(f"{folder / differing[0]} must hold the numbers of report.json, and does not. Publish the study again.")
    return Published(read_document(record), texts)


def _json_text(value: object) -> str:
    return json.dumps(value, indent=1, allow_nan=False) + "\n"
