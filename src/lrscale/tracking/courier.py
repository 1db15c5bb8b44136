"""Delivers the records of an outbox to their store, in a thread, while the study goes on."""

import os
import threading
import time
from collections.abc import Callable

from lrscale.errors import Failure
from lrscale.system import uninterrupted
from lrscale.tracking.outbox import Deliver, Entry, Outbox, deliver_all

RETRY_SECONDS = 0.5
"""How long the courier waits between two attempts, in seconds."""
PATIENCE_SECONDS = 5.0
"""How long a finished study waits for an unreachable server, in seconds, counted from when the server went away."""
LAST_LOOK_SECONDS = 2.0
"""The shortest time that a finished study waits, in seconds, because the server may already be back."""
LAST_RECORD_SECONDS = 3.0
"""How long a study that stops waits for the record that is being written to a database, in seconds."""
TRIES = 20
"""The largest number of attempts to deliver a record to a server that answers but does not accept it."""
MOST_WAITING = 50
"""The largest number of records that wait for a store that is no server. A study that trains faster waits."""
MOST_KEPT = 250
"""The largest number of lines in the file while few of them wait: the next start would look for each of them."""
QUIET_SECONDS = 5.0
"""How long a study waits in silence for a store that is no server to take a record, in seconds."""
QUIET_STOP_SECONDS = 0.3
"""The same for a study that stops."""


class Courier(threading.Thread):
    """A thread that delivers the records of an outbox while the study runs. It keeps trying while a server is away."""

    def __init__(
        self,
        outbox: Outbox,
        uri: str,
        study: str,
        deliver: Deliver,
        answers: Callable[[], bool] | None = None,
        beside: Deliver | None = None,
        tell: Callable[[str], object] = lambda text: None,
    ) -> None:
        """Delivers the records that an earlier process left in the outbox, and starts the thread.

        Args:
          outbox: the records on disk.
          uri: the URI of the store.
          study: the name of the study.
          deliver: delivers one record to the store.
          answers: returns whether a server answers; None where the store is no server, so that the first failure is the last.
          beside: delivers one record in the calling thread at the same time; None where this does not pay.
          tell: shows a line to the user.

        Raises:
          Failure: the server went away during the delivery, or the store cannot be written.
          Refusal: the records are for another store, or a line is damaged.
        """
        super().__init__(daemon=True, name="courier")
        self.outbox, self.uri, self.study = outbox, uri, study
        self._deliver, self._answers, self._beside, self._tell = deliver, answers, beside, tell
        self._waiting: dict[str, Entry] = {}
        self._taken: set[str] = set()
        self._lines = 0
        self.refused = ""
        """What the server said last where it did not accept a record."""
        self.failure: Failure | None = None
        """Why a store that is no server did not accept a record."""
        self._lock, self._stopped, self._away_since = threading.Lock(), threading.Event(), 0.0
        self._moved, self._has_told = time.monotonic(), False
        deliver_all(outbox, uri, deliver)
        self.start()

    def make_room(self) -> None:
        """Waits, or helps to deliver, while many records wait for a store that is no server.

        Raises:
          Failure: the store did not accept a record.
        """
        while self._answers is None and len(self._waiting) >= MOST_WAITING and self.is_alive():
            self._help()
            self._say_what_is_waited_for(QUIET_SECONDS)
        if self.failure is not None:
            raise self.failure

    def _help(self) -> None:
        """Delivers a waiting record in this thread where the store takes two at a time; else waits for a moment."""
        uid = self._take() if self._beside is not None else None
        if uid is None or self._beside is None:
            time.sleep(0.005)
            return
        with uninterrupted():
            try:
                self._beside(self._waiting[uid], False)
            except Failure as error:
                self._give_up(error)
            else:
                self._done(uid)

    def _say_what_is_waited_for(self, quiet: float) -> None:
        """Says once what the study waits for, where no record was written for some seconds."""
        if self._answers is None and not self._has_told and self._waiting and time.monotonic() > self._moved + quiet:
            self._has_told = True
            self._tell(
                f"waiting  for {self.uri} to take a record: another program holds it, or the process that writes hangs. "
                f"{len(self._waiting)} records are safe on disk; the same command goes on after a stop."
            )

    def _take(self) -> str | None:
        """Returns the uid of the first waiting record that no thread delivers yet; this thread now does."""
        with self._lock:
            uid = next((uid for uid in self._waiting if uid not in self._taken), None)
            if uid is not None:
                self._taken.add(uid)
            return uid

    def _done(self, uid: str) -> None:
        """Takes a delivered record from those that wait, and from the disk when it pays."""
        with self._lock:
            del self._waiting[uid]
            self._taken.discard(uid)
            self._moved, self._has_told = time.monotonic(), False
            if not self._waiting:
                self.outbox.clear()
                self._lines = 0
            elif self._lines >= MOST_KEPT + len(self._waiting):
                self.outbox.keep_only(self._waiting.values())
                self._lines = len(self._waiting)

    def _give_up(self, error: Failure) -> None:
        """Ends the delivery to a store that is no server: what waits stays on disk."""
        self.failure = error
        self._stopped.set()

    def put(self, entry: Entry) -> None:
        """Writes a record to disk; the thread delivers it later.

        Raises:
          Failure: the file cannot be written.
        """
        record = {"uri": self.uri, "study": self.study, "uid": os.urandom(8).hex(), **entry}
        with self._lock:
            self.outbox.put(record)
            self._moved = self._moved if self._waiting else time.monotonic()
            self._waiting[record["uid"]] = record
            self._lines += 1

    def run(self) -> None:
        """Delivers records until `stop` is called, or the store does not accept a record."""
        while not self._stopped.is_set():
            uid = self._take()
            if uid is None:
                self._stopped.wait(0.02)
            elif self._has_delivered(self._waiting[uid]):
                self._done(uid)
            else:
                self._stopped.set()  # a record that the store does not accept stays on disk, with all later ones

    def _has_delivered(self, entry: Entry) -> bool:
        """Delivers a record. Tries again while a server is away; gives up after TRIES refused attempts."""
        in_doubt, tries = False, 0
        while not self._stopped.is_set() and tries < TRIES:
            try:
                self._deliver(entry, in_doubt)
            except Failure as error:
                self.refused = str(error)
                if self._answers is None:
                    self._give_up(error)
                    return False
                in_doubt, tries = True, tries + 1
                self._away_since = self._away_since or time.monotonic()
                while not self._stopped.wait(RETRY_SECONDS) and not self._answers():
                    tries = 0
            else:
                self._away_since = 0.0
                return True
            self._away_since = 0.0  # the server answers again
        return False

    def settle(self, seconds: float = float("inf")) -> int:
        """Waits until all records are delivered, a server has been away too long, or the time is over.

        Args:
          seconds: the longest time to wait.

        Returns:
          The number of records that are not delivered.
        """
        begun = time.monotonic()
        helps = seconds == float("inf")  # else the time could end long before a database that another program has locked
        while self._waiting and self.is_alive() and time.monotonic() < begun + seconds:
            away = self._away_since
            if away and time.monotonic() > max(away + PATIENCE_SECONDS, begun + LAST_LOOK_SECONDS):
                break
            self._help() if helps else time.sleep(0.005)
            self._say_what_is_waited_for(QUIET_SECONDS if helps else QUIET_STOP_SECONDS)
        return len(self._waiting)

    def stop(self) -> None:
        """Ends the thread, where it does not wait for its store for long. Records that are not delivered stay on disk."""
        self._stopped.set()
        self.join(LAST_RECORD_SECONDS if self._answers is None else 1.0)
