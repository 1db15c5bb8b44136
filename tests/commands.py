"""Runs the program as a user does: a process of its own, in a folder of its own."""

import os
import subprocess
import sys
from pathlib import Path

TINY = ["batch_size=4,16", "reduction=sum,mean", "seeds=2", "hydra.sweeper.n_trials=6", "optimizer.lr=tag(log,interval(1e-3,1))"]
"""A study of 4 cells and 24 trials."""


def lrscale(folder: Path, *arguments: str, status: int = 0, **environment: str) -> str:
    """Runs a command and returns what it printed; fails unless it ends with the status."""
    env = {**os.environ, "COLUMNS": "80", **environment}
    command = [sys.executable, "-m", "lrscale", *arguments]
    ended = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == status, f"{arguments} ended with {ended.returncode}:\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout + ended.stderr
