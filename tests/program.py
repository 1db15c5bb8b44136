"""Runs the program as a user does: in a process of its own, or by its entry point in this one, which is quicker."""

import contextlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from joblib.externals.loky import get_reusable_executor

from lrscale.commands.cli import main
from lrscale.run import job
from lrscale.spec import Compute
from lrscale.tracking.store import Store
from lrscale.training.results import Result

TINY = ["batch_size=4,16", "reduction=sum,mean", "seeds=2", "hydra.sweeper.n_trials=6", "optimizer.lr=tag(log,interval(1e-3,1))"]
"""A study of 4 cells and 24 trials."""
STUDY = "d2l-batch_size-reduction"
"""Its name."""


def lrscale(folder: Path, *arguments: str, status: int = 0, **environment: str) -> str:
    """Runs a command in a process of its own and returns what it printed; fails unless it ends with the status."""
    env = {**os.environ, "COLUMNS": "80", **environment}
    command = [sys.executable, "-m", "lrscale", *arguments]
    ended = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == status, f"{arguments} ended with {ended.returncode}:\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout + ended.stderr


@cache
def _empty_store() -> Path:
    """An MLflow database without runs: making one takes 2 s, copying it none."""
    file = Path(tempfile.mkdtemp(prefix="lrscale-tests-")) / "mlflow.db"
    Store(f"sqlite:///{file}")._execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return file


def here(folder: Path, *arguments: str, status: int | None = 0, empty: bool = True) -> str:
    """Like `lrscale`, in this process, on a copy of an empty database unless told otherwise."""
    if empty and arguments[0] in ("run", "audit") and not (folder / "mlflow.db").exists():
        shutil.copy(_empty_store(), folder / "mlflow.db")
    if any("joblib" in argument or "cores" in argument for argument in arguments):
        get_reusable_executor().shutdown(wait=True)  # workers of an earlier test are in its folder
    said = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        ended = main(arguments)
    assert status in (ended, None), f"{arguments} ended with {ended}:\n{said.getvalue()}"
    return said.getvalue()


def at_work(monkeypatch: pytest.MonkeyPatch, actions: Mapping[int, Callable[[], object]]) -> None:
    """Does something when the nth cell of a study is about to be trained."""
    work, done = job.work, []

    def acting(config: Mapping[str, Any], compute: Compute) -> list[Result]:
        done.append(config)
        if len(done) in actions:
            actions[len(done)]()
        return work(config, compute)

    monkeypatch.setattr(job, "work", acting)
