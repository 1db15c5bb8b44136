"""Places on disk: whether a folder can be written, what a study's files are called, and who may write them now."""

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from lrscale.rules import Refusal, printable


def can_write(folder: Path) -> bool:
    """Whether a file can be made in a folder, tried rather than guessed from its mode; leaves none behind."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError as error:
        return error.errno == errno.ENOSPC


def write_whole(file: Path, content: str | bytes) -> None:
    """Writes a file in one move: a kill leaves the old one or the new, and a link in its place is replaced, not followed."""
    made = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        made.write_bytes(content if isinstance(content, bytes) else content.encode())
        made.replace(file)
    finally:
        made.unlink(missing_ok=True)


def reason(error: BaseException) -> str:
    """What an error says, in one line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return printable(lines[0])[:300].rstrip(".")


def safe_name(name: str) -> str:
    """A name that is one file or folder below another, whatever a study is called; other names give other ones.

    Example:
      >>> safe_name("quickstart"), safe_name("../quick start")
      ('quickstart', '_quick_start-5c446f')
    """
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in name).lstrip(".")[:80]
    return kept if kept and kept == name else f"{kept}-{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:6]}"


def is_held(study: str, store: Path) -> bool:
    """Whether a process runs a study whose store is a file here."""
    lock = store.resolve().parent / "studies" / f"{safe_name(study)}.lock"
    if not lock.is_file():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True


@contextmanager
def held(study: str, stores: Iterable[Path]) -> Iterator[None]:
    """Inside, no other process runs the study on these stores; the system lets go of it when the process ends.

    Args:
      study: its name.
      stores: files of its stores; the locks lie in folders `studies` beside them.

    Raises:
      Refusal: another process runs it.
    """
    with ExitStack() as stack:
        for folder in sorted({file.resolve().parent / "studies" for file in stores}):
            folder.mkdir(exist_ok=True)
            lock = folder / f"{safe_name(study)}.lock"
            try:
                stack.enter_context(FileLock(lock, timeout=0))
            except Timeout:
                raise Refusal(
                    f"`hydra.sweeper.study_name` must be of a study that no other process runs, got {study}: {lock} is held. "
                    "Wait for that one, stop it, or take another name."
                ) from None
        yield
