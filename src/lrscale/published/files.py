"""The files of a published study, `sweeps/results/<study>/`: written from what MLflow holds, and read back.

record.json     the plan with its configs and seeds, versions, platform, commit, wall seconds
report.json     the report
cells.csv       a row a cell: lr* with its interval
trials.csv      a row a run: objectives are exact, `inf` where it diverged
quantities.csv  what a probe measured
figure.svg      the main figure of each family of cells
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from lrscale.errors import Refusal
from lrscale.files import home, safe_name, write_whole
from lrscale.provenance import commit
from lrscale.published.studies_table import write_table
from lrscale.report.csv import as_csv
from lrscale.report.draw import main_figures
from lrscale.report.json import as_json
from lrscale.study.answer import Answer, answer
from lrscale.study.document import document, read_document
from lrscale.study.plan import Plan
from lrscale.study.records import StudyRecord, TrialRecord
from lrscale.tracking.store import Store

RESULTS = Path("sweeps") / "results"
NUMBERS_IN = ("report.json", "trials.csv")
"""The files that a reproduction compares; cells.csv and quantities.csv are the report's numbers once more, as tables."""
TABLE = Path("sweeps") / "README.md"
"""The file with the table of all published studies, beside their folder."""


@dataclass(frozen=True)
class Published:
    """A study as it was published, by whomever. `study`: who made it, and of what plan; `files`: its numbers, as texts."""

    study: StudyRecord
    files: Mapping[str, str]


def publish(study: str | None, uri: str) -> None:
    """Writes the files of a study to `sweeps/results/` of the working folder, and README's table where it has one.

    Raises:
      Refusal: the store or the study is not there, or the study has not ended; nothing has been written.
    """
    store = Store.existing(uri)
    found = finished(store, store.study(study))
    record, name = found.study, found.plan.study
    read_document(_record(record))  # refuses what lrscale reproduce would refuse
    folder = RESULTS / name
    if safe_name(name) != name or folder.is_symlink():
        raise Refusal(f"`STUDY` must be a name that a folder can have, got {name}. Set hydra.sweeper.study_name.")
    texts = {"record.json": _json(_record(record)), **number_files(found), **tables(as_json(found))}
    contents = {**main_figures(found), **{name: text.encode() for name, text in texts.items()}}
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        if old.name not in contents:
            old.unlink()
    for name, content in contents.items():
        write_whole(folder / name, content)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(f"published {folder}: {', '.join(sorted(file.name for file in folder.iterdir()))}")
    if write_table(TABLE, RESULTS):
        console.print(f"{TABLE} has the table of all published studies.")


def finished(store: Store, study: StudyRecord) -> Answer:
    """Returns the answer of a study that has ended.

    Raises:
      Refusal: it has not.
    """
    if study.status != "FINISHED":
        raise Refusal(
            f"`STUDY` must be one that has ended, got {study.plan.study}, which is {study.status}. "
            f"Run it to its end: {study.plan.command}"
        )
    return answer(study, store.trials(study.experiment_id))


def _record(study: StudyRecord) -> dict[str, Any]:
    """The record of a published study: its document without where it was kept, perhaps with a password."""
    kept = document(replace(study, storage=None))
    return {**kept, "seconds": study.seconds, "published_from": commit()}


def number_files(found: Answer) -> dict[str, str]:
    """The files NUMBERS_IN, as texts; a probe has no trials."""
    rows = trial_rows(found.plan, [trial for cell in found.cells for trial in cell.trials])
    return {"report.json": _json(as_json(found)), **({"trials.csv": as_csv(rows)} if rows else {})}


def tables(report: Mapping[str, Any]) -> dict[str, str]:
    """The report's cells and quantities as CSV, by file name."""
    rows = {"cells.csv": report["cells"], "quantities.csv": report.get("quantities", [])}
    return {name: as_csv(each) for name, each in rows.items() if each}


def trial_rows(plan: Plan, trials: Sequence[TrialRecord]) -> list[dict[str, str]]:
    """A row a run: its cell, what was tuned, its seed, its objective to the last bit, and whether it diverged."""
    rows = []
    for cell in plan.cells:
        chosen = sorted((trial for trial in trials if trial.cell == cell.id), key=lambda trial: sorted(trial.params.items()))
        for trial in chosen:
            tuned = {key.rpartition(".")[2]: repr(value) for key, value in trial.params.items()}
            for seed, objective, diverged in zip(cell.training.seeds, trial.objectives, trial.diverged, strict=True):
                numbers = {"seed": str(seed), "objective": repr(objective), "diverged": str(int(diverged))}
                rows.append({"cell": cell.label, **tuned, **numbers})
    return rows


def names() -> list[str]:
    """Names of the published studies, of the working folder and of the package."""
    return sorted({file.parent.name for folder in _folders() for file in folder.glob("*/record.json")})


def read(name: str) -> Published:
    """Reads a published study: of the working folder, or else of the package.

    Raises:
      Refusal: there is none of that name, or a file is not what it should be.
    """
    if name not in names():
        raise Refusal(
            f"`STUDY` must be published in {RESULTS}, got {name!r:.100}. There: {', '.join(names()) or 'none'}. "
            "Publish one with lrscale publish, or take --from RUN_ID."
        )
    folder = next(folder / name for folder in _folders() if (folder / name / "record.json").is_file())
    try:
        record = json.loads((folder / "record.json").read_text("utf-8"))
        texts = {file: (folder / file).read_text("utf-8") for file in NUMBERS_IN if (folder / file).is_file()}
        derived = tables(json.loads(texts["report.json"]))
        unlike = [file for file, text in derived.items() if (folder / file).read_text("utf-8") != text]
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise Refusal(f"{folder} must hold the files of a published study: {type(error).__name__}, {error!s:.200}") from None
    if unlike:
        raise Refusal(f"{folder / unlike[0]} must hold the numbers of report.json, and does not. Publish the study again.")
    return Published(read_document(record), texts)


def _folders() -> Iterable[Path]:
    return (RESULTS, home() / RESULTS)


def _json(value: object) -> str:
    return json.dumps(value, indent=1, allow_nan=False) + "\n"
