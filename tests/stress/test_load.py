"""Tests large loads: a study of 100,000 runs, and a study on a store that already holds 10,000 trials.

python -m pytest -q -s tests/stress/test_load.py      (about 6 minutes on two cores)
"""

import os
import subprocess
import sys
import time
from pathlib import Path

from lrscale.tracking.store import Store
from tests.benchmarks.reading import TRIALS, fill
from tests.program import TINY, lrscale

STUDY = [
    "task=linear", "task.features=2", "task.examples=64", "budget=steps", "budget.steps=20", "points=2",
    f"batch_size={','.join(map(str, range(1, 21)))}", "reduction=sum,mean", "optimizer.lr=tag(log,interval(1e-4,0.1))",
    "seeds=25", "hydra.sweeper.n_trials=100", "hydra.sweeper.sampler=random",
]  # fmt: skip
"""40 cells x 100 trials x 25 seeds = 100,000 runs."""
SLOWDOWN, GROWTH = 1.5, 1.25


def megabytes(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def ends(folder: Path) -> list[float]:
    """Returns the time at which each trial of the latest study was recorded, in seconds, in order."""
    store = Store.existing(f"sqlite:///{folder}/mlflow.db")
    runs = store._runs(store.study(None).experiment_id, "tags.`lrscale.kind` = 'trial'")
    return sorted(run.info.end_time / 1000 for run in runs)


def test_100_000_trainings_in_one_study(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lrscale", "run", "-m", *STUDY]
    with (tmp_path / "said.txt").open("w") as said:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=said, stderr=said, env={**os.environ, "COLUMNS": "80"})
        used: list[tuple[float, float]] = []
        while process.poll() is None:
            time.sleep(1)
            if process.poll() is None:
                used.append((time.time(), megabytes(process.pid)))
    assert process.returncode == 0, (tmp_path / "said.txt").read_text()
    recorded = ends(tmp_path)
    assert len(recorded) == 4000
    first, last = recorded[1000] - recorded[0], recorded[-1] - recorded[-1001]
    at = [next(mb for when, mb in used if when >= moment) for moment in (recorded[500], recorded[-500])]
    print(f"\nfirst 1000 trials {first:.1f} s, last 1000 {last:.1f} s; {at[0]:.0f} MB early, {at[1]:.0f} MB late")
    assert last < SLOWDOWN * first
    assert at[1] < GROWTH * at[0]


def test_a_store_of_10_000_trials(tmp_path: Path) -> None:
    empty, full = tmp_path / "empty", tmp_path / "full"
    empty.mkdir()
    full.mkdir()
    assert fill(full) >= TRIALS
    seconds = []
    for folder in (empty, full):
        lrscale(folder, "run", "-m", *TINY, "hydra.sweeper.n_trials=60", "hydra.sweeper.sampler=random")
        recorded = ends(folder)
        seconds.append((recorded[-1] - recorded[0]) / (len(recorded) - 1))
    print(f"\na trial on an empty store {1000 * seconds[0]:.1f} ms, on one with {TRIALS} trials {1000 * seconds[1]:.1f} ms")
    assert seconds[1] < SLOWDOWN * seconds[0]
