"""Where the time of a study goes, phase by phase."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table


class Stopwatch:
    """Adds up wall time by phase. Phases do not nest."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Counts the time of a block towards a phase."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - begun)

    def add(self, name: str, seconds: float) -> None:
        """Counts time that was measured elsewhere."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def show(self, console: Console, trials: int) -> None:
        """Prints the phases, with milliseconds a trial and what no phase has counted."""
        whole = time.perf_counter() - self.started
        table = Table(title="where the time went", title_justify="left", box=None)
        for column in ("phase", "seconds", "share", "ms a trial"):
            table.add_column(column, justify="left" if column == "phase" else "right")
        rows = [*self.seconds.items(), ("other", whole - sum(self.seconds.values())), ("in all", whole)]
        for name, seconds in rows:
            table.add_row(name, f"{seconds:.2f}", f"{seconds / whole:.0%}", f"{1000 * seconds / max(trials, 1):.1f}")
        console.print(table)
