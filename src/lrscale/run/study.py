"""Carries out a plan: checks it, opens the stores, conducts the rounds and reports."""

import gc
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from lrscale.errors import Failure, Refusal
from lrscale.files import can_write
from lrscale.locks import study_lock
from lrscale.provenance import made_by
from lrscale.run.job import Launch
from lrscale.run.progress import Display
from lrscale.run.rounds import Rounds
from lrscale.run.setup import Setup
from lrscale.run.stopwatch import Stopwatch
from lrscale.search.tuner import Tuner, check_storage, make_sampler, open_storage, storage_file
from lrscale.signals import uninterrupted
from lrscale.study.answer import answer
from lrscale.study.claims import check_claims
from lrscale.study.plan import Plan
from lrscale.study.records import StudyRecord
from lrscale.tracking.client import check_uri, sqlite_file
from lrscale.tracking.outbox import outbox_path
from lrscale.tracking.store import Store, Undelivered

Report = Callable[[Store, StudyRecord, Console], None]


def run_study(plan: Plan, setup: Setup, launch: Launch, report: Report | None = None) -> None:
    """Carries out a plan, or goes on with it, and reports.

    Only this process writes to Optuna and MLflow. A trial is recorded in MLflow first and told to Optuna
    next; whichever of the two is missing after a kill is made up for at the next start.

    Args:
      plan: what the study asks.
      setup: where it is recorded, and how its jobs are run.
      launch: runs jobs; through Hydra's launcher, or any other way.
      report: what is done with the records at the end; by default the report is written and shown.

    Raises:
      Refusal: a store cannot be used, and nothing has been written.
      Failure: more trials crashed than `max_failure_rate` allows.
    """
    check_claims(plan)
    make_sampler(plan, plan.cells[0], 0)
    check_uri(setup.uri)
    check_storage(setup.storage)
    check_folder(Path("studies"))
    with study_lock(plan.study, store_files(setup)):
        _carry_out(plan, setup, launch, report, Stopwatch())


def store_files(setup: Setup) -> list[Path]:
    """Files beside which a study keeps its locks: of its stores, or one in the working folder where both are elsewhere."""
    files = [sqlite_file(setup.uri), storage_file(setup.storage)]
    return [file for file in files if file is not None] or [Path("optuna.journal")]


def _carry_out(plan: Plan, setup: Setup, launch: Launch, report: Report | None, watch: Stopwatch) -> None:
    from lrscale.run.reporting import write_answer, write_report  # scipy and matplotlib: when there is something to report

    with watch.phase("opening stores"):  # a stop does not wait for a database: it is made in one move, or not
        store = Store(setup.uri)
        storage = open_storage(setup.storage)
        if store.is_server:
            store.keep_on_disk(outbox_path(storage_file(setup.storage), plan.study), plan.study)
    with watch.phase("opening stores"), uninterrupted():
        study = store.start_study(StudyRecord(plan, made_by(), setup.compute, setup.storage))
    console = Console(highlight=False, markup=False, emoji=False)
    begun, seconds = time.monotonic(), 0.0
    try:
        with watch.phase("asking"), uninterrupted():
            tuners = [Tuner(plan, cell, storage) for cell in plan.cells]
        gc.freeze()  # what is loaded by now stays: collecting it over and over took an eighth of the recording
        rounds = Rounds(setup, launch, store, study, tuners, watch)
        with Display(console, plan.study, len(tuners), plan.n_trials * len(tuners), rounds.held()) as display:
            rounds.run(display)
        seconds = time.monotonic() - begun if display.rounds else 0.0
        try:
            with watch.phase("delivering"):
                store.settle(plan.study)
        except Undelivered:  # the answer does not wait for the server
            write_answer(answer(study, rounds.records()), console)
            raise
        with watch.phase("reporting"):
            (report or write_report)(store, study, console)
    except BaseException as error:
        with uninterrupted(), suppress(Failure):  # of the two errors the first says more
            complete = isinstance(error, Undelivered)
            status = "FINISHED" if complete else "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
            store.finish_study(study.run_id, status, seconds)
            if (waiting := store.part()) and not complete:
                console.print(f"{waiting} records wait on disk; the same command delivers them, or lrscale sync.")
        raise
    with uninterrupted():
        store.finish_study(study.run_id, "FINISHED", seconds)
        store.part()
    if setup.profile:
        watch.show(console, plan.n_trials * len(tuners))


def check_folder(folder: Path) -> None:
    """Raises Refusal where a folder for reports cannot be made or written."""
    nearest = next(p for p in (folder.resolve(), *folder.resolve().parents) if p.exists())
    if not nearest.is_dir() or not can_write(nearest):
        raise Refusal(f"the working folder must be one that can be written, got {nearest}. Go to another folder.")
