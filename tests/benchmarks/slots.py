"""Compares slots that are kept full with strict batches: a study of 20 uneven cells with n_jobs=4.

python -m tests.benchmarks.slots

The trainings are real, and so are the stores; each then sleeps as long as its cell is said to take, so that the machine's
cores do not matter. Both ways must give the same trials.
"""

import contextlib
import io
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from lrscale.commands.cli import main as lrscale
from lrscale.run import study
from lrscale.run.job import Outcome, work
from lrscale.run.setup import Setup, Workers
from lrscale.run.stopwatch import Stopwatch
from lrscale.spec import Compute
from lrscale.study.plan import Plan, Share
from lrscale.tracking.store import Store

STUDY = [
    "optimizer.momentum=0,0.5,0.8,0.9", "batch_size=8,32,128,512,1000", "seeds=2", "hydra.sweeper.n_trials=12",
    "optimizer.lr=tag(log,interval(1e-3,1))", "hydra.sweeper.n_jobs=4",
]  # fmt: skip
SECONDS = {8: 8.0, 32: 2.0, 128: 0.5, 512: 0.13, 1000: 0.07}
"""How long a round of a cell takes, in seconds, by its batch size."""
N_JOBS = 4


class Measured(NamedTuple):
    """What a run of the study took: seconds in all, seconds of all jobs, seconds of each phase; and what its trials returned."""

    seconds: float
    busy: float
    phases: dict[str, float]
    trials: set[tuple[object, ...]]


class Simulated:
    """A launcher that runs its jobs side by side, each as long as its cells are said to take."""

    def __init__(self, slots: int) -> None:
        self.lock, self.busy, self.pool = threading.Lock(), 0.0, ThreadPoolExecutor(slots)

    def job(self, job: Sequence[Share]) -> list[Outcome]:
        """Trains the cells of a job one after another."""
        outcomes = []
        for share in job:
            end = time.perf_counter() + SECONDS[share.config["batch_size"]]
            with self.lock:  # side by side they would take each other's cores
                trained = work(share.config, Compute())
            time.sleep(max(end - time.perf_counter(), 0.0))
            outcomes.append(Outcome(trained, None, SECONDS[share.config["batch_size"]]))
        with self.lock:
            self.busy += sum(outcome.seconds for outcome in outcomes)
        return outcomes

    def launch(self, jobs: Sequence[Sequence[Share]]) -> list[list[Outcome] | str]:
        """Runs jobs side by side, and returns when all have ended, as Hydra's launchers do."""
        return list(self.pool.map(self.job, jobs))


def planned(folder: Path) -> tuple[Plan, Setup]:
    """The plan of the study, and its setup."""
    made: list[Any] = []
    with (
        contextlib.chdir(folder),
        mock.patch("lrscale.run.study.run_study", lambda plan, setup, launch: made.append((plan, setup))),
    ):
        lrscale(["run", "-m", *STUDY])
    return made[0]


def run(full: bool, slots: int = N_JOBS) -> Measured:
    """Runs the study with some slots, kept full or in strict batches."""
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        plan, setup = planned(Path(name))
        Store(setup.uri)  # making a database is not measured
        simulated = Simulated(slots)
        launched, watch = replace(setup, workers=Workers(apart=full), n_jobs=slots), Stopwatch()
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()), mock.patch("lrscale.run.study.Stopwatch", return_value=watch):
            study.run_study(plan, launched, simulated.launch, lambda *_: None)
        seconds = time.perf_counter() - start
        store = Store.existing(setup.uri)
        trials = store.trials(store.study(None).experiment_id)
        returned = {(t.cell, t.number, t.together, str(t.params), t.objectives) for t in trials}
        return Measured(seconds, simulated.busy, dict(watch.seconds), returned)


def main() -> None:
    seconds, trials = {}, []
    for name, full in (("strict batches", False), ("full slots", True)):
        seconds[name], busy, _, found = run(full)
        trials.append(found)
        used = busy / (N_JOBS * seconds[name])
        print(f"{name:15s} {seconds[name]:6.1f} s   {used:4.0%} of {N_JOBS} slots   {len(found)} trials", flush=True)
    print(f"ratio           {seconds['strict batches'] / seconds['full slots']:6.2f}")
    print("the same trials" if trials[0] == trials[1] else "DIFFERENT TRIALS")


if __name__ == "__main__":
    main()
