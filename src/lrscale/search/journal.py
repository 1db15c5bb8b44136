"""Keeps Optuna's journal file intact: removes a last line that was cut off, and names a line that is damaged or lost.

Each line that this program writes has a sum over the line before it and itself, under a key that Optuna does not read. So a line
that was lost, repeated, moved or edited is found, also where it is valid JSON. Lines of other programs have no sum.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from optuna.storages.journal import JournalFileBackend

from lrscale.errors import Refusal
from lrscale.locks import file_lock

SUM = "lrscale_sum"
"""The key of a line's sum."""


class Journal(JournalFileBackend):
    """A journal that several processes may write. Each of them may be killed in the middle of a line.

    Optuna's own locks are files, and stay for half a minute after their process is killed. This lock is released when
    its process ends.
    """

    def __init__(self, path: str) -> None:
        """Opens a journal; creates it where there is none.

        Raises:
          Refusal: the journal has a line that Optuna did not write.
        """
        self.lock = file_lock(Path(f"{path}.lock"), seconds=-1)  # refuses a disk without locks
        self.lock.release()
        super().__init__(path)
        with self.lock:
            self._remove_cut_off_line()
            check_journal(Path(path))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Appends either all of the logs or none of them."""
        with self.lock:
            self._remove_cut_off_line()
            with open(self._file_path, "r+b") as file:
                before = _last_line(file)
                for log in logs:
                    before = _with_sum(log, before)
                    file.write(before)
                file.flush()
                os.fsync(file.fileno())

    def _remove_cut_off_line(self) -> None:
        """Removes the text after the last complete line. Its writer was killed, or the disk was full."""
        with open(self._file_path, "r+b") as file:
            end = file.seek(0, os.SEEK_END)
            if end == 0:
                return
            file.seek(end - 1)
            if file.read() != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)


def _last_line(file: IO[bytes]) -> bytes:
    """Returns the last line of a file, and leaves the position at its end."""
    end = file.seek(0, os.SEEK_END)
    size = 4096
    while True:
        file.seek(max(end - size, 0))
        tail = file.read()
        if tail.count(b"\n") > 1 or size >= end:
            return b"".join(tail.splitlines(keepends=True)[-1:])
        size *= 8


def _with_sum(log: Mapping[str, Any], before: bytes) -> bytes:
    """Returns the line of a log, with its sum over the line before it and itself."""
    text = json.dumps(log, separators=(",", ":")).encode()
    total = hashlib.sha256(before + text).hexdigest()[:12]
    return text[:-1] + f',"{SUM}":"{total}"}}\n'.encode()


def _is_whole(line: bytes, before: bytes) -> bool:
    """Returns whether a line is a log of Optuna's, and where it has a sum, whether it follows the line before it."""
    try:
        log = json.loads(line)
        known = "op_code" in log
    except (ValueError, TypeError):
        return False
    return known and (SUM not in log or _with_sum({key: value for key, value in log.items() if key != SUM}, before) == line)


def check_journal(path: Path) -> None:
    """Raises Refusal where a journal has a line that Optuna did not write, or that does not follow the line before it.

    The text names the line.
    """
    before = b""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.endswith(b"\n") and not _is_whole(line, before):
                raise Refusal(
                    f"`hydra.sweeper.storage` must hold Optuna's journal as it was written, got {path} with line {number}, or "
                    f"the one before it, damaged or lost: {line[:40]!r}. "
                    "Put back an intact copy, or move the file away: trials that MLflow holds are not run again."
                )
            before = line
