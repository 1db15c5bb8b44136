"""How far a study is, seen from another terminal: read from MLflow alone, once or until the study ends."""

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime

from rich.console import Console
from rich.live import Live

from lrscale.locks import is_locked
from lrscale.study.records import StudyRecord, TrialRecord
from lrscale.tracking.schema import EXECUTED
from lrscale.tracking.store import Store

LOOK_SECONDS = 2.0
"""Between two looks."""
STATES = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "stopped"}


@dataclass(frozen=True)
class Status:
    """What there is of a study. `seconds`: of all its executions; `idle`: since the last trial was recorded, None before."""

    state: str
    cells_done: int
    cells: int
    trials_done: int
    trials: int
    trainings: int
    diverged: int
    seconds: float
    idle: float | None

    @property
    def ended(self) -> bool:
        return self.state != "running"

    def lines(self, study: str) -> list[str]:
        """Two lines, which fit 80 columns."""
        counts = [
            f"{self.cells_done}/{self.cells} cells",
            f"{self.trials_done}/{self.trials} trials",
            f"{self.trainings} trainings",
            f"{self.diverged} diverged",
        ]
        idle = f", last trial {duration(self.idle)} ago" if self.idle is not None and not self.ended else ""
        return [f"{study}: {self.state} after {duration(self.seconds)}{idle}", ", ".join(counts)]


def print_status(study: str | None, uri: str, watch: bool) -> None:
    """Prints how far a study is; with `watch`, again and again until it ends.

    Raises:
      Refusal: the store or the study is not there.
    """
    store = Store.existing(uri)
    record = store.study(study)
    console = Console(highlight=False, markup=False, emoji=False)
    found = look(store, record)
    if not watch or found.ended:
        console.print("\n".join(found.lines(record.plan.study)))
        return
    live = Live(console=console, auto_refresh=False)
    with live if console.is_terminal else nullcontext():
        while True:
            if console.is_terminal:
                live.update("\n".join(found.lines(record.plan.study)), refresh=True)
            else:
                console.print("; ".join(found.lines(record.plan.study)), soft_wrap=True)
            if found.ended:
                return
            time.sleep(LOOK_SECONDS)
            found = look(store, record)


def look(store: Store, record: StudyRecord) -> Status:
    """Looks once."""
    now = store.study_of(record.run_id)
    state = _state(store, now)
    return status(now, store.trials(now.experiment_id), state, *_times(store, now, state))


def status(study: StudyRecord, trials: Sequence[TrialRecord], state: str, seconds: float, idle: float | None) -> Status:
    """Counts a study's trials; those of other cells of its experiment are left aside."""
    per_cell = Counter(trial.cell for trial in trials)
    ours = [trial for trial in trials if trial.cell in {cell.id for cell in study.plan.cells}]
    held = {cell.id: min(per_cell[cell.id], study.plan.n_trials) for cell in study.plan.cells}
    return Status(
        state=state,
        cells_done=sum(count >= study.plan.n_trials for count in held.values()),
        cells=len(study.plan.cells),
        trials_done=sum(held.values()),
        trials=study.plan.n_trials * len(study.plan.cells),
        trainings=sum(len(trial.objectives) for trial in ours),
        diverged=sum(sum(trial.diverged) for trial in ours),
        seconds=seconds,
        idle=idle,
    )


def _state(store: Store, record: StudyRecord) -> str:
    """`interrupted`: MLflow has it as running, but no process holds the study's lock."""
    if record.status != "RUNNING":
        return STATES.get(record.status, record.status.lower())
    here = store.file is None or is_locked(record.plan.study, store.file)
    return "running" if here else "interrupted"


def _times(store: Store, record: StudyRecord, state: str) -> tuple[float, float | None]:
    last = store.last_trial(record.experiment_id)
    idle = None if last is None else max(time.time() - last, 0.0)
    if record.status != "RUNNING":
        return record.seconds, idle
    started = datetime.fromisoformat(store.run_tags(record.run_id)[EXECUTED]).timestamp()
    end = time.time() if state == "running" or last is None else last
    return record.seconds + max(end - started, 0.0), idle


def duration(seconds: float) -> str:
    """A time for reading.

    Example:
      >>> duration(7.2), duration(75), duration(7300)
      ('7 s', '1 min 15 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
