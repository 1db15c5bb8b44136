"""Says what a command does before it has anything to show, such as importing torch. To start fast, it imports little itself."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

LONG_SECONDS = 10.0
"""From how many seconds on a pipe is told too."""


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Shows on the standard error what the `with` block does.

    On a terminal this is a line that goes away at the end of the block, so the block prints nothing itself. In a pipe it is a
    plain line, and only where the block takes longer than LONG_SECONDS.

    Args:
      what: what is being done, in less than a line, as in `importing torch`.
    """
    stream = sys.stderr
    if not stream.isatty():
        timer = threading.Timer(LONG_SECONDS, lambda: print(f"{what} ...", file=stream, flush=True))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
        return
    line = f"{what} ..."
    stream.write(f"{line}\r")  # what anyone else prints then begins at the start of the line
    stream.flush()
    try:
        yield
    finally:
        stream.write(" " * len(line) + "\r")
        stream.flush()
