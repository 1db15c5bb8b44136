"""A process that writes records into an MLflow store, so that a study goes on training meanwhile.

The process that trains sends one line of JSON for each record, and gets a line back when the record is written. Its end closes
the pipe, and then this process ends too.
"""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock

from lrscale.errors import Failure
from lrscale.system import start_answering

END_SECONDS = 2.0
"""How long the process may go on when the process that trains has ended, in seconds."""


class Lost(Exception):
    """Raised where the process that writes has ended, although nobody told it to. It may have written the last record."""


class Writer:
    """The process that writes, as the process that trains sees it. Leaving the context ends it."""

    def __init__(self) -> None:
        """Starts the process, and does not wait until it is ready."""
        self.process = start_answering([sys.executable, "-P", "-m", "lrscale.tracking.writer"])
        self._is_busy = self._is_left = False

    def open(self, address: str, lock: Path) -> None:
        """Tells the process which store it writes into.

        Args:
          address: the URI of the store, with the absolute path of a database file.
          lock: a file that the process keeps locked while it lives.
        """
        with suppress(Lost):  # `deliver` says so
            self._send([address, str(lock)])

    def deliver(self, entry: Mapping[str, Any], in_doubt: bool) -> None:
        """Has an entry written; see `client.deliver`.

        Raises:
          Failure: the store cannot be read or written, or the study was stopped meanwhile.
          Lost: the process has ended.
        """
        self._is_busy = True
        try:
            self._send([dict(entry), in_doubt])
            assert self.process.stdout is not None
            answer = self.process.stdout.readline()
            if not answer:
                raise Lost
        except Lost:
            if self._is_left:
                raise Failure("the study was stopped while a record was written") from None
            raise
        finally:
            self._is_busy = False
        if error := json.loads(answer):
            raise Failure(error)

    def _send(self, values: list[Any]) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(values).encode() + b"\n")
            self.process.stdin.flush()
        except (OSError, ValueError):  # the pipe has no reader, or it is closed here
            raise Lost from None

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Ends the process. Kills it where it does not end in time, or does not answer: another thread then waits for it."""
        self._is_left = True
        if self._is_busy:
            self.process.kill()
        assert self.process.stdin is not None and self.process.stdout is not None
        with suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(END_SECONDS + 1)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def _read(lines: "queue.SimpleQueue[bytes]") -> None:
    """Puts all lines of the pipe into a queue. When the pipe is closed, the process ends, within END_SECONDS at most."""
    for line in sys.stdin.buffer:
        lines.put(line)
    lines.put(b"")
    time.sleep(END_SECONDS)
    os._exit(1)


def write_records() -> None:
    """Writes the records that come by the standard input, until it is closed."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints is no answer
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    import gc

    from lrscale.tracking.client import Client, deliver  # imports mlflow, which takes long

    gc.freeze()
    gc.set_threshold(100_000, 20, 100)  # a record makes many objects, which soon go by themselves
    first = lines.get()
    if not first:
        return
    address, lock = json.loads(first)
    client = Client(address)
    with FileLock(lock):
        while line := lines.get():
            entry, in_doubt = json.loads(line)
            error = None
            try:
                deliver(client, entry, in_doubt)
            except Failure as failure:
                error = str(failure)
            with suppress(OSError):
                answers.write(json.dumps(error).encode() + b"\n")


if __name__ == "__main__":
    write_records()
