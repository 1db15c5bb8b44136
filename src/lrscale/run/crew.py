"""Gives slots their work, and launches again, by itself, what was lost with its worker or took too long."""

from collections import Counter
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from lrscale.run.slots import Ended, Item, Reply, SlotsLike

Unit = TypeVar("Unit")
"""A unit of work, such as the round of a cell, or a training of a script. A job has one or several."""


class Crew(Generic[Unit, Item, Reply]):
    """The slots of a study, with the work that is in them. `jobs` has the units of each running job, by its number."""

    def __init__(self, slots: SlotsLike[Item, Reply], item: Callable[[Unit], Item], n_retries: int) -> None:
        """Prepares the slots.

        Args:
          slots: the slots.
          item: makes of a unit what the launcher is given. It is called when the unit is launched.
          n_retries: how often a unit is launched again.
        """
        self.slots, self.item, self.n_retries = slots, item, n_retries
        self.jobs: dict[int, list[Unit]] = {}
        self.alone: list[Unit] = []
        self._by_itself: set[int] = set()
        self._losses: Counter[Hashable] = Counter()
        self._takes_others = slots.workers.shared or not slots.workers.apart

    def fill(self, waiting: list[Unit], next_job: Callable[[int], list[Unit]]) -> None:
        """Launches jobs while there are free slots and work. Units that were lost come first, each in a job by itself.

        Args:
          waiting: the other units that wait.
          next_job: removes the units of the next job from those that wait, and returns them. It is given the number of free
            slots.
        """
        if self.jobs and not self.slots.workers.apart:
            return  # all of a batch are recorded before the next
        if self._takes_others and (self.alone or self._by_itself & self.slots.running):
            if not self.slots.running:  # a unit that may kill its worker takes no other with it
                self._by_itself |= set(self._start([[self.alone.pop(0)]]))
            return
        jobs: list[list[Unit]] = []
        while (self.alone or waiting) and len(jobs) < self.slots.free:
            jobs.append([self.alone.pop(0)] if self.alone else next_job(self.slots.free - len(jobs)))
        self._start(jobs)

    def _start(self, jobs: list[list[Unit]]) -> list[int]:
        """Launches jobs; returns their numbers."""
        numbers = self.slots.start([[self.item(unit) for unit in job] for job in jobs])
        self.jobs |= dict(zip(numbers, jobs, strict=True))
        return numbers

    def again(self, ended: Ended[Reply], unit: Unit, key: Hashable, is_late: bool) -> int:
        """Puts a unit back that was lost or took too long, unless this happened too often.

        Args:
          ended: the job of the unit, which is still among `jobs`.
          unit: the unit.
          key: says which unit it is.
          is_late: whether it took too long; else it was lost, and others of its job or of its pool may be the reason.

        Returns:
          0 where it is put back; else how often it was lost.
        """
        is_alone = len(self.jobs[ended.number]) == 1 and (not self._takes_others or ended.number in self._by_itself)
        self._losses[key] += is_alone or is_late
        if self._losses[key] > self.n_retries:
            return self._losses[key]
        self.alone.append(unit)
        return 0
