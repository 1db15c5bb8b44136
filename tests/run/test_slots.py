"""Slots are kept full, and a worker that is lost takes no trials of others with it. The launchers here run in threads."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lrscale.errors import Failure
from lrscale.run.costs import JOB_SECONDS, Costs
from lrscale.run.job import Outcome, work_all
from lrscale.run.limits import TookTooLong, time_limit
from lrscale.run.setup import Setup, Workers
from lrscale.run.study import run_study
from lrscale.spec import Compute
from lrscale.study.plan import Cell, Plan, Share
from lrscale.tracking.store import Store
from tests.program import TINY, here

Trials = dict[tuple[str, str], Any]
SLOW = 4
"""The batch size of the cells that are treated in a special way; they are the same run, and so are trained once."""
PATIENCE_SECONDS = 60.0


class WorkerDied(Exception):
    """What the launcher says of a worker that was killed."""


def planned(folder: Path) -> tuple[Plan, Setup]:
    """The plan and the setup of the tiny study, in a folder with an empty store."""
    made: list[tuple[Plan, Setup]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lrscale.run.study.run_study", lambda plan, setup, launch: made.append((plan, setup)))
        here(folder, "run", "-m", *TINY)
    plan, setup = made[0]
    return plan, replace(setup, n_jobs=2, n_retries=1, workers=Workers(apart=True))


def trials(folder: Path) -> Trials:
    store = Store.existing(f"sqlite:///{folder}/mlflow.db")
    found = store.trials(store.study(None).experiment_id)
    return {(t.cell, str(t.params)): (t.number, t.together, t.objectives) for t in found}


def size(job: Sequence[Share]) -> int:
    return int(job[0].config["batch_size"])


def trained(job: Sequence[Share]) -> list[Outcome]:
    return work_all([share.config for share in job], Compute())


def test_a_slow_cell_holds_no_other(folder: Path, tiny: Path) -> None:
    plan, setup = planned(folder)
    others, order = threading.Event(), []

    def launch(jobs: Sequence[Sequence[Share]]) -> list[list[Outcome] | str]:
        order.append(size(jobs[0]))
        if size(jobs[0]) == SLOW and order.count(SLOW) == 1:
            assert others.wait(PATIENCE_SECONDS), "the other cell waits for the slow one"
        outcomes = trained(jobs[0])
        if order.count(16) > 2:  # its second round: a round has two trainings, sum and mean
            others.set()
        return [outcomes]

    run_study(plan, setup, launch, lambda *_: None)
    assert order[:4] == [SLOW, 16, 16, 16]  # the one with more steps first
    assert trials(folder) == trials(tiny)


@pytest.mark.parametrize("shared", [False, True])
def test_a_worker_that_is_lost_once_changes_nothing(folder: Path, tiny: Path, shared: bool) -> None:
    plan, setup = planned(folder)
    beside, running, lock = [], set(), threading.Lock()
    broken = threading.Event()

    def launch(jobs: Sequence[Sequence[Share]]) -> list[list[Outcome] | str]:
        with lock:
            running.add(size(jobs[0]))
            beside.append(len(running))
        try:
            if len(beside) <= 2 and size(jobs[0]) == SLOW:
                while len(beside) < 2:
                    time.sleep(0.01)
                broken.set()
                raise WorkerDied("killed")
            if len(beside) <= 2 and shared:
                broken.wait(PATIENCE_SECONDS)
                raise WorkerDied("killed")
            return [trained(jobs[0])]
        finally:
            running.discard(size(jobs[0]))

    run_study(plan, replace(setup, workers=Workers(apart=True, shared=shared)), launch, lambda *_: None)
    assert trials(folder) == trials(tiny)
    if shared:
        assert beside[2:4] == [1, 1]  # either could have killed the worker, so each runs by itself


def test_a_cell_that_always_loses_its_worker_fails_alone(folder: Path, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan, setup = planned(folder)
    attempts = []

    def launch(jobs: Sequence[Sequence[Share]]) -> list[list[Outcome] | str]:
        attempts.append(size(jobs[0]))
        if size(jobs[0]) == SLOW:
            raise WorkerDied("killed\nby somebody")
        return [trained(jobs[0])]

    run_study(plan, replace(setup, n_retries=2, max_failure_rate=0.5), launch, lambda *_: None)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("lost ")]
    rounds = [line for line in said if line.endswith("3 times: WorkerDied: killed by somebody")]
    assert attempts.count(SLOW) == 3 * len(rounds) and rounds == said != []
    of_others = {cell.id for cell in plan.cells if cell.config["batch_size"] != SLOW}
    assert trials(folder) == {key: value for key, value in trials(tiny).items() if key[0] in of_others}


def test_a_failure_cancels_what_still_runs(folder: Path) -> None:
    plan, setup = planned(folder)
    called: list[str] = []
    release = threading.Event()

    def launch(jobs: Sequence[Sequence[Share]]) -> list[list[Outcome] | str]:
        if size(jobs[0]) == SLOW:
            release.wait(PATIENCE_SECONDS)
        raise WorkerDied("killed")

    workers = Workers(apart=True, begin=lambda: called.append("begin"), cancel=lambda: called.append("cancel"))
    with pytest.raises(Failure, match="max_failure_rate"):
        run_study(plan, replace(setup, n_retries=0, workers=workers), launch, lambda *_: None)
    release.set()
    assert called == ["begin", "cancel"]


def endless() -> None:
    while True:
        try:
            time.sleep(60)
        except Exception:  # as users write it
            continue


def test_work_that_never_returns_is_stopped() -> None:
    with pytest.raises(TookTooLong, match=r"hydra.sweeper.job_timeout=0.05 seconds"), time_limit(0.05, may_end_process=False):
        endless()
    with time_limit(0.05, may_end_process=False):
        pass
    time.sleep(0.1)  # the timer is off


def test_a_job_that_never_returns_fails_after_its_retries(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []

    def work(config: Any, compute: Compute) -> Any:
        done.append(config["batch_size"])
        return endless() if config["batch_size"] == SLOW else real(config, compute)

    from lrscale.run import job

    real: Callable[..., Any] = job.work
    monkeypatch.setattr(job, "work", work)
    limits = ["hydra.sweeper.job_timeout=2", "hydra.sweeper.n_retries=1", "hydra.sweeper.max_failure_rate=0.5"]
    one_round = [text.replace("n_trials=6", "n_trials=3") for text in TINY]
    said = here(folder, "run", "-m", *one_round, *limits)
    assert "2 times: TookTooLong" in said and "Traceback" not in said
    assert len({key[0] for key in trials(folder)}) == 2


class Timed(Costs):
    """Costs in which the cells have the steps that their labels name."""

    def steps(self, cell: Cell) -> float:
        return float(cell.label)


def cell(steps: float) -> Cell:
    return Cell(str(steps), str(steps), {}, {})


@pytest.mark.parametrize(
    ("seconds", "start_up", "free", "shared"),
    [
        ([0.1] * 8, 0.0, 1, 8),  # all together take less than a second
        ([0.1] * 8, 0.0, 4, 2),  # each free slot gets work
        ([0.4] * 8, 0.0, 1, 2),  # up to a second
        ([0.4] * 8, 3.0, 1, 8),  # where a job takes 3 s to start, up to 6 s
        ([9.0, 0.1, 0.1], 3.0, 1, 1),  # a long one has a job for itself
    ],
)
def test_cells_share_a_job_by_what_they_cost(seconds: list[float], start_up: float, free: int, shared: int) -> None:
    costs = Timed()
    costs.learn(cell(1.0), 1.0)
    costs.learn_start_up(start_up)
    assert JOB_SECONDS == 1.0
    assert costs.share([cell(s) for s in seconds], free) == shared


def test_a_cell_that_was_measured_is_expected_to_take_as_long_again() -> None:
    costs = Timed()
    assert costs.order(cell(5.0)) > costs.order(cell(2.0)) and costs.share([cell(1.0)] * 3, 1) == 1
    costs.learn(cell(2.0), 8.0)
    assert costs.expected(cell(2.0)) == 8.0 and costs.expected(cell(1.0)) == 4.0
