"""Shows the progress of a running study: as a live display in a terminal, as plain lines in a pipe."""

import logging
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TimeElapsedColumn
from rich.progress_bar import ProgressBar
from rich.table import Column
from rich.text import Text

_LOG = logging.getLogger(__name__)
LINE_SECONDS = 10.0
"""Time between two lines of progress of a single training in a pipe, in seconds."""
FIRST_SECONDS = 1.0
"""After how much training its speed is told, in seconds."""
LASTING_SECONDS = 30.0
"""A training that takes longer than this is told in a pipe as soon as its speed is known, in seconds."""
BAR = 20
"""The longest bar, in columns; on a narrow terminal it takes an eighth of the width."""
BESIDE = 12
"""The columns that a spinner, the time since the start, and the gaps between columns take."""


class Steps:
    """Shows on the standard error how far a single training is: a line that changes on a terminal, a line at times in a pipe."""

    def __init__(self, console: Console, doing: str) -> None:
        self.console, self.started, self.is_told = console, time.monotonic(), False
        self.shown = self.started
        self.live = console.status(doing) if console.is_terminal else None

    def __enter__(self) -> "Steps":
        if self.live:
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.live:
            self.live.stop()

    def __call__(self, step: int, steps: int, loss: float) -> None:
        """Shows that `step` of `steps` steps were taken, with the mean loss over all seeds, and the time left."""
        now = time.monotonic()
        left = time_left(now - self.started, step, steps)
        text = f"step {step}/{steps}, loss {loss:.6g}{left}"
        is_first = not self.is_told and is_long(now - self.started, step, steps)
        if self.live:
            self.live.update(text)
        elif is_first or now - self.shown >= LINE_SECONDS:
            self.shown, self.is_told = now, True
            self.console.print(text)


def is_long(seconds: float, done: float, whole: float) -> bool:
    """Returns whether what took some seconds so far is known to take long: it has a speed, and much is left."""
    return seconds >= FIRST_SECONDS and seconds / done * (whole - done) >= LASTING_SECONDS


def time_left(seconds: float, done: int, whole: int) -> str:
    """Returns the time left in words, from what was done in some seconds; nothing where that cannot be told yet.

    Example:
      >>> time_left(30.0, 1, 4), time_left(1.0, 0, 4)
      (', 1 min 30 s left', '')
    """
    return f", {duration(seconds / done * (whole - done))} left" if 0 < done < whole else ""


def duration(seconds: float) -> str:
    """Returns a time in words, as a user reads it.

    Example:
      >>> duration(7.2), duration(75), duration(7300), duration(180_000)
      ('7 s', '1 min 15 s', '2 h 1 min', '2 days 2 h')
    """
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded} s"
    if rounded < 3600:
        return f"{rounded // 60} min {rounded % 60} s"
    hours = rounded // 3600
    if hours < 48:
        return f"{hours} h {rounded % 3600 // 60} min"
    return f"{hours // 24} days {hours % 24} h" if hours < 24_000 else f"{hours / 8766:.2g} years"


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
        self.trials_done, self.started, self.stored = trials_done, time.monotonic(), trials_done
        self.label, self.left_in_round, self.is_told = "starting", "", False
        columns = [SpinnerColumn(), _Bar(console), _Line(self), TimeElapsedColumn()]
        self.progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.task = self.progress.add_task("", total=trials, completed=trials_done)

    def __enter__(self) -> "Display":
        stored = f", {self.trials_done} of them in the store already" if self.trials_done else ""
        cells = f"{self.cells} cells, " if self.cells else ""
        self.console.print(line := f"{self.name}: {cells}{self.trials} trials{stored}")
        _LOG.info(line)
        self.progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.stop()
        if not self.console.is_terminal and self.rounds:
            self._print_counts()

    def round(self, cells_done: int) -> None:
        """Counts the start of a round; `cells_done` cells have all their trials at this moment."""
        self.rounds, self.cells_done, self.is_told = self.rounds + 1, cells_done, False
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
        self.label, self.left_in_round = f"round {max(self.rounds, 1)} {label}", ""
        _LOG.info("%s: %d new trials; %s", label, new_trials, self.counts())
        self.progress.update(self.task, completed=self.trials_done)

    def training(self, seconds: float, done: float, whole: float) -> None:
        """Shows about how long the present round still takes; in a pipe once a round, where this is long.

        Args:
          seconds: how long the running job trains.
          done: how many steps it has taken.
          whole: how many steps the round has left, and those.
        """
        self.left_in_round = f"about {duration(seconds / done * (whole - done))} left in this round"
        if is_long(seconds, done, whole) and not self.is_told and not self.console.is_terminal:
            self.is_told = True
            self.console.print(f"round {max(self.rounds, 1)}: {self.left_in_round}", highlight=False)
        self.progress.update(self.task, completed=self.trials_done)

    def counts(self) -> str:
        """Returns the counts in words, as in `4/10 cells, 96/160 trials, 850 trainings/s, 3 diverged`."""
        return ", ".join(part for _, part in self._parts())

    def line(self, width: int) -> str:
        """Returns the most important counts that fit into a width, and what was trained last where there is room."""
        parts = [*self._parts(), (len(_IMPORTANT), self.label)]
        kept: set[int] = set()
        for rank, _ in sorted(parts):
            if len(", ".join(part for r, part in parts if r in kept | {rank})) <= width:
                kept.add(rank)
        return ", ".join(part for rank, part in parts if rank in kept)

    def _parts(self) -> list[tuple[int, str]]:
        """Returns each count in words, with its place in `_IMPORTANT`."""
        seconds = time.monotonic() - self.started
        rate = self.trainings / max(seconds, 1e-9)
        words = {
            "cells": f"{self.cells_done}/{self.cells} cells" if self.cells else "",
            "trials": f"{self.trials_done}/{self.trials} trials",
            "speed": (f"{rate:.0f} trainings/s" if rate >= 1 else f"{60 * rate:.2g} trainings/min") if self.trainings else "",
            "diverged": f"{self.diverged} diverged" if self.trainings else "",
            "crashed": f"{self.failed} crashed" if self.failed else "",
            "left": time_left(seconds, self.trials_done - self.stored, self.trials - self.stored).removeprefix(", ")
            or self.left_in_round,
        }
        return [(_IMPORTANT.index(name), text) for name, text in words.items() if text]

    def _print_counts(self) -> None:
        self.console.print(f"round {self.rounds}: {self.counts()}", highlight=False)


_IMPORTANT = ("trials", "left", "crashed", "cells", "diverged", "speed")
"""The counts of a display, the most important first: a narrow terminal shows those that fit."""


class _Bar(BarColumn):
    """A bar whose length goes with the width of the terminal, also after that has changed."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console

    def render(self, task: Task) -> ProgressBar:
        """Draws the bar of a task."""
        self.bar_width = _bar(self.console.width)
        return super().render(task)


class _Line(ProgressColumn):
    """The counts of a display, as many as the width of the terminal holds."""

    def __init__(self, display: Display) -> None:
        super().__init__(Column(no_wrap=True, overflow="ellipsis"))
        self.display = display

    def render(self, task: Task) -> Text:
        """Writes the counts."""
        width = self.display.console.width
        return Text(self.display.line(width - _bar(width) - BESIDE))


def _bar(width: int) -> int:
    """Returns the length of the bar on a terminal of some width."""
    return min(BAR, width // 8)
