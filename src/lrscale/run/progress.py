"""Shows the progress of a running study: as a live display in a terminal, as plain lines in a pipe."""

import logging
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

_LOG = logging.getLogger(__name__)
WIDE = 110
"""The smallest width of a terminal, in columns, that has room for a bar and for the label of the cell trained last."""


class Display:
    """Counts cells, trials, trainings per second, diverged runs and crashed trials, and shows the counts as they change."""

    def __init__(self, console: Console, name: str, cells: int, trials: int, trials_done: int) -> None:
        """Prepares a display; it starts when it is entered as a context manager.

        Args:
          console: where the display is shown.
          name: the name of the study.
          cells: number of cells of the study; 0 for a sweep that has none.
          trials: number of trials of the study, over all cells.
          trials_done: number of trials that the store holds already.
        """
        self.console, self.name, self.cells, self.trials = console, name, cells, trials
        self.cells_done = self.rounds = self.trainings = self.diverged = self.failed = 0
        self.trials_done, self.started = trials_done, time.monotonic()
        self.wide = console.width >= WIDE
        columns = [
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            *([BarColumn()] if self.wide else []),
            TextColumn("{task.fields[counts]}", markup=False),
            TimeElapsedColumn(),
        ]
        self.progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.task = self.progress.add_task("", total=trials, completed=trials_done, counts="")

    def __enter__(self) -> "Display":
        stored = f", {self.trials_done} of them in the store already" if self.trials_done else ""
        cells = f"{self.cells} cells, " if self.cells else ""
        self.console.print(line := f"{self.name}: {cells}{self.trials} trials{stored}")
        _LOG.info(line)
        self.progress.start()
        self._show("starting")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.stop()
        if not self.console.is_terminal and self.rounds:
            self._print_counts()

    def round(self, cells_done: int) -> None:
        """Counts the start of a round; `cells_done` cells have all their trials at this moment."""
        self.rounds, self.cells_done = self.rounds + 1, cells_done
        if not self.console.is_terminal and self.rounds > 1:
            self._print_counts()

    def job(self, label: str, trainings: int, diverged: int, new_trials: int, failed: int) -> None:
        """Counts one cell's share of a job, after its trials were recorded.

        Args:
          label: the label of the cell.
          trainings: number of runs that were recorded.
          diverged: number of these runs that diverged.
          new_trials: number of trials that Optuna did not have as complete before.
          failed: number of trials that crashed.
        """
        self.trainings += trainings
        self.diverged += diverged
        self.failed += failed
        self.trials_done += new_trials
        _LOG.info("%s: %d new trials; %s", label, new_trials, self.counts())
        self._show(label)

    def counts(self) -> str:
        """Returns the counts in words, as in `4/10 cells, 96/160 trials, 850 trainings/s, 3 diverged`."""
        rate = self.trainings / max(time.monotonic() - self.started, 1e-9)
        parts = [f"{self.cells_done}/{self.cells} cells"] if self.cells else []
        parts += [f"{self.trials_done}/{self.trials} trials"]
        if self.trainings:
            speed = f"{rate:.0f} trainings/s" if rate >= 1 else f"{60 * rate:.2g} trainings/min"
            parts += [speed, f"{self.diverged} diverged"]
        return ", ".join(parts + ([f"{self.failed} crashed"] if self.failed else []))

    def _show(self, label: str) -> None:
        description = f"round {max(self.rounds, 1)}" + (f" {label}" if self.wide else "")
        self.progress.update(self.task, completed=self.trials_done, description=description, counts=self.counts())

    def _print_counts(self) -> None:
        self.console.print(f"round {self.rounds}: {self.counts()}", highlight=False)
