"""One process a study: locks on files, which the system releases when their process ends."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from lrscale.errors import Refusal
from lrscale.files import safe_name


def is_locked(study: str, store: Path) -> bool:
    """Returns whether a process on this machine runs a study on a store that is a file."""
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
    """Locks a study on its stores for this process; the system releases the lock when the process ends.

    Args:
      study: its name.
      stores: files of its stores; the lock files lie in folders `studies` beside them.

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
