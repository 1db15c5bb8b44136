"""Shows the progress of a study in another terminal, from MLflow's records alone: once, or until the study ends."""

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live

from lrscale.locks import is_locked
from lrscale.run.progress import duration
from lrscale.study.records import StudyRecord, TrialRecord
from lrscale.study.settings import sort_trials
from lrscale.tracking.quick_reader import NotHere, QuickReader
from lrscale.tracking.schema import EXECUTED

if TYPE_CHECKING:  # they import MLflow, which takes seconds
    from lrscale.tracking.lease import Claim
    from lrscale.tracking.reader import Reader

RESTART_SECONDS = 20.0
"""How long a watched study may be interrupted, in seconds: a start that continues it imports its packages first."""
LOOK_SECONDS = 2.0
"""Time between two readings of the store, in seconds, while a study is watched."""
STATES = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "stopped"}
"""The word that is shown for each status of an MLflow run that has ended."""


@dataclass(frozen=True)
class Status:
    """The progress of a study.

    `state` is `running`, `finished`, `failed`, `stopped` or `interrupted`. `seconds` is the time of all executions of the
    study. `idle` is the time since the last trial was recorded, in seconds, or None where there is no trial yet. `holder` says
    who runs it and since when, where the store is a server; else it is empty.
    """

    state: str
    cells_done: int
    cells: int
    trials_done: int
    trials: int
    trainings: int
    diverged: int
    seconds: float
    idle: float | None
    holder: str = ""

    @property
    def ended(self) -> bool:
        """Whether the study no longer runs."""
        return self.state != "running"

    def lines(self, study: str) -> list[str]:
        """Returns the status as two lines of at most 80 columns, and one that says who runs the study, where that is known."""
        counts = [
            f"{self.cells_done}/{self.cells} cells",
            f"{self.trials_done}/{self.trials} trials",
            f"{self.trainings} trainings",
            f"{self.diverged} diverged",
        ]
        idle = f", last trial {duration(self.idle)} ago" if self.idle is not None and not self.ended else ""
        lines = [f"{study}: {self.state} after {duration(self.seconds)}{idle}", ", ".join(counts)]
        return [*lines, self.holder] if self.holder else lines


def print_status(study: str | None, uri: str, watch: bool) -> None:
    """Prints the progress of a study.

    Args:
      study: the name of the study; None for the one that runs now, and where none runs, for the latest.
      uri: the URI of the MLflow store.
      watch: whether to repeat this every LOOK_SECONDS until the study ends.

    Raises:
      Refusal: the store does not exist, or does not hold the study.
    """
    try:
        store: QuickReader | Reader = QuickReader.existing(uri)
        record = _find(store, study)
        current = look(store, record)
    except NotHere:
        store = _reader(uri)
        record = _find(store, study)
        current = look(store, record)
    console = Console(highlight=False, markup=False, emoji=False)
    if not watch or (current.ended and current.state != "interrupted"):
        console.print("\n".join(current.lines(record.plan.study)))
        return
    last = time.monotonic() + RESTART_SECONDS
    live = Live(console=console, auto_refresh=False)
    with live if console.is_terminal else nullcontext():
        while True:
            if console.is_terminal:
                live.update("\n".join(current.lines(record.plan.study)), refresh=True)
            else:
                console.print("; ".join(current.lines(record.plan.study)), soft_wrap=True)
            if current.ended and (current.state != "interrupted" or time.monotonic() > last):
                return
            if not current.ended:
                last = time.monotonic() + RESTART_SECONDS
            time.sleep(LOOK_SECONDS)
            try:
                current = look(store, record)
            except NotHere:  # it can no longer read the database by itself
                store = _reader(uri)
                current = look(store, record)


def _reader(uri: str) -> "Reader":
    """Opens a store with MLflow, which reads every store or says what is wrong with it."""
    from lrscale.tracking.reader import Reader

    return Reader.existing(uri)


def _find(store: "QuickReader | Reader", name: str | None) -> StudyRecord:
    """Returns the record of the study with a name; where none is given, of the one that runs now, or else of the latest."""
    running = store.running() if name is None else []
    now = (study for study in running if _state(store, study, _claim(store, study)) == "running")
    return next(now, None) or store.study(name)


def _claim(store: "QuickReader | Reader", study: StudyRecord) -> "Claim | None":
    """Returns the claim of the process that runs a study; None where none is known to, or where lock files tell it."""
    if isinstance(store, QuickReader) or store.file is not None:
        return None
    from lrscale.tracking.lease import holder_in

    return holder_in(store.experiment_tags(study.experiment_id))


def look(store: "QuickReader | Reader", record: StudyRecord) -> Status:
    """Reads a study's status from the store, as it is now."""
    study = store.study_of(record.run_id)
    claim = _claim(store, study)
    state = _state(store, study, claim)
    shown = status(study, store.trials(study.experiment_id), state, *_times(store, study, state))
    if claim is None or shown.ended:
        return shown
    return replace(shown, holder=f"{claim.by()}, last sign of life {duration(claim.age)} ago")


def status(study: StudyRecord, trials: Sequence[TrialRecord], state: str, seconds: float, idle: float | None) -> Status:
    """Returns the status of a study, with its trials counted.

    Args:
      study: the record of the study, with its plan.
      trials: the finished trials of its experiment; trials of cells that are not in the plan are ignored.
      state: the state of the study, as in `Status`.
      seconds: the time of all its executions.
      idle: seconds since the last trial was recorded, or None.
    """
    in_plan = sort_trials(study.plan, trials).used
    per_cell = Counter(trial.cell for trial in in_plan)
    done = {cell.id: min(per_cell[cell.id], study.plan.n_trials) for cell in study.plan.cells}
    return Status(
        state=state,
        cells_done=sum(count >= study.plan.n_trials for count in done.values()),
        cells=len(study.plan.cells),
        trials_done=sum(done.values()),
        trials=study.plan.n_trials * len(study.plan.cells),
        trainings=sum(len(trial.objectives) for trial in in_plan),
        diverged=sum(sum(trial.diverged) for trial in in_plan),
        seconds=seconds,
        idle=idle,
    )


def _state(store: "QuickReader | Reader", record: StudyRecord, claim: "Claim | None") -> str:
    """Returns the state of a study. `interrupted` means: MLflow has it as running, but no process holds its lock file or lease.

    A lease whose process was killed on another machine cannot be told from one that is held; its last sign of life is shown.
    """
    if record.status != "RUNNING":
        return STATES.get(record.status, record.status.lower())
    is_running = claim is not None if store.file is None else is_locked(record.plan.study, store.file)
    return "running" if is_running else "interrupted"


def _times(store: "QuickReader | Reader", record: StudyRecord, state: str) -> tuple[float, float | None]:
    """Returns the seconds of all executions, and the seconds since the last trial was recorded, as in `Status`."""
    last_recorded = store.last_trial(record.experiment_id)
    idle = None if last_recorded is None else max(time.time() - last_recorded, 0.0)
    if record.status != "RUNNING":
        return record.seconds, idle
    started = datetime.fromisoformat(store.run_tags(record.run_id)[EXECUTED]).timestamp()
    end = time.time() if state == "running" or last_recorded is None else last_recorded
    return record.seconds + max(end - started, 0.0), idle
