"""What a study shows while it runs: a live display in a terminal, plain lines in a pipe."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

WIDE = 110
"""Columns from which on there is room for a bar and for the cell that was trained last."""


class Display:
    """Counts cells, trials, trainings a second and divergence, and shows them as they change."""

    def __init__(self, console: Console, name: str, cells: int, trials: int, held: int) -> None:
        self.console, self.name, self.cells, self.trials = console, name, cells, trials
        self.cells_done = self.rounds = self.trainings = self.diverged = self.failed = 0
        self.held, self.started, self.said = held, time.monotonic(), 0.0
        self.wide = console.width >= WIDE
        columns = [
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            *([BarColumn()] if self.wide else []),
            TextColumn("{task.fields[counts]}", markup=False),
            TimeElapsedColumn(),
        ]
        self.progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.task = self.progress.add_task("", total=trials, completed=held, counts="")

    def __enter__(self) -> "Display":
        known = f", {self.held} of them in the store already" if self.held else ""
        self.console.print(f"{self.name}: {self.cells} cells, {self.trials} trials{known}")
        self.progress.start()
        self._show("starting")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.stop()
        if not self.console.is_terminal and self.rounds:
            self._say()

    def round(self, cells_done: int) -> None:
        """A round begins; so many cells have all their trials."""
        self.rounds, self.cells_done = self.rounds + 1, cells_done
        if not self.console.is_terminal and self.rounds > 1:
            self._say()

    def job(self, label: str, trainings: int, diverged: int, told: int, failed: int) -> None:
        """A job has come back and its trials are recorded."""
        self.trainings += trainings
        self.diverged += diverged
        self.failed += failed
        self.held += told
        self._show(label)

    def counts(self) -> str:
        """The counters in words, as in `4/10 cells, 96/160 trials, 850 trainings/s, 3 diverged`."""
        rate = self.trainings / max(time.monotonic() - self.started, 1e-9)
        parts = [f"{self.cells_done}/{self.cells} cells", f"{self.held}/{self.trials} trials"]
        if self.trainings:
            parts += [f"{rate:.0f} trainings/s", f"{self.diverged} diverged"]
        return ", ".join(parts + ([f"{self.failed} crashed"] if self.failed else []))

    def _show(self, label: str) -> None:
        description = f"round {max(self.rounds, 1)}" + (f" {label}" if self.wide else "")
        self.progress.update(self.task, completed=self.held, description=description, counts=self.counts())

    def _say(self) -> None:
        self.console.print(f"round {self.rounds}: {self.counts()}", highlight=False)
