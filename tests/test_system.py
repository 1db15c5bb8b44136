"""What differs between systems: signals here, and the branches for macOS and Windows with what they lack taken away."""

import ast
import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path, PureWindowsPath

import pytest

from lrscale import system
from lrscale.audit.processes import in_processes
from lrscale.errors import Refusal
from lrscale.files import safe_name, write_whole
from lrscale.locks import is_locked, study_lock
from lrscale.search.journal import Journal
from lrscale.system import stoppable, uninterrupted
from lrscale.tracking.client import make_database


def test_a_closed_terminal_does_not_stop_what_runs_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_command_that_records_goes_on_where_nobody_reads_its_output() -> None:
    read, write = os.pipe()
    os.close(read)
    code = "import os, sys; from lrscale.commands.cli import _closable; sys.stdout = _closable(sys.stdout); "
    code += "print('dropped'); sys.stdout.flush(); print('done', file=sys.stderr)"
    ended = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (0, "done\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_at_once_outside_a_write(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_DFL)  # whoever runs the tests may have SIGHUP ignored
    try:
        with pytest.raises(KeyboardInterrupt), stoppable():
            os.kill(os.getpid(), number)
    finally:
        signal.signal(number, before)


def test_a_signal_in_a_write_waits_for_its_end() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), stoppable():
        with uninterrupted():
            with uninterrupted():
                os.kill(os.getpid(), signal.SIGTERM)
                done.append("inner")
            done.append("outer")
        done.append("after")
    assert done == ["inner", "outer"]


def test_a_second_signal_does_not_wait() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), stoppable(), uninterrupted():
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("first")
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("second")
    assert done == ["first"]
    with stoppable(), uninterrupted():
        done.append("later")
    assert done == ["first", "later"]


def test_a_stop_that_was_swallowed_is_made_up_for_after_the_next_write() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), stoppable():
        with contextlib.suppress(KeyboardInterrupt):  # as Python does in a finalizer
            os.kill(os.getpid(), signal.SIGINT)
        with uninterrupted():
            done.append("next")
        done.append("after")
    assert done == ["next"]


def test_a_write_that_fails_keeps_its_error_and_the_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(OSError, match="full"), stoppable(), uninterrupted():
        os.kill(os.getpid(), signal.SIGTERM)
        raise OSError("full")
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_after_the_work_changes_nothing(number: signal.Signals) -> None:
    late = f"import atexit, os, sys; atexit.register(os.kill, os.getpid(), {int(number)}); "
    late += "from lrscale.commands.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", late, "translate", "--lr", "0.1", "--to-reduction", "sum"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "") and "lr" in ended.stdout


OF_THE_SYSTEM = {
    "fcntl", "msvcrt", "signal", "resource", "termios", "tty", "pty", "pwd", "grp", "ctypes", "winreg",
    "os.fork", "os.kill", "os.killpg", "os.link", "os.symlink", "os.readlink", "os.getpgid", "os.setsid", "os.getuid",
    "os.geteuid", "os.getppid", "os.sched_getaffinity", "os.uname", "os.mkfifo", "os.statvfs", "os.chmod", "os.name",
}  # fmt: skip
"""Modules and names that some systems lack, or that do something else there."""


def test_one_module_asks_for_the_system() -> None:
    package = Path(system.__file__).parent
    for file in package.rglob("*.py"):
        if file == Path(system.__file__):
            continue
        text = file.read_text("utf-8")
        tree = ast.parse(text)
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        names = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not (imported | names) & OF_THE_SYSTEM, file
        assert '"/proc' not in text and '"/tmp' not in text, file


def test_every_text_file_has_an_encoding() -> None:
    """Windows would otherwise take that of its region."""
    for file in Path(system.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                given = len(node.args) + sum(keyword.arg == "encoding" for keyword in node.keywords)
                assert node.func.attr != "read_text" or given >= 1, f"{file}:{node.lineno}"
                assert node.func.attr != "write_text" or given >= 2, f"{file}:{node.lineno}"


@pytest.mark.parametrize("has_groups", [True, False])
def test_a_server_ends_with_the_processes_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_groups: bool
) -> None:
    """Without groups, `taskkill` ends them, as on Windows. Here it is a script that ends a tree of processes."""
    monkeypatch.setattr(system, "HAS_GROUPS", has_groups)
    taskkill = tmp_path / "taskkill"
    taskkill.write_text('#!/bin/sh\n[ "$1 $2 $3" = "/T /F /PID" ] || exit 1\nkill -9 $(ps -o pid= --ppid $4) $4\n', "utf-8")
    taskkill.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    child = tmp_path / "child"
    with tempfile.TemporaryFile() as output:
        process = system.start_group(["sh", "-c", f"sleep 60 & echo $! > {child}; wait"], dict(os.environ), output)
        while not child.is_file() or not child.read_text("utf-8").endswith("\n"):
            time.sleep(0.01)
        assert system.birth(int(child.read_text("utf-8"))) is not None
        system.end_group(process, 1.0)
    assert process.returncode is not None
    while system.birth(int(child.read_text("utf-8"))) is not None:  # pytest's time limit ends this
        time.sleep(0.01)


