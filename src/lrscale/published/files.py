"""The files of a published study, `sweeps/results/<study>/`: written from what MLflow holds, and read back.

record.json     the plan with its configs and seeds, versions, platform, commit, wall seconds
report.json     the report
cells.csv       a row a cell: lr* with its interval
trials.csv      a row a run: objectives are exact, `inf` where it diverged
quantities.csv  what a probe measured
figure.svg      the main figure of each family of cells
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from lrscale.errors import Refusal
from lrscale.files import home, safe_name, write_whole
from lrscale.provenance import commit
from lrscale.published.studies_table import write_table
from lrscale.report.json import as_json
from lrscale.run.reporting import main_figures
from lrscale.spec import seeds
from lrscale.study.answer import Answer, answer
from lrscale.study.document import plan_of
from lrscale.study.records import StudyRecord, TrialRecord
from lrscale.tracking.reader import STUDY_FILE
from lrscale.tracking.store import Store

RESULTS = Path("sweeps") / "results"
NUMBERS_IN = ("report.json", "trials.csv")
"""The files that a reproduction compares; cells.csv and quantities.csv are the report's numbers once more, as tables."""
ADDED = ("seconds", "published_from")
"""What a record holds beside the study's document."""


@dataclass(frozen=True)
class Published:
    """A study as it was published, by whomever. `record`: its document and what is ADDED; `files`: its numbers, as texts."""

    record: Any
    files: Mapping[str, str]

    @property
    def document(self) -> Any:
        """The record without what is ADDED to a study's document."""
        held = isinstance(self.record, Mapping)
        return {key: value for key, value in self.record.items() if key not in ADDED} if held else self.record


def publish(study: str | None, uri: str) -> None:
    """Writes the files of a study to `sweeps/results/` of the working folder, and README's table where it has one.

    Raises:
      Refusal: the store or the study is not there, or the study has not ended; nothing has been written.
    """
    store = Store.existing(uri)
    kept, found = stored(store, store.study(study))
    plan_of(kept.document, uri, "optuna.journal")  # refuses what lrscale reproduce would refuse
    folder = RESULTS / found.study.study
    if safe_name(found.study.study) != found.study.study or folder.is_symlink():
        raise Refusal(f"`STUDY` must be a name that a folder can have, got {found.study.study}. Set hydra.sweeper.study_name.")
    texts = {"record.json": _json(kept.record), **kept.files, **views(as_json(found))}
    contents = {**main_figures(found), **{name: text.encode() for name, text in texts.items()}}
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        if old.name not in contents:
            old.unlink()
    for name, content in contents.items():
        write_whole(folder / name, content)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(f"published {folder}: {', '.join(sorted(file.name for file in folder.iterdir()))}")
    if write_table(Path("README.md"), RESULTS):
        console.print("README.md has the table of all published studies.")


def stored(store: Store, study: StudyRecord) -> tuple[Published, Answer]:
    """A study that a store holds, as it would be published, and its answer.

    Raises:
      Refusal: the study has not ended.
    """
    if study.status != "FINISHED":
        raise Refusal(
            f"`STUDY` must be one that has ended, got {study.study}, which is {study.status}. Run it to its end: {study.command}"
        )
    trials = store.trials(study.experiment_id)
    found = answer(study, trials)
    record = store.load_json(study.run_id, STUDY_FILE)
    record.pop("storage", None)  # where it was kept, perhaps with a password, is nobody's business
    return Published({**record, "seconds": study.seconds, "published_from": commit()}, files(found)), found


def files(found: Answer) -> dict[str, str]:
    """The files NUMBERS_IN, as texts; a probe has no trials."""
    rows = trial_rows(found.study, [trial for cell in found.cells for trial in cell.trials])
    return {"report.json": _json(as_json(found)), **({"trials.csv": _csv(rows)} if rows else {})}


def views(report: Mapping[str, Any]) -> dict[str, str]:
    """The report's cells and quantities as tables."""
    tables = {"cells.csv": report["cells"], "quantities.csv": report.get("quantities", [])}
    return {name: _csv([_flat(entry) for entry in entries]) for name, entries in tables.items() if entries}


def trial_rows(study: StudyRecord, trials: Sequence[TrialRecord]) -> list[dict[str, str]]:
    """A row a run: its cell, what was tuned, its seed, its objective to the last bit, and whether it diverged."""
    rows = []
    for cell in study.cells:
        chosen = sorted((trial for trial in trials if trial.cell == cell.id), key=lambda trial: sorted(trial.params.items()))
        for trial in chosen:
            tuned = {key.rpartition(".")[2]: repr(value) for key, value in trial.params.items()}
            for seed, objective, diverged in zip(seeds(cell.config["seeds"]), trial.objectives, trial.diverged, strict=True):
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
        tables = views(json.loads(texts["report.json"]))
        unlike = [file for file, text in tables.items() if (folder / file).read_text("utf-8") != text]
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise Refusal(f"{folder} must hold the files of a published study: {type(error).__name__}, {error!s:.200}") from None
    if unlike:
        raise Refusal(f"{folder / unlike[0]} must hold the numbers of report.json, and does not. Publish the study again.")
    return Published(record, texts)


def _folders() -> Iterable[Path]:
    return (RESULTS, home() / RESULTS)


def _flat(entry: Mapping[str, Any]) -> dict[str, str]:
    """An entry of the report as a row: intervals in two columns, numbers to the last bit, nothing for None."""
    row: dict[str, Any] = {}
    for key, value in entry.items():
        if key.endswith("_ci"):
            low, high = value or (None, None)
            row |= {f"{key.removesuffix('_ci')}_low": low, f"{key.removesuffix('_ci')}_high": high}
        else:
            row[key] = value
    return {key: "" if value is None else value if isinstance(value, str) else json.dumps(value) for key, value in row.items()}


def _csv(rows: Sequence[Mapping[str, str]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _json(value: object) -> str:
    return json.dumps(value, indent=1, allow_nan=False) + "\n"
