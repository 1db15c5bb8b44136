"""Runs jobs in slots: one call of the launcher for each job, from a thread, so that no job waits for another to end."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Generic, NamedTuple, Protocol, Self, TypeVar

from lrscale.errors import Failure, Refusal
from lrscale.run.setup import Workers

Item = TypeVar("Item")
"""What a launcher is given: a job is a list of items."""
Reply = TypeVar("Reply")
"""What a launcher returns for each item."""
_Given = TypeVar("_Given", contravariant=True)


class LauncherBroke(Exception):
    """Hydra's launcher raised an error, and not a job: as where a worker process was killed. The text is the traceback."""


class Ended(NamedTuple, Generic[Reply]):
    """A job that has ended.

    `number` is the one that `start` returned. `outcomes` has one answer for each item, or the traceback where the whole job
    crashed. `lost` says in one line why the launcher itself failed, as it does when a worker is killed; else it is empty.
    `started` is the time when it was launched, and `seconds` is how long it took.
    """

    number: int
    outcomes: Sequence[Reply] | str
    lost: str
    started: float
    seconds: float


class SlotsLike(Protocol[_Given, Reply]):
    """What runs jobs in slots. `running` has the numbers of the jobs that have not ended; see `Slots`."""

    count: int
    workers: Workers
    running: set[int]
    busy_seconds: float

    @property
    def free(self) -> int: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...
    def start(self, jobs: Sequence[Sequence[_Given]]) -> list[int]: ...
    def ended(self, wait: bool) -> list[Ended[Reply]]: ...


class Slots(Generic[Item, Reply]):
    """Slots for jobs. Leaving the context cancels the jobs that have not ended."""

    def __init__(
        self, launch: Callable[[Sequence[Sequence[Item]]], Sequence[Sequence[Reply] | str]], count: int, workers: Workers
    ) -> None:
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
        self._ended: queue.SimpleQueue[Ended[Reply] | BaseException] = queue.SimpleQueue()

    @property
    def free(self) -> int:
        """The number of slots without a job."""
        return self.count - len(self.running)

    def __enter__(self) -> Self:
        self.workers.begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.running:
            self.workers.cancel()

    def start(self, jobs: Sequence[Sequence[Item]]) -> list[int]:
        """Launches jobs, and returns their numbers. Without workers apart it returns when all have ended."""
        numbers = list(range(self._next, self._next + len(jobs)))
        self._next += len(jobs)
        self.running |= set(numbers)
        if self.workers.apart:
            for number, job in zip(numbers, jobs, strict=True):
                threading.Thread(target=self._run, args=(number, job), daemon=True, name=f"slot {number}").start()
        elif jobs:
            started, start = time.time(), time.perf_counter()
            returned: Sequence[Sequence[Reply] | str] = [[]] * len(jobs)
            lost = ""
            try:
                returned = self.launch(jobs)
            except LauncherBroke as error:
                lost = str(error)
            seconds = (time.perf_counter() - start) / len(jobs)
            for number, outcomes in zip(numbers, returned, strict=True):
                self._ended.put(Ended(number, outcomes, lost, started, seconds))
        return numbers

    def _run(self, number: int, job: Sequence[Item]) -> None:
        """Runs one job in the thread of its slot."""
        started, start = time.time(), time.perf_counter()
        outcomes: Sequence[Reply] | str = []
        lost = ""
        try:
            outcomes = self.launch([job])[0]
        except (Refusal, Failure) as error:  # of the whole study, as where another process has taken it over
            self._ended.put(error)
            return
        except LauncherBroke as error:
            lost = str(error)
        except Exception as error:
            lost = f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]
        except BaseException as error:  # as SystemExit; the main thread raises it
            self._ended.put(error)
            return
        self._ended.put(Ended(number, outcomes, lost, started, time.perf_counter() - start))

    def ended(self, wait: bool) -> list[Ended[Reply]]:
        """Returns the jobs that have ended since the last call.

        Args:
          wait: whether to wait for the first, where none has ended.
        """
        found: list[Ended[Reply]] = []
        while self.running and (not self._ended.empty() or (wait and not found)):
            one = self._ended.get()
            if isinstance(one, BaseException):
                raise one
            found.append(one)
            self.running.discard(one.number)
            self.busy_seconds += one.seconds
        return found