@pytest.mark.parametrize("proc", ["/proc", "/there is none"])
def test_processes_are_found_by_their_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proc: str) -> None:
    """On Linux in /proc, and by `ps` on macOS."""
    monkeypatch.setattr(system, "PROC", Path(proc))
    command = [sys.executable, "-c", "import time; time.sleep(60)", "-m"]
    wanted, other = (subprocess.Popen([*command, str(tmp_path / name)]) for name in ("mine", "mine and more"))
    try:
        for process in (wanted, other):
            while not any(number == process.pid and "sleep" in line for number, line in system._command_lines()):
                time.sleep(0.01)
        system.end_processes("-m", f"{tmp_path}/mine")
        assert wanted.wait(10) == -signal.SIGKILL
    finally:
        other.kill()
        other.wait()


def test_without_proc_no_process_is_called_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "PROC", Path("/there is none"))
    monkeypatch.setattr(os, "kill", None)  # on Windows it would end the process
    system.this_machine.cache_clear()
    names = {system.this_machine()}
    system.this_machine.cache_clear()
    names.add(system.this_machine())
    system.this_machine.cache_clear()
    assert len(names) == 2 and system.birth(os.getpid()) == "" and system.processor_facts() == {}


def test_without_timers_a_job_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(signal, "setitimer")
    monkeypatch.delattr(signal, "SIGALRM")
    rung: list[str] = []
    with system.alarm(0.01, lambda: rung.append("rung")):
        time.sleep(0.05)
    assert not rung


def test_a_disk_without_hard_links_gets_its_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")  # as vfat says

    monkeypatch.setattr(os, "link", refuse)
    make_database(tmp_path / "mlflow.db")
    first = (tmp_path / "mlflow.db").read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["mlflow.db"] and first.startswith(b"SQLite format 3")
    (tmp_path / "late").write_bytes(b"late")
    with pytest.raises(FileExistsError):
        system.move_new(tmp_path / "late", tmp_path / "mlflow.db")
    assert (tmp_path / "mlflow.db").read_bytes() == first


def test_a_file_that_is_read_for_a_moment_is_replaced_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "HAS_GROUPS", False)
    monkeypatch.setattr(Path, "replace", lambda source, target: busy.pop()(source, target))
    real = Path.rename

    def refuse(source: Path, target: Path) -> Path:
        raise PermissionError("another program reads it")

    busy = [real, refuse, refuse]
    write_whole(tmp_path / "record", "new")
    assert (tmp_path / "record").read_text("utf-8") == "new" and not busy
    busy = [refuse] * 50
    with pytest.raises(PermissionError):
        write_whole(tmp_path / "record", "newer")
    assert [file.name for file in tmp_path.iterdir()] == ["record"]


def test_names_of_studies_are_files_on_every_system(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["con", "NUL.txt", "com1", "a.", "a", "A", "console", 'a<b>:"|?*', "lpt9.x"]
    assert safe_name("console") == "console" and safe_name("A") == "A"
    monkeypatch.setattr(sys, "platform", "win32")
    files = [safe_name(name) for name in names]
    assert len({file.lower() for file in files}) == len(names)
    assert not any(PureWindowsPath(file).is_reserved() or file.endswith(".") or set(file) & set('<>:"/\\|?*') for file in files)


def test_where_no_process_can_be_copied_ranks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "fork")
    with pytest.raises(Refusal, match="`ranks` must be 1 where the system cannot copy a process, as on Windows, got 2"):
        in_processes(lambda rank: rank, 2)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_a_disk_without_locks_is_handled_or_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    lock = study_lock("mine", [tmp_path / "db"])
    if number == errno.ENOLCK:
        with pytest.raises(Refusal, match=f"must lie on a disk with locks, got {tmp_path}"):
            lock.__enter__()
        with pytest.raises(Refusal, match="must lie on a disk with locks"):
            Journal(str(tmp_path / "optuna.journal"))
        return
    with pytest.warns(UserWarning, match="flock not supported"):
        lock.__enter__()  # a file is the lock
    with warnings.catch_warnings(), pytest.raises(Refusal, match="no other process runs"):
        warnings.simplefilter("ignore")
        study_lock("mine", [tmp_path / "db"]).__enter__()
    lock.__exit__(None, None, None)
    assert not is_locked("mine", tmp_path / "db")
