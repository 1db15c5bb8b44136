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
        self.slots: dict[str, float] = {}

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

    def use_slots(self, count: int, seconds: float, busy: float, training: float) -> None:
        """Keeps where the time of the slots went, in seconds summed over all slots.

        Args:
          count: the number of slots.
          seconds: the wall time in which they could be used.
          busy: the time in which they had a job.
          training: the part of it in which the jobs trained; the rest is the start-up of jobs.
        """
        idle = max(count * seconds - busy, 0.0)
        self.slots = {"training": training, "start-up of jobs": max(busy - training, 0.0), "without a job": idle}

    def show(self, console: Console, trials: int) -> None:
        """Prints a table of the phases: seconds, share, and milliseconds per trial; and one of the slots, where there are some.

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
        if self.slots:
            total = sum(self.slots.values())
            parts = [f"{name} {seconds:.2f} s ({seconds / max(total, 1e-9):.0%})" for name, seconds in self.slots.items()]
            console.print(f"slots    {', '.join(parts)}", soft_wrap=True)
