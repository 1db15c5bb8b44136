"""The process that writes records: it changes no record, and nothing is lost or doubled where it or its study is killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from lrscale.errors import Failure
from lrscale.run import study
from lrscale.tracking import delivery
from lrscale.tracking.client import failure
from lrscale.tracking.courier import MOST_KEPT, MOST_WAITING, Courier
from lrscale.tracking.outbox import Entry, Outbox
from lrscale.tracking.store import Store
from lrscale.tracking.writer import Lost, Writer
from tests.program import STUDY, TINY, _empty_store, at_work, here
from tests.run.test_study import lrs_of, optuna_states

KILLED = """
import os, signal, sys
import lrscale.run.study as study
from lrscale.commands.cli import main
from lrscale.tracking.writer import Lost, Writer
def send(writer, values, send=Writer._send):
    send(writer, values)
    if isinstance(values[0], dict):
        print(writer.process.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
study.MANY_TRIALS, Writer._send = 1, send
sys.exit(main())
"""
"""Runs the program with a process that writes, and kills it when the first record has been sent to that process."""


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def assert_like(folder: Path, tiny: Path) -> None:
    """Both hold the same numbers, each trial once, and no record waits."""
    assert lrs_of(folder) == lrs_of(tiny)
    assert optuna_states(folder) == ["COMPLETE"] * 24
    reader = Store.existing(f"sqlite:///{folder}/mlflow.db")
    runs = list(reader._runs(reader.study(None).experiment_id, ""))
    assert len(runs) == 25 and {run.info.status for run in runs} == {"FINISHED"}
    assert not list(folder.glob("*.outbox*"))


@pytest.fixture
def writers(monkeypatch: pytest.MonkeyPatch) -> list[Writer]:
    """The processes that write, which small studies have too here."""
    started: list[Writer] = []
    begin = Writer.__init__

    def noted(writer: Writer) -> None:
        begin(writer)
        started.append(writer)

    monkeypatch.setattr(Writer, "__init__", noted)
    monkeypatch.setattr(study, "MANY_TRIALS", 1)
    return started


def test_the_records_are_the_same_and_a_killed_writer_is_replaced(
    tiny: Path, folder: Path, writers: list[Writer], monkeypatch: pytest.MonkeyPatch
) -> None:
    delivered = []
    deliver = Writer.deliver

    def noted(writer: Writer, entry: Entry, in_doubt: bool) -> None:
        delivered.append(entry["kind"])
        deliver(writer, entry, in_doubt)
        writer.process.kill()
        raise Lost  # written, and the answer is lost

    monkeypatch.setattr(Writer, "deliver", noted)
    here(folder, "run", "-m", *TINY)
    assert len(writers) == 1 and writers[0].process.returncode == -signal.SIGKILL and delivered == ["run"]
    assert "mlflow.db-wal" not in files_in(folder)
    assert_like(folder, tiny)


def test_a_study_killed_with_its_writer_at_work_loses_nothing_and_leaves_no_process(tiny: Path, folder: Path) -> None:
    shutil.copy(_empty_store(), folder / "mlflow.db")
    for _ in range(2):
        command = [sys.executable, "-c", KILLED, "run", "-m", *TINY]
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        writer, until = Path("/proc") / ended.stdout.split()[-1], time.monotonic() + 5
        while writer.exists() and time.monotonic() < until:
            time.sleep(0.02)
        assert not writer.exists()
    here(folder, "run", "-m", *TINY)
    assert_like(folder, tiny)


def test_a_stop_and_a_failure_leave_one_file_and_sync_delivers_what_waits(
    tiny: Path, folder: Path, writers: list[Writer], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Courier, "run", lambda courier: courier._stopped.wait())  # nothing is delivered
        patch.setattr(delivery, "LAST_SECONDS", 0.0)
        at_work(patch, {2: lambda: time.sleep(0.2), 3: lambda: os.kill(os.getpid(), signal.SIGINT)})
        said = here(folder, "run", "-m", *TINY, status=130)
    (waiting,) = folder.glob("*.outbox")
    count = len(waiting.read_text().splitlines())
    assert f"{count} records wait on disk" in said and count > 1
    assert "mlflow.db-wal" not in files_in(folder) and writers[0].process.returncode is not None
    assert f"{count} records of {STUDY} delivered" in here(folder, "sync")
    assert Store.existing(f"sqlite:///{folder}/mlflow.db").study(STUDY).seconds >= 0.2  # what was trained before the stop
    with monkeypatch.context() as patch:
        at_work(patch, {1: lambda: 1 / 0})
        here(folder, "run", "-m", *TINY, status=1)
    assert "mlflow.db-wal" not in files_in(folder)
    here(folder, "run", "-m", *TINY, "hydra.sweeper.max_failure_rate=0.5")
    assert lrs_of(folder) == lrs_of(tiny)


def test_a_stop_does_not_wait_for_a_writer_that_hangs(
    tiny: Path, folder: Path, writers: list[Writer], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop() -> None:
        os.kill(writers[0].process.pid, signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr("lrscale.tracking.courier.LAST_RECORD_SECONDS", 0.2)
        patch.setattr(delivery, "LAST_SECONDS", 0.3)
        patch.setattr("lrscale.tracking.courier.QUIET_STOP_SECONDS", 0.05)
        at_work(patch, {3: stop})
        begun = time.monotonic()
        said = here(folder, "run", "-m", *TINY, status=130)
    assert time.monotonic() - begun < 30 and "records wait on disk" in said and "waiting  for sqlite:///mlflow.db" in said
    assert writers[0].process.returncode == -signal.SIGKILL
    here(folder, "run", "-m", *TINY)
    assert_like(folder, tiny)


def test_a_study_says_that_it_waits_for_a_writer_that_hangs(
    tiny: Path, folder: Path, writers: list[Writer], monkeypatch: pytest.MonkeyPatch
) -> None:
    def pause() -> None:
        os.kill(writers[0].process.pid, signal.SIGSTOP)
        threading.Timer(3, os.kill, (writers[0].process.pid, signal.SIGCONT)).start()

    monkeypatch.setattr("lrscale.tracking.courier.QUIET_SECONDS", 0.2)
    at_work(monkeypatch, {3: pause})
    said = here(folder, "run", "-m", *TINY)
    assert said.count("waiting  for sqlite:///mlflow.db to take a record") == 1
    assert_like(folder, tiny)


def test_a_database_that_another_program_holds_is_told() -> None:
    error = MlflowException("(raised as a result of autoflush)\n(sqlite3.OperationalError) database is locked\n[SQL")
    assert "(sqlite3.OperationalError) database is locked. Another program" in str(failure("sqlite:///mlflow.db", error))


def test_a_database_that_takes_no_record_stops_the_study_and_the_records_wait(
    tiny: Path, folder: Path, writers: list[Writer], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(writer: Writer, entry: Entry, in_doubt: bool) -> None:
        raise Failure("the database is full")

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "deliver", refuse)
        said = here(folder, "run", "-m", *TINY, status=1)
    assert said.splitlines()[-1] == "lrscale: the database is full" and "records wait on disk" in said
    here(folder, "run", "-m", *TINY)
    assert_like(folder, tiny)


def test_records_for_a_database_elsewhere_are_left_to_the_study(folder: Path) -> None:
    entry = {"kind": "run", "uid": "1", "uri": "sqlite:///../other/mlflow.db", "study": "s"}
    Outbox(Path("x.outbox")).put(entry)
    said = here(folder, "sync", status=2)
    assert said.count("\n") == 1 and "../other/mlflow.db" in said and Path("x.outbox").exists()


def test_a_start_waits_until_the_writer_of_a_killed_study_has_ended(folder: Path) -> None:
    lock = Outbox(folder / "x.outbox").lock
    lock.parent.mkdir()
    with Writer() as writer:
        writer.open(f"sqlite:///{_empty_store()}", lock)
        with pytest.raises(Failure, match="No Experiment"):
            writer.deliver(entry_of("0"), in_doubt=False)  # it is ready
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Failure, match="still writes"):
            patch.setattr("lrscale.tracking.outbox.LINGER_SECONDS", 0.1)
            Outbox(folder / "x.outbox").wait_for_writer()
    Outbox(folder / "x.outbox").wait_for_writer()


def entry_of(uid: str) -> dict[str, Any]:
    return {
        "kind": "run",
        "uid": uid,
        "experiment": "77",
        "name": "x",
        "tags": {},
        "started": 1,
        "ended": 2,
        "params": {},
        "metrics": [],
        "files": {},
        "status": "FINISHED",
    }


def test_a_study_that_trains_faster_helps_and_the_outbox_stays_short(folder: Path) -> None:
    slow, here_too, longest, begun = [], [], 0, threading.Event()

    def deliver(entry: Entry, in_doubt: bool) -> None:
        begun.set()
        time.sleep(0.05)
        slow.append(entry["uid"])

    def help_out(entry: Entry, in_doubt: bool) -> None:
        assert begun.wait(60)  # else a quick study could do all of it before the courier's thread has looked once
        here_too.append(entry["uid"])

    outbox = Outbox(folder / "x.outbox")
    courier = Courier(outbox, "x", "x", deliver, beside=help_out)
    for number in range(2 * MOST_KEPT):
        courier.make_room()
        courier.put({"kind": "run", "number": number})
        assert len(courier._waiting) <= MOST_WAITING
        longest = max(longest, len(outbox.entries()) if number % 25 == 0 else 0)
    assert courier.settle() == 0
    courier.stop()
    assert len({*slow, *here_too}) == len(slow) + len(here_too) == 2 * MOST_KEPT and slow and here_too
    assert MOST_WAITING < longest <= MOST_KEPT + 2 * MOST_WAITING and not outbox.path.exists()


def test_what_is_left_on_disk_after_few_lines_are_kept_is_what_waits(folder: Path) -> None:
    outbox = Outbox(folder / "x.outbox")
    entries = [{"kind": "run", "uid": str(number), "uri": "x", "study": "x"} for number in range(4)]
    for entry in entries:
        outbox.put(entry)
    outbox.keep_only(entries[2:])
    assert outbox.entries() == entries[2:] and files_in(folder) == {"x.outbox"}
    assert json.loads(outbox.path.read_text().splitlines()[0]) == entries[2]
