"""Signal handlers: SIGTERM and Ctrl-C stop the program at once, but never in the middle of a write."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class _State:
    """What the signal handlers know: how many writes are under way, and whether a signal has arrived."""

    writes = 0
    arrived = False


def _stop(signum: int, frame: object) -> None:
    again, _State.arrived = _State.arrived, True
    if again or not _State.writes:
        raise KeyboardInterrupt


@contextmanager
def stoppable() -> Iterator[None]:
    """Inside this context SIGTERM and SIGINT raise KeyboardInterrupt.

    During a write the exception waits for the end of the write; a second signal does not wait.
    """
    before = {number: signal.signal(number, _stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        _State.arrived = False
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Protects a write from signals: an interrupted transaction would keep a database locked.

    On exit, raises KeyboardInterrupt if a signal arrived during the write, or before it: Python drops an exception
    that is raised in a finalizer.
    """
    _State.writes += 1
    try:
        yield
    finally:
        _State.writes -= 1
    if _State.arrived and not _State.writes:
        raise KeyboardInterrupt


def ignore_signals() -> None:
    """Ignores signals from now on: the work is done, and only Python's own shutdown is left."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
