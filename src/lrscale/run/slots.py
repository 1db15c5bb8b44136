"""Runs jobs in slots: one call of the launcher for each job, from a thread, so that no job waits for another to end."""

import queue
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple

from lrscale.run.job import Launch, Outcome
from lrscale.run.setup import Workers
from lrscale.study.plan import Share


class Ended(NamedTuple):
    """A job that has ended.

    `number` is the one that `start` returned. `outcomes` has one outcome for each share, or the traceback where the whole job
    crashed. `lost` says in one line why the launcher itself failed, as it does when a worker is killed; else it is empty.
    `started` is the time when it was launched, and `seconds` is how long it took.
    """

    number: int
    outcomes: list[Outcome] | str
    lost: str
    started: float
    seconds: float


class Slots:
    """Slots for jobs. Leaving the context cancels the jobs that have not ended."""

    def __init__(self, launch: Launch, count: int, workers: Workers) -> None:
        """Prepares the slots.

        Args:
          launch: the function that runs jobs. It is called from several threads where the workers are apart.
          count: the number of slots.
          workers: what the launcher's workers can do.
        """
        self.launch, self.count, self.workers = launch, count, workers
        self.running: set[int] = set()
        self.busy_seconds = 0.0
        self._next = 0
        self._ended: queue.SimpleQueue[Ended | BaseException] = queue.SimpleQueue()

    @property
    def free(self) -> int:
        """The number of slots without a job."""
        return self.count - len(self.running)

    def __enter__(self) -> "Slots":
        self.workers.begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.running:
            self.workers.cancel()

    def start(self, jobs: Sequence[Sequence[Share]]) -> list[int]:
        """Launches jobs, and returns their numbers. Without workers apart it returns when all have ended."""
        numbers = list(range(self._next, self._next + len(jobs)))
        self._next += len(jobs)
        self.running |= set(numbers)
        if self.workers.apart:
            for number, job in zip(numbers, jobs, strict=True):
                threading.Thread(target=self._run, args=(number, job), daemon=True, name=f"slot {number}").start()
        elif jobs:
            started, start = time.time(), time.perf_counter()
            returned = self.launch(jobs)
            seconds = (time.perf_counter() - start) / len(jobs)
            for number, outcomes in zip(numbers, returned, strict=True):
                self._ended.put(Ended(number, outcomes, "", started, seconds))
        return numbers

    def _run(self, number: int, job: Sequence[Share]) -> None:
        """Runs one job in the thread of its slot."""
        started, start = time.time(), time.perf_counter()
        outcomes: list[Outcome] | str = []
        lost = ""
        try:
            outcomes = self.launch([job])[0]
        except Exception as error:
            lost = f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]
        except BaseException as error:  # as SystemExit; the main thread raises it
            self._ended.put(error)
            return
        self._ended.put(Ended(number, outcomes, lost, started, time.perf_counter() - start))

    def ended(self, wait: bool) -> list[Ended]:
        """Returns the jobs that have ended since the last call.

        Args:
          wait: whether to wait for the first, where none has ended.
        """
        found: list[Ended] = []
        while self.running and (not self._ended.empty() or (wait and not found)):
            one = self._ended.get()
            if isinstance(one, BaseException):
                raise one
            found.append(one)
            self.running.discard(one.number)
            self.busy_seconds += one.seconds
        return found
