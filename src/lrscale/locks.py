"""Lock files that let only one process run a study, or write into a folder; and whether a process of this machine lives.

The operating system releases a lock when its process ends.
"""

import glob
import hashlib
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from lrscale.errors import Refusal
from lrscale.files import safe_name

_T = TypeVar("_T")


def is_locked(study: str, store: Path) -> bool:
    """Returns whether a process on this machine runs a study. `store` is the file of a store of this study."""
    lock = store.resolve().parent / "studies" / f"{safe_name(study)}.lock"
    if not lock.is_file():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True


@contextmanager
def study_lock(study: str, stores: Iterable[Path]) -> Iterator[None]:
    """Inside this context no other process can run the study. The operating system releases the locks if the process is killed.

    Args:
      study: the name of the study.
      stores: the files of its stores; each lock file is in a folder `studies` beside a store.

    Raises:
      Refusal: another process runs the study.
    """
    with ExitStack() as stack:
        for folder in sorted({file.resolve().parent / "studies" for file in stores}):
            folder.mkdir(exist_ok=True)
            lock = folder / f"{safe_name(study)}.lock"
            try:
                stack.enter_context(FileLock(lock, timeout=0))
            except Timeout:
                raise Refusal(
                    f"`hydra.sweeper.study_name` must be of a study that no other process runs, got {study}: {lock} is locked. "
                    "Wait until that process ends, stop it, or take another name."
                ) from None
        yield


@contextmanager
def folder_lock(folders: Iterable[str]) -> Iterator[str]:
    """Inside this context no other sweep writes into a folder: the first of some that none writes into now.

    Args:
      folders: the folders that can be used; the one that is taken is made.

    Yields:
      The folder that is taken.

    Raises:
      Refusal: other processes write into all of them.
    """
    tried = ""
    for tried in folders:
        Path(tried).mkdir(parents=True, exist_ok=True)
        lock = FileLock(Path(tried) / ".lrscale.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            continue
        try:
            yield tried
        finally:
            lock.release()
        return
    raise Refusal(
        f"`hydra.sweep.dir` must be a folder that no other sweep writes into now, got {tried}. "
        "Wait until that sweep ends, or take another folder."
    )


def first_start(call: Callable[[], _T]) -> _T:
    """Returns what a call returns that gets or creates something: the tables of a database, an experiment.

    Where two processes are the first at the same moment, the second fails to create what it had not found. It then looks again.
    """
    for pause in (0.2, 0.5, 1.0):
        try:
            return call()
        except Exception as error:
            if not any(sign in str(error) for sign in ("exists", "EXISTS", "UNIQUE", "duplicate key", "Duplicate entry")):
                raise
            time.sleep(pause)
    return call()


def temporary_name(prefix: str) -> str:
    """Returns the start of a temporary file's name that tells its process: `remove_leftovers` finds the file after a kill."""
    return f"{prefix}{this_machine()}-{os.getpid()}-"


def remove_leftovers(folder: Path, prefix: str) -> None:
    """Removes from a folder what killed processes of this machine have left there under a `temporary_name`."""
    for path in folder.glob(f"{glob.escape(prefix)}{this_machine()}-*"):
        pid = path.name.removeprefix(f"{prefix}{this_machine()}-").partition("-")[0]
        if not pid.isdecimal() or birth(int(pid)) is not None:
            continue
        with suppress(OSError):  # another user's
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@cache
def this_machine() -> str:
    """Returns a name that only processes share which see each other's process ids: one start of one machine or container.

    Where that cannot be told, as on macOS and Windows, it is a name of this process alone.
    """
    try:
        start = Path("/proc/sys/kernel/random/boot_id").read_text() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return secrets.token_hex(8)
    return hashlib.sha256(f"{start} {socket.gethostname()}".encode()).hexdigest()[:16]


def birth(pid: int) -> str | None:
    """Returns when a process of this machine started, in ticks since the machine's start; None where no such process lives.

    The text is empty where that cannot be told, as on macOS and Windows.
    """
    if not Path("/proc/self/stat").exists():
        return ""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        with suppress(PermissionError):
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return None
        return ""
    return None if fields[0] in "ZX" else fields[19]
