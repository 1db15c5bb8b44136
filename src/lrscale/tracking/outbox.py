"""Keeps records on disk until a store has them. Each is written to disk first, and delivered once and in order.

The study continues during the delivery.
"""

import itertools
import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lrscale.errors import Failure, Refusal, masked_url
from lrscale.files import reason, safe_name
from lrscale.tracking.places import sqlite_file

Entry = Mapping[str, Any]
Deliver = Callable[[Entry, bool], object]
"""Delivers an entry. Its second argument says whether the entry may have been delivered already."""
LINGER_SECONDS = 10.0
"""How long a start waits for the process that wrote an earlier execution's records to end, in seconds."""


class Outbox:
    """A file with one JSON document per line. Each is a record that the store may lack."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def _new(self) -> Path:
        return self.path.with_name(f"{self.path.name}.new")

    @property
    def lock(self) -> Path:
        """The file that a process keeps locked while it writes records of this file into the store."""
        return self.path.resolve().parent / "studies" / f"{self.path.name}.lock"

    def put(self, entry: Entry) -> None:
        """Appends a record to the file, and returns when the disk has it.

        Raises:
          Failure: the file cannot be written; it is left as it was.
        """
        try:
            with self.path.open("ab", buffering=0) as file:
                size = file.tell()
                try:
                    _write_lines(file.fileno(), [entry])
                except OSError:
                    file.truncate(size)
                    raise
        except OSError as error:
            raise Failure(f"{self.path} could not be written: {reason(error)}. The same command goes on later.") from error

    def keep_only(self, entries: Iterable[Entry]) -> None:
        """Replaces the records in the file. Where there is no room for the new file, the old one stays."""
        with suppress(OSError):
            try:
                with self._new.open("wb", buffering=0) as file:
                    _write_lines(file.fileno(), entries)
                self._new.replace(self.path)
            finally:
                self._new.unlink(missing_ok=True)

    def wait_for_writer(self) -> None:
        """Waits until no process of an earlier execution writes records of this file.

        Raises:
          Failure: one does not end.
        """
        if self.lock.exists():
            try:
                with FileLock(self.lock, timeout=LINGER_SECONDS):
                    pass
            except Timeout:
                raise Failure(
                    f"{self.lock} is locked: a process of an earlier execution still writes. Once it has ended, the same "
                    "command goes on."
                ) from None

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
            f"{self.path} must hold records that wait for a store, got line {number}: {line[:40]!r}. Repair or remove it."
        )

    def set_aside(self) -> Path:
        """Renames the file, so that no command delivers its records. Returns the new path."""
        path = next(p for n in itertools.count(1) if not (p := self.path.with_name(f"{self.path.name}.aside-{n}")).exists())
        return self.path.rename(path)

    def clear(self) -> None:
        """Removes the file."""
        for path in (self.path, self._new):
            path.unlink(missing_ok=True)


def _write_lines(file: int, entries: Iterable[Entry]) -> None:
    """Writes records to an open file, and returns when the disk has them."""
    rest = b"".join(json.dumps(entry, allow_nan=False).encode() + b"\n" for entry in entries)
    while rest:
        rest = rest[os.write(file, rest) :]
    os.fsync(file)


def outbox_path(journal: Path | None, study: str) -> Path:
    """Returns the path of a study's outbox: next to Optuna's journal, or in the working folder where there is no journal."""
    neighbour = journal or Path("optuna.journal")
    return neighbour.with_name(f"{neighbour.name}.{safe_name(study)}.outbox")


def recorded_uri(uri: str, outbox: Path) -> str:
    """Returns the URI that stands in records: without a password, and relative to the outbox where the store is a file."""
    file = sqlite_file(uri)
    return masked_url(uri) if file is None else f"sqlite:///{os.path.relpath(file, outbox.resolve().parent)}"


def deliver_all(outbox: Outbox, uri: str, deliver: Deliver) -> int:
    """Delivers the records that an earlier process left in an outbox. Any of them may have arrived already.

    Args:
      outbox: the records on disk.
      uri: the URI of the store.
      deliver: delivers one record to the store.

    Returns:
      The number of records that were in the outbox.

    Raises:
      Failure: the store cannot be written; all records stay in the outbox.
      Refusal: the records are for another store, or a line is damaged.
    """
    outbox.wait_for_writer()
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
