"""Delivers the entries of a store: at once, or from the disk while a study goes on training."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from lrscale.errors import Failure
from lrscale.tracking.client import answers, deliver
from lrscale.tracking.connections import close_databases
from lrscale.tracking.courier import Courier
from lrscale.tracking.outbox import Outbox, recorded_uri
from lrscale.tracking.reader import Reader
from lrscale.tracking.writer import Lost, Writer

LAST_SECONDS = 1.0
"""How long a study that was stopped goes on delivering records, in seconds."""


class Undelivered(Failure):
    """Raised when a study or a training is complete, but some of its records still wait on disk for the server."""


class DeliveringStore(Reader):
    """An MLflow store to which entries are delivered.

    `keep` writes an entry: either at once, or to disk first (see `keep_on_disk`). `check` raises Failure where another process
    has taken the study over; it is called before each record that was kept on disk is delivered.
    """

    def __init__(self, uri: str, to_read: bool = False) -> None:
        """Opens a store; creates a database where there is none.

        `to_read` also opens a database that cannot be written.

        Raises:
          Refusal: the store cannot be opened.
          Failure: the disk is full.
        """
        super().__init__(uri, to_read)
        self.keep: Callable[[Mapping[str, Any]], object] = partial(deliver, self.client)
        self.courier: Courier | None = None
        self.writer: Writer | None = None
        self.check: Callable[[], object] = lambda: None

    @property
    def is_server(self) -> bool:
        """Whether the store is an MLflow server, which may be away for a time."""
        return self.uri.startswith("http")

    def keep_on_disk(
        self, outbox: Path, study: str, writer: Writer | None = None, tell: Callable[[str], object] = lambda text: None
    ) -> None:
        """From now on writes a study's records to disk first, and delivers them from there while the study goes on.

        Args:
          outbox: the file in which records wait.
          study: the name of the study.
          writer: a process that writes them into the store; None for a thread of this process.
          tell: shows a line to the user.

        Raises:
          Failure: the store could not be written during the delivery of older records.
          Refusal: the file holds records for another store, or a damaged line.
        """
        waiting = Outbox(outbox)
        is_there = partial(answers, self.uri) if self.is_server else None
        beside = None if writer is None else self._deliver_here
        self.courier = Courier(waiting, recorded_uri(self.uri, outbox), study, self._deliver, is_there, beside, tell)
        self.keep = self.courier.put
        if writer is not None:
            waiting.lock.parent.mkdir(exist_ok=True)
            writer.open(self.address, waiting.lock)
            self.writer = writer

    def _deliver(self, entry: Mapping[str, Any], in_doubt: bool) -> None:
        if self.writer is None:
            self._deliver_here(entry, in_doubt)
            return
        self.check()
        try:
            self.writer.deliver(entry, in_doubt)
        except Lost:  # it was killed: this process does its work from now on
            self.writer = None
            self._deliver_here(entry, in_doubt=True)

    def _deliver_here(self, entry: Mapping[str, Any], in_doubt: bool) -> None:
        self.check()
        deliver(self.client, entry, in_doubt)

    def make_room(self) -> None:
        """Waits while too many records wait on disk for a database.

        Raises:
          Failure: the database did not accept a record.
        """
        if self.courier is not None:
            self.courier.make_room()

    def settle(self) -> None:
        """Waits until all records are delivered.

        Raises:
          Undelivered: the server is away; the text says how to go on.
          Failure: the database did not accept a record.
        """
        if self.courier is not None and (waiting := self.courier.settle()):
            if self.courier.failure is not None:
                raise self.courier.failure
            raise Undelivered(
                f"the study is complete, but {waiting} of its records wait in {self.courier.outbox.path}, "
                f"because {self.uri} did not accept them. Once it does, the same command delivers them and writes the report; "
                f"lrscale sync delivers them without a report. {self.courier.refused}"
            )

    def close(self) -> int:
        """Stops the delivery, after LAST_SECONDS at most, and closes the database: it is then one file.

        Returns:
          The number of records that wait on disk.
        """
        waiting = 0
        if self.courier is not None:
            waiting = self.courier.settle(LAST_SECONDS)
            self.courier.stop()
        if self.file is not None:
            close_databases()
        return waiting
