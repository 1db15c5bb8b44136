"""Plays the head of a study against simulated workers: the real order of cells and sharing of jobs, on a simulated clock.

`Rounds` and `Costs` are those that run studies. The slots, the recording and the cells are simulated: they only let time pass.
"""

import heapq
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, cast
from unittest import mock

from rich.console import Console

from lrscale.run.job import Outcome
from lrscale.run.progress import Display
from lrscale.run.rounds import Rounds
from lrscale.run.setup import Setup, Workers
from lrscale.run.slots import Ended
from lrscale.run.stopwatch import Stopwatch
from lrscale.search.ladder import first_rungs, lr_at, next_rungs, place_of
from lrscale.search.tuner import Ask
from lrscale.study.plan import Cell, Share

INTERVAL = (1e-3, 1.0)
"""The lrs of the simulated studies."""


class Latency(NamedTuple):
    """What a launcher adds to a job, in seconds.

    `head` is how long the head is busy to launch a job, `job` how long the job takes to start and to be noticed as ended,
    and `first` how long the first job of a slot takes more, as its process imports torch.
    """

    head: float = 0.0
    job: float = 0.0
    first: float = 0.0


class Store(NamedTuple):
    """What a trial costs, in seconds: in the head, and in the thread that delivers records to a server."""

    trial: float = 0.0
    delivery: float = 0.0


NO_LATENCY, FREE = Latency(), Store()


@dataclass(frozen=True)
class Case:
    """A study and the machine that runs it. `seconds` says how long a round of each cell trains, and `steps` its steps."""

    seconds: Sequence[float]
    slots: int
    trials: int = 12
    latency: Latency = NO_LATENCY
    store: Store = FREE
    steps: Sequence[float] = ()
    ask: float = 0.0


@dataclass(frozen=True)
class Played:
    """What came out: the seconds in all, those in which slots train, and those in which the head records."""

    seconds: float
    training: float
    busy: float
    recording: float
    jobs: int
    recorded: int
    slots: int

    @property
    def used(self) -> float:
        """The share of the slots' time in which they train."""
        return self.training / (self.slots * self.seconds)


class Clock:
    """A clock that stands still until it is told to go on. It stands for the module `time`."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    monotonic = time


class SimulatedSlots:
    """Stands for `lrscale.run.slots.Slots`."""

    def __init__(self, case: Case, clock: Clock) -> None:
        self.case, self.clock, self.count, self.workers = case, clock, case.slots, Workers(apart=True)
        self.running: set[int] = set()
        self.busy_seconds = self.training = 0.0
        self.number = 0
        self._ends: list[tuple[float, int, Ended]] = []

    @property
    def free(self) -> int:
        return self.count - len(self.running)

    def __enter__(self) -> "SimulatedSlots":
        return self

    def __exit__(self, *_: object) -> None:
        assert not self.running

    def start(self, jobs: Sequence[Sequence[Share]]) -> list[int]:
        numbers = []
        for job in jobs:
            self.clock.now += self.case.latency.head
            times = [float(share.cell.config["seconds"]) for share in job]
            seconds = sum(times) + self.case.latency.job + (self.case.latency.first if self.number < self.count else 0.0)
            ended = Ended(self.number, [Outcome([], None, t) for t in times], "", self.clock.now, seconds)
            heapq.heappush(self._ends, (self.clock.now + seconds, self.number, ended))
            self.training += sum(times)
            self.running.add(self.number)
            numbers.append(self.number)
            self.number += 1
        return numbers

    def ended(self, wait: bool) -> list[Ended]:
        found: list[Ended] = []
        if wait and self._ends:
            self.clock.now = max(self.clock.now, self._ends[0][0])
        while self._ends and self._ends[0][0] <= self.clock.now:
            found.append(heapq.heappop(self._ends)[2])
            self.running.discard(found[-1].number)
            self.busy_seconds += found[-1].seconds
        return found


class Chain:
    """Stands for a TwinTuner and the Tuner of its only cell: rounds of trials, one after the other."""

    def __init__(self, cell: Cell, sizes: Sequence[int], clock: Clock, ask: float) -> None:
        self.cell, self.sizes, self.clock, self.ask = cell, sizes, clock, ask
        self.tuners = self.trained = [self]
        self.reference = self
        self.open: list[Ask] = []
        self.done = self.asked_rounds = 0

    def recording(self, tuner: "Chain") -> list["Chain"]:
        return [tuner]

    def next_round(self) -> list[tuple["Chain", list[Ask]]]:
        assert not self.open, "asked before its last round was recorded"
        if self.asked_rounds == len(self.sizes):
            return []
        size = self.sizes[self.asked_rounds]
        self.clock.now += self.ask * size
        self.open = [Ask(self.done + index, {"optimizer.lr": float(self.done + index)}) for index in range(size)]
        self.asked_rounds += 1
        return [(self, self.open)]

    def point(self, params: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
        return tuple(params.items())

    def rounds(self) -> list[list[Ask]]:
        return [self.open] if self.open else []

    def every(self) -> dict[int, dict[str, float]]:
        return {ask.number: ask.params for ask in self.open}

    def held(self) -> int:
        return self.done


class SimulatedRecorder:
    """Stands for `lrscale.run.recording.Recorder`: a trial takes its time in the head, and later in the thread of a server."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store, self.clock = store, clock
        self.remarks: list[str] = []
        self.seconds = self.delivered = 0.0
        self.recorded: dict[tuple[str, int], object] = {}

    def unrecorded(self, tuner: Chain) -> list[Ask]:
        return []

    def tell_recorded(self, tuner: Chain) -> list[Ask]:
        return tuner.open

    def record(self, work: Any, tuner: Chain, outcome: Outcome, started: float, display: Display) -> Iterator[None]:
        for ask in work.asks:
            assert (tuner.cell.id, ask.number) not in self.recorded, "a trial is recorded twice"
            self.recorded[tuner.cell.id, ask.number] = outcome
            self.clock.now += self.store.trial
            self.seconds += self.store.trial
            self.delivered = max(self.delivered, self.clock.now) + self.store.delivery
            tuner.done += 1
            yield
        tuner.open = []


