"""Measures where the wall time of a study goes, phase by phase."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table


class Stopwatch:
    """Adds up wall time for each phase. Phases must not be nested."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Adds the wall time of the `with` block to a phase."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)

    def add(self, name: str, seconds: float) -> None:
        """Adds a time to a phase that the caller has measured."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def show(self, console: Console, trials: int) -> None:
        """Prints a table of the phases: seconds, share, and milliseconds per trial.

        The row `other` is the time that belongs to no phase.
        """
        total = time.perf_counter() - self.started
        table = Table(title="where the time went", title_justify="left", box=None)
        for column in ("phase", "seconds", "share", "ms a trial"):
            table.add_column(column, justify="left" if column == "phase" else "right")
        rows = [*self.seconds.items(), ("other", total - sum(self.seconds.values())), ("in all", total)]
        for name, seconds in rows:
            table.add_row(name, f"{seconds:.2f}", f"{seconds / total:.0%}", f"{1000 * seconds / max(trials, 1):.1f}")
        console.print(table)
