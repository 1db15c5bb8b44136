"""Stopping on SIGTERM and Ctrl-C: at once, but never in the middle of a write."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class _State:
    """Signal handlers have nowhere else to look."""

    writes = 0
    asked = False


def _stop(signum: int, frame: object) -> None:
    again, _State.asked = _State.asked, True
    if again or not _State.writes:
        raise KeyboardInterrupt


@contextmanager
def stoppable() -> Iterator[None]:
    """Inside, SIGTERM and SIGINT raise KeyboardInterrupt, after the write that is under way; a second one does not wait."""
    before = {number: signal.signal(number, _stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        _State.asked = False
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A write that is not left half done: an interrupted transaction would keep a database locked.

    Its end also stops what was asked to stop before and went on: Python drops what is raised in a finalizer.
    """
    _State.writes += 1
    try:
        yield
    finally:
        _State.writes -= 1
    if _State.asked and not _State.writes:
        raise KeyboardInterrupt


def ignore_signals() -> None:
    """From now on a signal changes nothing: the work is done, and what is left is Python's own end."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
