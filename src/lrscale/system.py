"""What differs between Linux, macOS and Windows: signals, processes and moves of files. No other module asks for the system.

SIGTERM and Ctrl-C stop the program at once, but not in the middle of a write. Linux is where this runs every day. The branches
for macOS and Windows were read, and run here as far as they can be: see `tests/test_system.py`.
"""

import hashlib
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path, PurePath
from typing import IO, Any

PROC = Path("/proc")
"""Where Linux shows its processes. Other systems have no such folder."""
HAS_GROUPS = hasattr(os, "killpg")
"""Whether processes form groups that get a signal together. Windows has none, nor SIGKILL, SIGHUP and timers."""


STOPS = tuple(signal.Signals[name] for name in ("SIGTERM", "SIGINT", "SIGHUP") if name in signal.Signals.__members__)
"""The signals that stop the program. The system sends SIGHUP when a terminal is closed; Windows does not have it."""


class _State:
    """The state of the signal handlers: the number of open writes, and whether a signal has arrived."""

    writes = 0
    arrived = False


def _stop(signum: int, frame: object) -> None:
    is_second, _State.arrived = _State.arrived, True
    if is_second or not _State.writes:
        raise KeyboardInterrupt


@contextmanager
def stoppable() -> Iterator[None]:
    """Inside this context the signals `STOPS` raise KeyboardInterrupt. SIGHUP stays ignored where it is, as under `nohup`.

    During a write (see `uninterrupted`) the exception comes at the end of the write. A second signal does not wait.
    """
    ignored = [number for number in STOPS if number.name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN]
    old_handlers = {number: signal.signal(number, _stop) for number in STOPS if number not in ignored}
    try:
        yield
    finally:
        _State.arrived = False
        for number, handler in old_handlers.items():
            signal.signal(number, handler)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Protects a write from signals. An interrupted transaction would keep a database locked.

    On exit, raises KeyboardInterrupt if a signal arrived during the write or before it. The signal before it matters
    because Python drops an exception that a signal handler raises inside a finalizer.
    """
    _State.writes += 1
    try:
        yield
    finally:
        _State.writes -= 1
    if _State.arrived and not _State.writes:
        raise KeyboardInterrupt


def stop_if_asked() -> None:
    """Raises KeyboardInterrupt if a signal has arrived: a training may have caught the exception and gone on, or returned."""
    if _State.arrived:
        raise KeyboardInterrupt


def ignore_signals() -> None:
    """Ignores the signals `STOPS` from now on. It is called when the work is done and only Python's shutdown is left."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def alarm(seconds: float, ring: Callable[[], None]) -> Iterator[None]:
    """Calls a function in the main thread after a time, unless the context has ended. It may raise.

    Nothing is called where the system has no timers, as on Windows, and in another thread.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, lambda *_: ring())
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def start_group(command: Sequence[str], environment: Mapping[str, str], output: IO[bytes]) -> "subprocess.Popen[bytes]":
    """Starts a program as the head of a group of processes. A Ctrl-C in the terminal does not reach the group."""
    options: dict[str, Any] = {"env": environment, "stdout": output, "stderr": output, **_apart()}
    return subprocess.Popen(command, **options)


def start_answering(command: Sequence[str]) -> "subprocess.Popen[bytes]":
    """Starts a program with pipes to its input and from its output. A Ctrl-C in the terminal does not reach it."""
    pipe = subprocess.PIPE
    options: dict[str, Any] = {"stdin": pipe, "stdout": pipe, "stderr": subprocess.DEVNULL, **_apart()}
    return subprocess.Popen(command, **options)


def _apart() -> dict[str, Any]:
    return {"start_new_session": True} if HAS_GROUPS else {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}


def memory_bytes() -> int:
    """Returns the memory of this machine, in bytes; without bound where the system does not tell it."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return sys.maxsize


def cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


GUARD = """import os, signal, sys, time
sys.stdin.read()
for number in (signal.SIGTERM, signal.SIGKILL):
    try:
        os.killpg(int(sys.argv[1]), number)
    except ProcessLookupError:
        break
    time.sleep(2)"""
"""A program that ends a group of processes as soon as whoever started the program is gone, also by SIGKILL: its input ends."""


def guard_group(process: "subprocess.Popen[bytes]") -> "subprocess.Popen[bytes] | None":
    """Starts a program that ends the group of a process when this process is gone; None where the system has no groups."""
    command = [sys.executable, "-I", "-S", "-c", GUARD, str(process.pid)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) if HAS_GROUPS else None


