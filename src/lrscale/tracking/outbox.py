"""Keeps records on disk until a server has them. Each is written to disk first, and delivered once and in order.

The study continues during the delivery.
"""

import itertools
import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lrscale.errors import Failure, Refusal
from lrscale.files import safe_name

Entry = Mapping[str, Any]
Deliver = Callable[[Entry, bool], object]
"""Delivers an entry. Its second argument says whether the entry may have been delivered already."""
RETRY_SECONDS = 0.5
"""How long the courier waits between two attempts, in seconds."""
PATIENCE_SECONDS = 5.0
"""How long a finished study waits for an unreachable server, in seconds, counted from when the server went away."""
LAST_LOOK_SECONDS = 2.0
"""The shortest time that a finished study waits, in seconds, because the server may already be back."""
TRIES = 20
"""The largest number of attempts to deliver a record to a server that answers but does not accept it."""


class Outbox:
    """A file with one JSON document per line. Each is a record that the server may lack."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def put(self, entry: Entry) -> None:
        """Appends a record to the file, and returns when the disk has it."""
        line = json.dumps(entry, allow_nan=False).encode() + b"\n"
        with self.path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def entries(self) -> list[Entry]:
        """Returns the records in the file. Removes a last line that was cut off: it was never accepted as a record.

        Raises:
          Refusal: another line is not a record.
        """
        if not self.path.exists():
            return []
        *lines, rest = self.path.read_bytes().split(b"\n")
        if rest:
            os.truncate(self.path, self.path.stat().st_size - len(rest))
        return [self._read(number, line) for number, line in enumerate(lines, start=1)]

    def _read(self, number: int, line: bytes) -> Entry:
        try:
            entry = json.loads(line)
            if {"kind", "uid", "uri", "study"} <= set(entry):
                return dict(entry)
        except (ValueError, TypeError):
            pass
        raise Refusal(
            f"{self.path} must hold records that wait for a server, got line {number}: {line[:40]!r}. Repair or remove it."
        )

    def set_aside(self) -> Path:
        """Renames the file, so that no command delivers its records. Returns the new path."""
        path = next(p for n in itertools.count(1) if not (p := self.path.with_name(f"{self.path.name}.aside-{n}")).exists())
        return self.path.rename(path)

    def clear(self) -> None:
        """Removes the file."""
        self.path.unlink(missing_ok=True)


def outbox_path(journal: Path | None, study: str) -> Path:
    """Returns the path of a study's outbox: next to Optuna's journal, or in the working folder where there is no journal."""
    neighbour = journal or Path("optuna.journal")
    return neighbour.with_name(f"{neighbour.name}.{safe_name(study)}.outbox")


class Courier(threading.Thread):
    """A thread that delivers the records of an outbox while the study runs. It keeps trying while the server is away."""

    def __init__(self, outbox: Outbox, uri: str, study: str, deliver: Deliver, answers: Callable[[], bool]) -> None:
        """Delivers the records that an earlier process left in the outbox, and starts the thread.

        Args:
          outbox: the records on disk.
          uri: the URI of the server.
          study: the name of the study.
          deliver: delivers one record to the server.
          answers: returns whether the server answers.

        Raises:
          Failure: the server went away during the delivery.
          Refusal: the records are for another server, or a line is damaged.
        """
        super().__init__(daemon=True, name="courier")
        self.outbox, self.uri, self.study, self._deliver, self._answers = outbox, uri, study, deliver, answers
        self._waiting: deque[Entry] = deque()
        self.refused = ""
        """What the server said last where it did not accept a record."""
        self._lock, self._stopped, self._away_since = threading.Lock(), threading.Event(), 0.0
        deliver_all(outbox, uri, deliver)
        self.start()

    def put(self, entry: Entry) -> None:
        """Writes a record to disk; the thread delivers it later."""
        record = {"uri": self.uri, "study": self.study, "uid": os.urandom(8).hex(), **entry}
        with self._lock:
            self.outbox.put(record)
            self._waiting.append(record)

    def run(self) -> None:
        """Delivers records until `stop` is called, or the server does not accept a record."""
        while not self._stopped.is_set():
            if self._waiting:
                self._deliver_next()
            else:
                self._stopped.wait(0.02)

    def _deliver_next(self) -> None:
        """Delivers the first waiting record. Tries again while the server is away; gives up after TRIES refused attempts."""
        in_doubt, tries = False, 0
        while not self._stopped.is_set() and tries < TRIES:
            try:
                self._deliver(self._waiting[0], in_doubt)
                break
            except Failure as error:
                self.refused = str(error)
                in_doubt, tries = True, tries + 1
                self._away_since = self._away_since or time.monotonic()
                while not self._stopped.wait(RETRY_SECONDS) and not self._answers():
                    tries = 0
                self._away_since = 0.0  # the server answers again
        else:
            self._stopped.set()  # a record that the server does not accept stays on disk, with all later ones
            return
        self._away_since = 0.0
        with self._lock:
            self._waiting.popleft()
            if not self._waiting:
                self.outbox.clear()

    def settle(self, seconds: float = float("inf")) -> int:
        """Waits until all records are delivered, the server has been away too long, or the time is over.

        Args:
          seconds: the longest time to wait.

        Returns:
          The number of records that are not delivered.
        """
        begun = time.monotonic()
        while self._waiting and self.is_alive() and time.monotonic() < begun + seconds:
            away = self._away_since
            if away and time.monotonic() > max(away + PATIENCE_SECONDS, begun + LAST_LOOK_SECONDS):
                break
            time.sleep(0.02)
        return len(self._waiting)

    def stop(self) -> None:
        """Tells the thread to end. Records that are not delivered stay on disk."""
        self._stopped.set()


def deliver_all(outbox: Outbox, uri: str, deliver: Deliver) -> int:
    """Delivers the records that an earlier process left in an outbox. Any of them may have arrived already.

    Args:
      outbox: the records on disk.
      uri: the URI of the server.
      deliver: delivers one record to the server.

    Returns:
      The number of records that were in the outbox.

    Raises:
      Failure: the server is away; all records stay in the outbox.
      Refusal: the records are for another server, or a line is damaged.
    """
    entries = outbox.entries()
    for entry in entries:
        if entry["uri"] != uri:
            raise Refusal(
                f"{outbox.path} holds {len(entries)} records for {entry['uri']}, got {uri}. Deliver them: lrscale sync."
            )
    for entry in entries:
        deliver(entry, True)
    outbox.clear()
    return len(entries)
