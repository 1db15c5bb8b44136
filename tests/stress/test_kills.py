"""Tests that an interrupted study ends with the same numbers as an uninterrupted one.

Studies are killed at random moments and at their writes, and stopped by signals.

python -m pytest -q -s tests/stress/test_kills.py      (about 10 minutes on two cores)
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lrscale.commands.cli import main
from lrscale.search.journal import Journal
from lrscale.tracking.client import Client
from lrscale.tracking.outbox import Entry, Outbox
from lrscale.tracking.store import Store
from tests.program import TINY, _empty_store, lrscale
from tests.run.test_study import lrs_of, optuna_states

MOMENTS, STUDIES, SEED = 25, 5, 20261125
WRITES = 60
STOPS = 8
STOPS_WITHIN = 3.0


APART = "import sys, lrscale.run.study as study; study.MANY_TRIALS = 1; from lrscale.commands.cli import main; sys.exit(main())"
"""The program, with a process that writes the records of small studies too."""


def start(folder: Path, *more: str, is_apart: bool = False) -> "subprocess.Popen[bytes]":
    """Starts the tiny study in a new session of processes."""
    program = ["-c", APART] if is_apart else ["-m", "lrscale"]
    command = [sys.executable, *program, "run", "-m", *TINY, *more]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)


def in_session(session: int) -> list[int]:
    """Returns the ids of the processes that still run in a session. Zombie processes are left out."""
    command = ["ps", "-o", "pid=,stat=", "--sid", str(session)]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return [int(pid) for pid, state in map(str.split, listed.splitlines()) if not state.startswith("Z")]


def assert_like(folder: Path, tiny: Path) -> None:
    """Asserts that two stores hold the same numbers, and that in Optuna and MLflow no trial is lost, doubled or left running."""
    assert lrs_of(folder) == lrs_of(tiny)
    assert optuna_states(folder).count("COMPLETE") == 24 and set(optuna_states(folder)) <= {"COMPLETE", "FAIL"}
    store = Store.existing(f"sqlite:///{folder}/mlflow.db")
    experiment = store.study(None).experiment_id
    assert {run.info.status for run in store._runs(experiment, "")} == {"FINISHED"}
    assert len(list(store._runs(experiment, "tags.`lrscale.kind` = 'study'"))) == 1


def test_killed_at_random_moments(tiny: Path, tmp_path: Path) -> None:
    draw, killed, study = random.Random(SEED), 0, 0
    while killed < MOMENTS:
        folder = tmp_path / str(study)
        folder.mkdir()
        study += 1
        for _ in range(MOMENTS // STUDIES):
            process = start(folder, is_apart=study % 2 == 0)
            time.sleep(draw.uniform(1.0, 7.0))
            if killed % 2:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
            process.communicate()
            killed += process.returncode == -signal.SIGKILL
        lrscale(folder, "run", "-m", *TINY)
        assert_like(folder, tiny)
        assert names_in(folder) == names_in(tiny)
    print(f"\nkilled while running: {killed} times in {study} studies; lost: 0")


def names_in(folder: Path) -> set[str]:
    """Returns the names of the files that a study leaves. SQLite's temporary files are left out."""
    return {path.name for path in folder.iterdir() if not path.name.startswith("mlflow.db-")}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("more", [[], ["hydra/launcher=joblib", "hydra.sweeper.n_jobs=2"]], ids=["alone", "joblib"])
@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["to-the-process", "to-the-group"])
def test_a_signal_ends_it_cleanly_with_its_children(
    tiny: Path, tmp_path: Path, number: signal.Signals, more: list[str], send: Callable[[int, int], None]
) -> None:
    """Ctrl-C in a terminal signals the whole process group; the system's SIGTERM signals one process."""
    draw, stopped, slowest, study = random.Random(SEED + number), 0, 0.0, 0
    while stopped < STOPS:
        folder = tmp_path / str(study)
        folder.mkdir(exist_ok=True)
        process = start(folder, *more)
        time.sleep(draw.uniform(1.0, 7.0))
        if process.poll() is None:
            send(process.pid, number)
        sent = time.monotonic()
        said, _ = process.communicate(timeout=60)
        took = time.monotonic() - sent
        assert took < STOPS_WITHIN, said
        assert b"Traceback" not in said or (more and send is os.killpg)  # from joblib's workers, if Ctrl-C comes at their start
        if process.returncode == 0:  # the study had ended before the signal
            assert_like(folder, tiny)
            study += 1
            continue
        stopped, slowest = stopped + 1, max(slowest, took)
        # Python dies by SIGINT, not with exit status 130, if an import was interrupted inside exec(); a shell shows both as 130
        assert process.returncode in (130, -signal.SIGINT), said
        assert b"The same command goes on" in said
        time.sleep(max(0, STOPS_WITHIN - took))
        assert in_session(process.pid) == []
    lrscale(folder, "run", "-m", *TINY, *more)
    assert_like(folder, tiny)
    print(f"\n{number.name}: {stopped} stops, the slowest after {slowest:.2f} s")


class Killer:
    """Kills this process at its nth point of writing. A point is before a write, after it, or in the middle of a line."""

    def __init__(self, at: int) -> None:
        self.left = at

    def point(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def arm(self) -> None:
        read, append, put, killer = Client.__getattr__, Journal.append_logs, Outbox.put, self

        def told(client: Client, name: str) -> Callable[..., Any]:
            method = read(client, name)
            if name.startswith(("get", "search", "download", "list")):
                return method

            def dying(*given: Any, **named: Any) -> Any:
                killer.point()
                returned = method(*given, **named)
                killer.point()
                return returned

            return dying

        def dying_append(journal: Journal, logs: list[dict[str, Any]]) -> None:
            killer.point()
            if killer.left == 1:
                with open(journal._file_path, "ab") as file:
                    file.write(b'{"op_code":4,"worker_i')
            killer.point()
            append(journal, logs)
            killer.point()

        def dying_put(outbox: Outbox, entry: Entry) -> None:
            killer.point()
            if killer.left == 1:
                with outbox.path.open("ab") as file:
                    file.write(b'{"uri": "sqlite:///mlf')
            killer.point()
            put(outbox, entry)
            killer.point()

        patch = pytest.MonkeyPatch()  # of a process that ends by being killed
        patch.setattr(Client, "__getattr__", told)
        patch.setattr(Journal, "append_logs", dying_append)
        patch.setattr(Outbox, "put", dying_put)


def in_a_child(folder: Path, at: int) -> int:
    """Runs the tiny study in a fork of this process, which is killed at its nth point of writing; returns its exit code."""
    child = os.fork()
    if child == 0:
        status = 99
        try:
            os.chdir(folder)
            quiet = os.open(folder / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            Killer(at).arm()
            status = main(["run", "-m", *TINY])
        finally:
            sys.stdout.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_killed_at_its_writes(tiny: Path, tmp_path: Path) -> None:
    draw, killed, study = random.Random(SEED), 0, 0
    while killed < WRITES:
        folder = tmp_path / str(study)
        folder.mkdir()
        shutil.copy(_empty_store(), folder / "mlflow.db")
        study += 1
        while (ended := in_a_child(folder, draw.randint(1, 190))) != 0:
            assert ended == -signal.SIGKILL, (folder / "said.txt").read_text()
            killed += 1
        assert_like(folder, tiny)
    print(f"\nkilled at writes: {killed} times in {study} studies; lost: 0")
