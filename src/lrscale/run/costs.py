"""Expects how long cells train, from what was measured, so that the longest begin first and short ones share a job."""

import math
from collections.abc import Sequence

from lrscale.study.plan import Cell

JOB_SECONDS = 1.0
"""Cells share a job up to about this time, in seconds. A kill loses about this much training in each running job."""
OF_START_UP = 2.0
"""Cells share a job up to this multiple of the time that a job takes to start, where that is more than JOB_SECONDS."""
RECENT = 0.5
"""The weight of the last job in the mean time that a job takes to start. A worker imports torch once."""


class Costs:
    """The measured times of the cells of a study, and of the start of a job."""

    def __init__(self) -> None:
        """Starts without measurements."""
        self.start_up: float | None = None
        self.measured: dict[str, float] = {}
        self.known_steps: dict[str, float] = {}
        self.all_seconds = self.all_steps = 0.0

    def steps(self, cell: Cell) -> float:
        """Returns the number of micro-batches of a run of a cell: cells that were not measured are compared by it.

        It is 1 for a probe and for a script, whose steps are not known.
        """
        if cell.id not in self.known_steps:
            training = cell.training
            is_known = training.probe is None and not training.is_script
            self.known_steps[cell.id] = float(training.steps * training.accumulation) if is_known else 1.0
        return self.known_steps[cell.id]

    def expected(self, cell: Cell) -> float:
        """Returns the expected time of a cell's next round, in seconds; inf before the first measurement of any cell."""
        if cell.id in self.measured:
            return self.measured[cell.id]
        return self.steps(cell) * self.all_seconds / self.all_steps if self.all_steps else math.inf

    def order(self, cell: Cell) -> float:
        """Returns a number that is larger for a cell that is expected to train longer."""
        return self.expected(cell) if self.all_steps else self.steps(cell)

    def learn(self, cell: Cell, seconds: float) -> None:
        """Keeps the time that a round of a cell has taken."""
        self.measured[cell.id] = max(seconds, 1e-6)
        self.all_seconds += seconds
        self.all_steps += self.steps(cell)

    def learn_start_up(self, seconds: float) -> None:
        """Keeps the time that a job took beside its training: waiting in the launcher's queue, starting, composing."""
        self.start_up = seconds if self.start_up is None else RECENT * seconds + (1 - RECENT) * self.start_up

    def share(self, cells: Sequence[Cell], free: int) -> int:
        """Returns how many of some waiting cells, from the first, the next job takes; at least 1.

        Together they take at most about JOB_SECONDS, or OF_START_UP times the start of a job where that is longer. They take
        no more than an equal share of the time of all, so that each free slot gets work.

        Args:
          cells: the waiting cells that can share the job; at least one.
          free: the number of free slots; >= 1.

        Example:
          >>> Costs().share([None] * 3, 2)  # nothing is measured yet
          1
        """
        if not self.all_steps:
            return 1
        times = [self.expected(cell) for cell in cells]
        limit = min(max(JOB_SECONDS, OF_START_UP * (self.start_up or 0.0)), sum(times) / free)
        taken, count = times[0], 1
        while count < len(times) and taken + times[count] <= limit * (1 + 1e-9):
            taken, count = taken + times[count], count + 1
        return count
