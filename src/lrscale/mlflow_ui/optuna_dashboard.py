"""Starts optuna-dashboard, which shows the trials of a study too, and writes notes there that link to MLflow."""

import sys
from importlib.util import find_spec
from pathlib import Path

from lrscale.errors import Refusal
from lrscale.study.records import StudyRecord

START_CODE = "from importlib.metadata import entry_points; entry_points(group='console_scripts')['optuna-dashboard'].load()()"
"""Python code that runs the program optuna-dashboard with this interpreter."""


def command(storage: str, port: int) -> list[str]:
    """Returns the command that serves an Optuna storage to this machine only. `storage` is a URL or the path of a file."""
    url_or_path = storage if "://" in storage else str(Path(storage).resolve())
    return [sys.executable, "-c", START_CODE, url_or_path, "--host", "127.0.0.1", "--port", str(port), "--quiet"]


def check_dashboard(storage: str) -> None:
    """Raises Refusal where optuna-dashboard is not installed, or the file of the storage does not exist."""
    from lrscale.search.storage import storage_file

    if find_spec("optuna_dashboard") is None:
        raise Refusal("`--optuna` needs optuna-dashboard, which is not installed. Run pip install 'lrscale[dashboard]'.")
    file = storage_file(storage)
    if file is not None and not file.is_file():
        raise Refusal(
            f"`--optuna` needs the file of the study's Optuna storage, got {storage}, which does not exist. "
            "Run it in the folder where the study was run."
        )


def leave_notes(storage: str, record: StudyRecord, mlflow: str) -> None:
    """Writes a note with a link to MLflow to the Optuna study of each cell.

    Args:
      storage: the URL of Optuna's storage, or the path of its file.
      record: the record of the study.
      mlflow: the address of the study in MLflow.
    """
    from optuna_dashboard import save_note

    from lrscale.search.storage import cell_studies

    for study in cell_studies(storage, record.plan):
        save_note(study, f"{record.plan.question or record.plan.study}\n\n[the study in MLflow]({mlflow})")
