"""Records that wait on disk for a server: kept before anything else, delivered in order, once, while the study goes on."""

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
"""Delivers an entry; told whether it may have been delivered already."""
RETRY_SECONDS = 0.5
PATIENCE_SECONDS = 5.0
"""From when a server went away until a study that has ended no longer waits for it."""
LAST_LOOK_SECONDS = 2.0
"""At least so long it waits, as the server may be back already."""
TRIES = 20
"""Of a server that answers and yet takes a record not."""


class Outbox:
    """A file with one JSON document a line, each a record that a server may lack."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def put(self, entry: Entry) -> None:
        line = json.dumps(entry, allow_nan=False).encode() + b"\n"
        with self.path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def entries(self) -> list[Entry]:
        """What is in it. A last line that was cut off was never kept, and is taken back.

        Raises:
          Refusal: another line is not what was put in.
        """
        if not self.path.exists():
            return []
        *lines, rest = self.path.read_bytes().split(b"\n")
        if rest:
            os.truncate(self.path, self.path.stat().st_size - len(rest))
        return [self._read(place, line) for place, line in enumerate(lines, start=1)]

    def _read(self, place: int, line: bytes) -> Entry:
        try:
            entry = json.loads(line)
            if {"kind", "uid", "uri", "study"} <= set(entry):
                return dict(entry)
        except (ValueError, TypeError):
            pass
        raise Refusal(
            f"{self.path} must hold records that wait for a server, got line {place}: {line[:40]!r}. Mend or remove it."
        )

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)


def outbox_path(journal: Path | None, study: str) -> Path:
    """Where a study's records wait: next to Optuna's journal, or in the working folder."""
    beside = journal or Path("optuna.journal")
    return beside.with_name(f"{beside.name}.{safe_name(study)}.outbox")


class Courier(threading.Thread):
    """Delivers what is put into an outbox, beside the study, and goes on trying while the server is away."""

    def __init__(self, outbox: Outbox, uri: str, study: str, deliver: Deliver, answers: Callable[[], bool]) -> None:
        """Delivers what waits from before, and starts.

        Raises:
          Failure: the server went away meanwhile.
          Refusal: what waits is for another server, or damaged.
        """
        super().__init__(daemon=True, name="courier")
        self.outbox, self.uri, self.study, self._deliver, self._answers = outbox, uri, study, deliver, answers
        self._waiting: deque[Entry] = deque()
        self._lock, self._stopped, self._away_since = threading.Lock(), threading.Event(), 0.0
        deliver_all(outbox, uri, deliver)
        self.start()

    def put(self, entry: Entry) -> None:
        """Keeps a record on disk, from where it is delivered."""
        whole = {"uri": self.uri, "study": self.study, "uid": os.urandom(8).hex(), **entry}
        with self._lock:
            self.outbox.put(whole)
            self._waiting.append(whole)

    def run(self) -> None:
        while not self._stopped.is_set():
            if self._waiting:
                self._deliver_next()
            else:
                self._stopped.wait(0.02)

    def _deliver_next(self) -> None:
        in_doubt, tries = False, 0
        while not self._stopped.is_set() and tries < TRIES:
            try:
                self._deliver(self._waiting[0], in_doubt)
                break
            except Failure:
                in_doubt, tries = True, tries + 1
                self._away_since = self._away_since or time.monotonic()
                while not self._stopped.wait(RETRY_SECONDS) and not self._answers():
                    tries = 0
                self._away_since = 0.0  # it is back, as far as anybody knows
        else:
            self._stopped.set()  # what it does not take waits on disk, with all that follows
            return
        self._away_since = 0.0
        with self._lock:
            self._waiting.popleft()
            if not self._waiting:
                self.outbox.clear()

    def settle(self, seconds: float = float("inf")) -> int:
        """Waits until all is delivered, the server stays away or the time is over; returns how many records still wait."""
        begun = time.monotonic()
        while self._waiting and self.is_alive() and time.monotonic() < begun + seconds:
            away = self._away_since
            if away and time.monotonic() > max(away + PATIENCE_SECONDS, begun + LAST_LOOK_SECONDS):
                break
            time.sleep(0.02)
        return len(self._waiting)

    def stop(self) -> None:
        self._stopped.set()


def deliver_all(outbox: Outbox, uri: str, deliver: Deliver) -> int:
    """Delivers what waits from an earlier process, any of which may have arrived, and returns how many records that were.

    Raises:
      Failure: the server is away; all of it goes on waiting.
      Refusal: it waits for another server.
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
