"""optuna-dashboard: a second view of a study's trials, with a note that links back to MLflow."""

import sys
from importlib.util import find_spec
from pathlib import Path

from lrscale.errors import Refusal
from lrscale.study.records import StudyRecord

START = "from importlib.metadata import entry_points; entry_points(group='console_scripts')['optuna-dashboard'].load()()"


def command(storage: str, port: int) -> list[str]:
    """Returns the command that serves a storage on this machine."""
    place = storage if "://" in storage else str(Path(storage).resolve())
    return [sys.executable, "-c", START, place, "--host", "127.0.0.1", "--port", str(port), "--quiet"]


def leave_notes(storage: str, record: StudyRecord, mlflow: str) -> None:
    """Writes a note with the link to MLflow on the Optuna study of each cell.

    Raises:
      Refusal: optuna-dashboard is not installed, or there is no such storage.
    """
    if find_spec("optuna_dashboard") is None:
        raise Refusal("`--optuna` needs optuna-dashboard, which is not installed. Run pip install 'lrscale[dashboard]'.")
    if "://" not in storage and not Path(storage).is_file():
        raise Refusal(f"`--optuna` needs the study's Optuna storage, got no file {storage}. Run it where the study was run.")
    from optuna_dashboard import save_note

    from lrscale.search.tuner import cell_studies

    for study in cell_studies(storage, record.plan.study, [(cell.label, cell.id) for cell in record.plan.cells]):
        save_note(study, f"{record.plan.question or record.plan.study}\n\n[the study in MLflow]({mlflow})")
