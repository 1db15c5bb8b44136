"""Runs the apps of tests/apps as their users do: in this process, which is quicker, or in one of their own."""

import contextlib
import io
import os
import runpy
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml

from tests.program import _empty_store

APPS = Path(__file__).parent / "apps"


def install(name: str, folder: Path) -> None:
    """Copies an app into a folder, with an empty MLflow database."""
    shutil.copytree(APPS / name, folder, dirs_exist_ok=True)
    if not (folder / "mlflow.db").exists():
        shutil.copy(_empty_store(), folder / "mlflow.db")


def sweep(folder: Path, *arguments: str, status: int = 0) -> str:
    """Runs `python train.py -m` in this process and returns what it printed; fails unless it ends with the status."""
    said, argv, ended = io.StringIO(), sys.argv, 0
    os.environ["COLUMNS"] = "1000"  # lines are not wrapped
    sys.argv = ["train.py", "-m", *arguments]
    try:
        with contextlib.chdir(folder), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            runpy.run_path("train.py", run_name="__main__")
    except SystemExit as error:
        ended = int(error.code or 0)
    finally:
        sys.argv = argv
        del os.environ["COLUMNS"]
    assert ended == status, f"{arguments} ended with {ended}:\n{said.getvalue()}"
    return said.getvalue()


def command(*arguments: str, python: str = sys.executable) -> list[str]:
    """The command that runs an app in a process of its own."""
    return [python, "train.py", "-m", *arguments]


def sweep_apart(folder: Path, *arguments: str, status: int = 0, **environment: str) -> str:
    """Like `sweep`, in a process of its own."""
    env = {**os.environ, "COLUMNS": "100", **environment}
    ended = subprocess.run(command(*arguments), cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == status, f"{arguments} ended with {ended.returncode}:\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout + ended.stderr


def sweep_dir(folder: Path) -> Path:
    """Hydra's folder of the only sweep."""
    (found,) = folder.glob("multirun/*/*")
    return found


def calls(folder: Path) -> list[tuple[str, ...]]:
    """The number, x, y and seed of each call of the app `numbers`."""
    return [tuple(line.split()) for line in (sweep_dir(folder) / "calls.txt").read_text().splitlines()]


def best(folder: Path) -> dict[str, Any]:
    """What optimization_results.yaml holds."""
    found: dict[str, Any] = yaml.safe_load((sweep_dir(folder) / "optimization_results.yaml").read_text())
    return found


def runs(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The status and the tags of the MLflow runs of a kind, the oldest first."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        found = []
        for run, status in connection.execute("select run_uuid, status from runs order by start_time, rowid").fetchall():
            tags = dict(connection.execute("select key, value from tags where run_uuid = ?", (run,)).fetchall())
            params = dict(connection.execute("select key, value from params where run_uuid = ?", (run,)).fetchall())
            metrics = dict(connection.execute("select key, value from latest_metrics where run_uuid = ?", (run,)).fetchall())
            if tags.get("lrscale.kind") == kind:
                found.append({"run": run, "status": status, "tags": tags, "params": params, "metrics": metrics})
        return found
