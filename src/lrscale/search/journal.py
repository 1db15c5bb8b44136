"""Keeps Optuna's journal file intact: removes a last line that was cut off, and names a line that is damaged."""

import json
import os
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend

from lrscale.errors import Refusal
from lrscale.locks import file_lock


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
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with self.lock:
            self._remove_cut_off_line()
            with open(self._file_path, "ab") as file:
                file.write(lines.encode())
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


def check_journal(path: Path) -> None:
    """Raises Refusal where a journal has a line that Optuna did not write, and names the line."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                known = "op_code" in json.loads(line)
            except (ValueError, TypeError):
                known = False
            if not known and line.endswith(b"\n"):
                raise Refusal(
                    f"`hydra.sweeper.storage` must hold Optuna's journal, got {path} with line {number}: {line[:40]!r}. "
                    "Put back an intact copy, or move the file away: trials that MLflow holds are not run again."
                )
