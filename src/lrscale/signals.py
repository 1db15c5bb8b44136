"""Signal handlers: SIGTERM, SIGHUP and Ctrl-C stop the program at once, but not in the middle of a write."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

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
