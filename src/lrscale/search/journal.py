"""Optuna's journal file, kept whole: a write that was cut off is taken back, and a damaged line is named."""

import json
import os
from pathlib import Path
from typing import Any

from filelock import FileLock
from optuna.storages.journal import JournalFileBackend

from lrscale.errors import Refusal


class Journal(JournalFileBackend):
    """A journal that several processes may write, any of which may be killed in the middle of a line.

    Optuna's own locks are files, which outlive a killed process by half a minute; these end with their process.
    """

    def __init__(self, path: str) -> None:
        """Opens a journal, creating one that is not there yet.

        Raises:
          Refusal: a line is not what Optuna writes.
        """
        self.lock = FileLock(f"{path}.lock")
        super().__init__(path)
        with self.lock:
            self._take_back()
            check_journal(Path(path))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Appends all of the logs or none."""
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with self.lock:
            self._take_back()
            with open(self._file_path, "ab") as file:
                file.write(lines.encode())
                file.flush()
                os.fsync(file.fileno())

    def _take_back(self) -> None:
        """Cuts off what follows the last whole line: its writer was killed, or the disk was full."""
        with open(self._file_path, "r+b") as file:
            end = file.seek(0, os.SEEK_END)
            if end == 0:
                return
            file.seek(end - 1)
            if file.read() != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)


def check_journal(path: Path) -> None:
    """Raises Refusal, naming the line, where a journal holds what Optuna did not write."""
    with path.open("rb") as file:
        for place, line in enumerate(file, start=1):
            try:
                known = "op_code" in json.loads(line)
            except (ValueError, TypeError):
                known = False
            if not known and line.endswith(b"\n"):
                raise Refusal(
                    f"`hydra.sweeper.storage` must hold Optuna's journal, got {path} with line {place}: {line[:40]!r}. "
                    "Put back a copy that is whole, or move the file away: what MLflow holds is not run again."
                )
