"""Signal handlers: SIGTERM and Ctrl-C stop the program at once, but not in the middle of a write."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


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
    """Inside this context SIGTERM and SIGINT raise KeyboardInterrupt.

    During a write (see `uninterrupted`) the exception comes at the end of the write. A second signal does not wait.
    """
    old_handlers = {number: signal.signal(number, _stop) for number in (signal.SIGTERM, signal.SIGINT)}
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
    """Ignores SIGTERM and SIGINT from now on. It is called when the work is done and only Python's shutdown is left."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
