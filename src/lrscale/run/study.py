"""Carries out a plan: checks it, opens the stores, runs the rounds, and reports."""

import gc
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

from rich.console import Console

from lrscale.errors import Failure, Refusal
from lrscale.files import can_write
from lrscale.locks import study_lock
from lrscale.provenance import made_by
from lrscale.run.doing import doing
from lrscale.run.job import Launch
from lrscale.run.progress import Display
from lrscale.run.rounds import Rounds, ShareSlots
from lrscale.run.setup import Setup
from lrscale.run.slots import Slots
from lrscale.run.stopwatch import Stopwatch
from lrscale.search.samplers import make_sampler
from lrscale.search.storage import check_storage, open_storage, storage_file
from lrscale.search.twin_tuner import RecordedRounds, twin_tuners
from lrscale.study.answer import answer
from lrscale.study.claims import check_claims
from lrscale.study.foresight import foresight
from lrscale.study.plan import Plan
from lrscale.study.records import StudyRecord
from lrscale.system import cores, uninterrupted
from lrscale.tracking.client import check_place, check_uri, opening
from lrscale.tracking.delivery import Undelivered
from lrscale.tracking.lease import Lease, study_lease
from lrscale.tracking.outbox import outbox_path
from lrscale.tracking.places import sqlite_file
from lrscale.tracking.store import Store
from lrscale.tracking.writer import Writer
from lrscale.training.device import described

Report = Callable[[Store, StudyRecord, Console], None]
"""A function that reports on a finished study, from the records in its store."""
MANY_TRIALS = 100
"""From so many trials on, a process of its own writes the records; its start takes as long as 50 records."""
OpenSlots = Callable[[Store, StudyRecord, Lease, Console], ShareSlots]
"""A function that makes the slots of a study that begins, from its store, its record and its lease."""


def run_study(
    plan: Plan,
    setup: Setup,
    launch: Launch | None,
    report: Report | None = None,
    rounds: RecordedRounds | None = None,
    console: Console | None = None,
    open_slots: OpenSlots | None = None,
) -> None:
    """Carries out a plan and reports. Continues the study where the stores hold a part of it.

    Only this process writes to Optuna and MLflow. Each trial is written to MLflow before Optuna is told, so the next
    start can repair either store after a kill.

    Args:
      plan: the plan of the study.
      setup: the stores that record the study, and how its jobs are run.
      launch: the function that runs jobs, through Hydra's launcher or in another way; None where `open_slots` makes the slots.
      report: the function that reports at the end; by default `write_report`.
      rounds: the rounds of trials that are trained; None to ask for the trials with the plan's sampler.
      console: where progress and answer are printed; by default the standard output.
      open_slots: makes the slots in which jobs run, when the stores are open; by default they call `launch`.

    Raises:
      Refusal: the plan or a store cannot be used, and nothing has been written; or another process runs the study.
      Failure: more trials crashed than `max_failure_rate` allows, or records still wait on disk for a server.
    """
    check_claims(plan)
    make_sampler(plan, plan.cells[0], 0)
    check_uri(setup.uri)
    check_storage(setup.storage, setup.uri)
    if report is None:
        check_folder(Path("studies"))
    check_place(setup.uri, plan.study)  # last, because it makes the tables of an empty database server
    console = console or Console(highlight=False, markup=False, emoji=False)
    with (
        study_lease(setup.uri, plan.study, console.print) as lease,
        study_lock(plan.study, store_files(setup)),
        Writer() if _writes_apart(plan, setup) else nullcontext() as writer,
    ):
        if launch is not None:
            slots: ShareSlots = Slots(lease.guarded(launch), setup.n_jobs, setup.workers)
        _carry_out(plan, setup, lease, writer, open_slots or (lambda *_: slots), report, rounds, console, Stopwatch())


def _writes_apart(plan: Plan, setup: Setup) -> bool:
    """Returns whether a process of its own writes the records: where there is a core for it, and enough to write."""
    is_server = setup.uri.startswith("http")  # which does the work itself
    return not is_server and cores() > 1 and plan.n_trials * len(plan.cells) >= MANY_TRIALS


def store_files(setup: Setup) -> list[Path]:
    """Returns the files beside which a study keeps its lock files.

    These are the files of its stores. Where both stores are on servers, it is a file in the working folder.
    """
    files = [sqlite_file(setup.uri), storage_file(setup.storage)]
    return [file for file in files if file is not None] or [Path("optuna.journal")]


def _carry_out(
    plan: Plan,
    setup: Setup,
    lease: Lease,
    writer: Writer | None,
    open_slots: OpenSlots,
    report: Report | None,
    rounds: RecordedRounds | None,
    console: Console,
    watch: Stopwatch,
) -> None:
    """Opens the stores, runs the rounds and reports; writes to the study's run how the study ended."""
    with doing("importing scipy and matplotlib"):  # only after all checks
        from lrscale.run.reporting import write_answer, write_report
    # a signal may stop this at once: a database is created in one move, or not at all
    with doing(opening(setup.uri)), watch.phase("opening stores"):
        store = Store(setup.uri)
        store.check = lease.check
        storage = open_storage(setup.storage)
        store.keep_on_disk(outbox_path(storage_file(setup.storage), plan.study), plan.study, writer, console.print)
    with watch.phase("opening stores"), uninterrupted():
        study = store.start_study(
            StudyRecord(plan, made_by(described(setup.compute.device, setup.compute.tf32)), setup.compute, setup.storage)
        )
    start, seconds = time.monotonic(), 0.0
    try:
        with watch.phase("asking"), uninterrupted():
            twins = twin_tuners(plan, storage, rounds)
        gc.freeze()  # the objects loaded by now stay alive: collecting them again and again took an eighth of the recording
        loop = Rounds(setup, open_slots(store, study, lease, console), store, study, twins, watch)
        for remark in [*foresight(plan), *loop.remarks]:
            console.print(remark)
        with Display(console, plan.study, len(plan.cells), plan.n_trials * len(plan.cells), loop.trials_done()) as display:
            try:
                loop.run(display)
            finally:  # a stopped execution has trained too
                seconds = time.monotonic() - start if display.rounds else 0.0
        try:
            with watch.phase("delivering"):
                store.settle()
        except Undelivered:  # the answer is written now, without the server
            write_answer(answer(study, loop.records()), console)
            raise
        with watch.phase("reporting"):
            (report or write_report)(store, study, console)
    except BaseException as error:
        with uninterrupted(), suppress(Failure):  # if this fails too, the first error is the one to show
            complete = isinstance(error, Undelivered)
            status = "FINISHED" if complete else "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
            if not lease.is_lost:  # else the run is that of another process
                store.finish_study(study.run_id, status, seconds)
            if (waiting := store.close()) and not complete:
                console.print(f"{waiting} records wait on disk. To deliver them, run the same command again or lrscale sync.")
        raise
    with uninterrupted():
        store.finish_study(study.run_id, "FINISHED", seconds)
        store.settle()
        store.prepare_sorting()
        store.close()
    if setup.profile:
        watch.show(console, plan.n_trials * len(plan.cells))


def check_folder(folder: Path) -> None:
    """Raises Refusal unless the folder for reports can be created and written."""
    nearest = next(p for p in (folder.resolve(), *folder.resolve().parents) if p.exists())
    if not nearest.is_dir() or not can_write(nearest):
        raise Refusal(f"the working folder must be one that can be written, got {nearest}. Change to another folder.")
