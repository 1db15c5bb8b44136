"""Lock files that let only one process run a study, or write into a folder.

The operating system releases a lock when its process ends.
"""

import errno
import glob
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from lrscale.errors import Refusal
from lrscale.files import safe_name
from lrscale.system import birth, this_machine

_T = TypeVar("_T")

_held: set[Path] = set()
"""The lock files of the studies that this process runs."""


def file_lock(path: Path, seconds: float = 0.0) -> FileLock:
    """Takes a lock and returns it; `release` gives it back.

    Where a disk has no locks, as some network disks and cloud folders, filelock takes a marker file instead and warns. Where the
    disk refuses them, this function does too.

    Args:
      path: the lock file; created where there is none.
      seconds: how long to wait for another process; -1 for as long as it takes.

    Raises:
      Timeout: another process has the lock.
      Refusal: the disk refuses locks.
    """
    lock = FileLock(path, timeout=seconds)
    try:
        lock.acquire()
    except OSError as error:
        if isinstance(error, Timeout) or error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL):
            raise
        raise Refusal(
            f"The stores of a study must lie on a disk with locks, got {path.parent}, which refuses them: {error.strerror}. "
            "Take a folder on another disk."
        ) from None
    return lock


def is_locked(study: str, store: Path) -> bool:
    """Returns whether a process on this machine runs a study. `store` is the file of a store of this study."""
    lock = store.resolve().parent / "studies" / f"{safe_name(study)}.lock"
    return lock.is_file() and is_locked_file(lock)


def run_by_others(store: Path) -> str | None:
    """Returns the name of the lock file of a study that another process runs beside a store; None where there is none."""
    locks = sorted(set((store.resolve().parent / "studies").glob("*.lock")) - _held)
    return next((lock.stem for lock in locks if is_locked_file(lock)), None)


def is_locked_file(lock: Path) -> bool:
    """Returns whether a process has a lock file."""
    try:
        file_lock(lock).release()
    except Timeout:
        return True
    return False


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
                stack.callback(file_lock(lock).release)
                _held.add(lock)
                stack.callback(_held.discard, lock)
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
        try:
            lock = file_lock(Path(tried) / ".lrscale.lock")
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