@cache
def ladders(trials: int) -> list[tuple[int, ...]]:
    """The sizes of the rounds of the real ladder, for cells whose best lrs lie at different places of the interval."""
    found = []
    for best in range(place_of(INTERVAL[0]) + 8, place_of(INTERVAL[1]) - 8, 5):
        tried: dict[int, list[float]] = {}
        sizes = []
        rungs = first_rungs(*INTERVAL, trials)
        while rungs:
            sizes.append(len(rungs))
            tried |= {k: [1.0 + 0.1 * (k - best) ** 2 + 0.01 * seed for seed in range(2)] for k in rungs}
            left = trials - len(tried)
            rungs = next_rungs([tried], left, *INTERVAL)[:left] if left else []
        assert lr_at(best) <= INTERVAL[1] and sum(sizes) == trials
        found.append(tuple(sizes))
    return found


def play(case: Case) -> Played:
    """Plays a study to its end."""
    clock = Clock()
    sizes = ladders(case.trials)
    cells = [
        Cell(str(index), str(index), {}, {"seconds": seconds, "batch_size": 1}) for index, seconds in enumerate(case.seconds)
    ]
    chains = [Chain(cell, sizes[index % len(sizes)], clock, case.ask) for index, cell in enumerate(cells)]
    slots, recorder = SimulatedSlots(case, clock), SimulatedRecorder(case.store, clock)
    with mock.patch.multiple("lrscale.run.rounds", Recorder=lambda *_: recorder, time=clock, uninterrupted=nullcontext):
        study = mock.Mock(plan=mock.Mock(is_script=False, n_trials=case.trials))
        setup = Setup("", "", n_jobs=case.slots, workers=slots.workers)
        loop = Rounds(setup, cast(Any, slots), mock.Mock(), study, cast(Any, chains), Stopwatch())
        loop.costs.known_steps = {cell.id: steps for cell, steps in zip(cells, case.steps or case.seconds, strict=True)}
        loop.run(Display(Console(file=io.StringIO()), "simulated", len(cells), case.trials * len(cells), 0))
    assert all(chain.done == case.trials for chain in chains)
    return Played(
        max(clock.now, recorder.delivered), slots.training, slots.busy_seconds, recorder.seconds, slots.number,
        len(recorder.recorded), case.slots,
    )  # fmt: skip