def end_group(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    """Ends a program and the processes that it has started: by SIGTERM, and by SIGKILL those that remain after some seconds.

    Windows has no groups that can be ended. There `taskkill` ends the tree of processes.
    """
    if not HAS_GROUPS:
        subprocess.run(["taskkill", "/T", "/F", "/PID", str(process.pid)], capture_output=True, check=False)
        process.wait()
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        if _has_ended(process, seconds):
            break
    process.wait()


def _has_ended(process: "subprocess.Popen[bytes]", seconds: float) -> bool:
    """Waits until a group has no process left, for some seconds at most, and returns whether this is so."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        process.poll()
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


def end_processes(*arguments: str) -> None:
    """Ends at once all other processes of this user whose command line has some arguments.

    The command lines are in /proc on Linux, and `ps` knows them on macOS. On Windows nothing is ended.
    """
    for number, line in _command_lines():
        if all(f" {argument} " in f" {line} " for argument in arguments) and number != os.getpid():
            with suppress(OSError):
                os.kill(number, getattr(signal, "SIGKILL", signal.SIGTERM))


def _command_lines() -> Iterator[tuple[int, str]]:
    """Yields the number of each process and its arguments, separated by blanks."""
    if PROC.is_dir():
        for process in PROC.glob("[0-9]*"):
            with suppress(OSError):
                yield int(process.name), (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    elif HAS_GROUPS:
        said = subprocess.run(["ps", "-axww", "-o", "pid=,command="], capture_output=True, check=False).stdout
        for line in said.decode(errors="replace").splitlines():
            number, _, command = line.strip().partition(" ")
            yield int(number), command.strip()


@cache
def this_machine() -> str:
    """Returns a name that only processes share which see each other's process ids: one start of one machine or container.

    Where that cannot be told, as on macOS and Windows, it is a name of this process alone.
    """
    try:
        start = (PROC / "sys/kernel/random/boot_id").read_text("utf-8") + os.readlink(PROC / "self/ns/pid")
    except OSError:
        return secrets.token_hex(8)
    return hashlib.sha256(f"{start} {socket.gethostname()}".encode()).hexdigest()[:16]


def birth(pid: int) -> str | None:
    """Returns when a process of this machine started, in ticks since the machine's start; None where no such process lives.

    The text is empty where that cannot be told, as on macOS and Windows.
    """
    if not (PROC / "self/stat").exists():
        return ""  # on Windows os.kill would end the process
    try:
        fields = (PROC / f"{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        with suppress(PermissionError):
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return None
        return ""
    return None if fields[0] in "ZX" else fields[19]


def processor_facts() -> dict[str, str]:
    """Returns what Linux says of the first core, by name; empty on other systems."""
    try:
        first_core = (PROC / "cpuinfo").read_text("utf-8", "replace").partition("\n\n")[0]
    except OSError:
        return {}
    return dict(re.findall(r"^([\w ]+?)\s*:\s*(.*)$", first_core, re.M))


def can_fork() -> bool:
    """Returns whether this process can be copied: on Linux and macOS, not on Windows."""
    return hasattr(os, "fork")


def cases_differ() -> bool:
    """Returns whether `A` and `a` are two files on the usual disks of this system. On macOS and Windows they are one."""
    return sys.platform not in ("darwin", "win32")


def loopback_interface() -> str | None:
    """Returns the name of the network interface that leads to this machine alone, where libraries know it by its name."""
    if not HAS_GROUPS:
        return None  # Windows gives its interfaces other names in each library
    return next((name for _, name in socket.if_nameindex() if name.startswith("lo")), None)


def file_url(file: PurePath) -> str:
    """Returns the URL of a file with its letters as they are, for libraries that do not decode `%20`.

    Example:
      >>> from pathlib import PurePosixPath, PureWindowsPath
      >>> file_url(PurePosixPath("/a b/store")), file_url(PureWindowsPath("C:/a b/store"))
      ('file:///a b/store', 'file:///C:/a b/store')
    """
    return f"file:///{file.as_posix().removeprefix('/')}"


def sqlite_url(file: PurePath) -> str:
    """Returns the URL of a database in SQLite.

    Example:
      >>> from pathlib import PurePosixPath, PureWindowsPath
      >>> sqlite_url(PurePosixPath("/a/mlflow.db")), sqlite_url(PureWindowsPath("C:/a/mlflow.db"))
      ('sqlite:////a/mlflow.db', 'sqlite:///C:/a/mlflow.db')
    """
    return f"sqlite:///{file.as_posix()}"


def replace(source: Path, target: Path) -> None:
    """Moves a file to the place of another. Windows refuses this for a moment while a program reads the other one."""
    for _ in range(0 if HAS_GROUPS else 20):
        with suppress(PermissionError):
            source.replace(target)
            return
        time.sleep(0.05)
    source.replace(target)


def move_new(source: Path, target: Path) -> None:
    """Moves a file to a place where none is, in one step.

    A disk without hard links, such as a memory stick, has no such step. There another process may write the same file between the
    look and the move; the later one then stays, whole.

    Raises:
      FileExistsError: there is a file already.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        if target.exists():
            raise FileExistsError(target) from None
        source.replace(target)
        return
    source.unlink()
