"""Ends work that takes too long: by an exception, and where that does not help, by ending its process."""

import faulthandler
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lrscale.system import alarm

GRACE_SECONDS = 10.0
"""How long after the limit the process is ended, in seconds, if the exception has not ended the work."""


class TookTooLong(BaseException):
    """Raised in work that takes longer than it may. Code that catches every Exception does not stop it."""


@contextmanager
def time_limit(seconds: float | None, may_end_process: bool) -> Iterator[None]:
    """Raises TookTooLong inside the context after a time, where the system has timers and this is the main thread.

    An exception cannot stop code outside Python, such as a deadlock in a library. So the process may be ended a little later,
    by a timer that needs no Python.

    Args:
      seconds: the longest time; None for no limit.
      may_end_process: whether the process may be ended, because it is a launcher's worker.
    """
    if seconds is None:
        yield
        return

    def stop() -> None:
        raise TookTooLong(f"the job took longer than hydra.sweeper.job_timeout={seconds:g} seconds")

    may_end = may_end_process and sys.__stderr__ is not None
    try:
        if may_end and sys.__stderr__ is not None:
            faulthandler.dump_traceback_later(seconds + GRACE_SECONDS, exit=True, file=sys.__stderr__)
        with alarm(seconds, stop):
            yield
    finally:
        if may_end:
            faulthandler.cancel_dump_traceback_later()
