"""The lease of a study: the claims of several starters in any order of their calls, and clocks that differ between machines."""

import os
import random
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from lrscale import system
from lrscale.errors import Failure, Refusal
from lrscale.tracking import lease as leases
from lrscale.tracking.client import Client
from lrscale.tracking.lease import BEAT_SECONDS, DEAD_SECONDS, LEASE, SharedLease, claims_of

FOREIGN = "another machine"


class Tags(Client):
    """The tags of one experiment, as MLflow's client reads and writes them; `pause` comes before and after each call."""

    uri = "http://nowhere"

    def __init__(self, pause: Callable[[], None] = lambda: None) -> None:
        self.tags: dict[str, str] = {}
        self.writes = 0
        self.pause = pause
        self.is_away = False

    def _call(self, action: Callable[[], Any]) -> Any:
        self.pause()
        if self.is_away:
            raise Failure("away")
        returned = action()
        self.pause()
        return returned

    def get_experiment(self, _: str) -> Any:
        return self._call(lambda: SimpleNamespace(tags=dict(self.tags)))

    def set_experiment_tag(self, _: str, key: str, value: str) -> None:
        self.writes += 1
        self._call(lambda: self.tags.__setitem__(key, value))

    def delete_experiment_tag(self, _: str, key: str) -> None:
        self.writes += 1
        self._call(lambda: self.tags.pop(key))


class Steps:
    """Lets one of several threads take one step at a time, in an order that is drawn."""

    def __init__(self, threads: int, draw: random.Random) -> None:
        self.draw, self.turn, self.left = draw, threading.Condition(), threads
        self.waiting: set[int] = set()
        self.chosen: int | None = None

    def _choose(self) -> None:
        if self.chosen is None and self.waiting and len(self.waiting) == self.left:
            self.chosen = self.draw.choice(sorted(self.waiting))
            self.turn.notify_all()

    def step(self) -> None:
        me = threading.get_ident()
        with self.turn:
            self.waiting.add(me)
            self._choose()
            assert self.turn.wait_for(lambda: self.chosen == me, 20), "no thread moves"
            self.waiting.discard(me)
            self.chosen = None

    def leave(self) -> None:
        with self.turn:
            self.left -= 1
            self._choose()


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """No signs of life from threads: a test gives them itself."""
    monkeypatch.setattr(SharedLease, "_live", lambda _: None)


class Clock:
    """The clocks of this machine, which go on only where somebody sleeps; `then` happens after each second."""

    def __init__(self) -> None:
        self.now, self.then = 1e9, lambda now: None

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.then(self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, still: None) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr(leases, "time", clock)
    monkeypatch.setattr(leases, "_now", lambda: clock.now)
    yield clock
    leases._held.clear()


def take(client: Tags) -> SharedLease:
    return SharedLease("a study", client, "1", lambda line: None)


def taken_elsewhere(client: Tags, monkeypatch: pytest.MonkeyPatch) -> SharedLease:
    """A lease that a process of another machine has taken."""
    with monkeypatch.context() as patch:
        patch.setattr(leases, "this_machine", lambda: FOREIGN)
        return take(client)


@pytest.mark.parametrize(("starters", "after_a_dead_one"), [(2, False), (3, False), (2, True)])
def test_of_simultaneous_starters_exactly_one_has_the_study(
    monkeypatch: pytest.MonkeyPatch, still: None, starters: int, after_a_dead_one: bool
) -> None:
    for seed in range(150):
        steps = Steps(starters, random.Random(seed))
        client = Tags()
        if after_a_dead_one:
            take(client)
            leases._held.clear()
        client.pause = steps.step
        monkeypatch.setattr(leases.time, "sleep", lambda _, steps=steps: steps.step())
        ends: list[str] = []

        def start(client: Tags = client, steps: Steps = steps, ends: list[str] = ends) -> None:
            try:
                take(client)
                ends.append("has it")
            except Refusal:
                ends.append("refused")
            except BaseException as error:  # shown by the assertion
                ends.append(repr(error))
            finally:
                steps.leave()

        threads = [threading.Thread(target=start) for _ in range(starters)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(ends) == ["has it", *["refused"] * (starters - 1)], seed
        assert len(client.tags) == 1
        leases._held.clear()


def test_a_second_starter_is_refused_at_once_and_has_written_nothing(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Tags()
    first = taken_elsewhere(client, monkeypatch)
    clock.now += 4
    before, writes, now = dict(client.tags), client.writes, clock.now
    with pytest.raises(Refusal, match=r"a study: .*@.* \(process \d+ in /.*\) runs it since .* UTC, last sign of life 4 s ago"):
        take(client)
    assert (client.tags, client.writes, clock.now) == (before, writes, now)
    first.give_back()
    assert client.tags == {}
    take(client).check()


@pytest.mark.parametrize("skew", [-1e6, -3600, -20, -6, 3600, 1e6])
def test_a_living_holder_keeps_the_study_whatever_its_clock_says(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, skew: float
) -> None:
    client = Tags()
    first = taken_elsewhere(client, monkeypatch)
    beats = [clock.now + BEAT_SECONDS * n for n in range(1, 100)]

    def live(now: float) -> None:
        while beats[0] <= now:
            clock.now = beats.pop(0) + skew
            first._beat()
            clock.now = now

    clock.then, clock.now = live, clock.now + BEAT_SECONDS
    live(clock.now)
    start = clock.now
    with pytest.raises(Refusal, match="nobody else runs"):
        take(client)
    assert clock.now - start <= BEAT_SECONDS + 1
    first.check()


@pytest.mark.parametrize("skew", [-1e6, -3600, -20, 0, 3600, 1e6])
def test_a_dead_holder_is_taken_over_from_whatever_its_clock_said(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, skew: float
) -> None:
    client = Tags()
    clock.now += skew
    first = taken_elsewhere(client, monkeypatch)
    clock.now += DEAD_SECONDS + 1 - skew
    start = clock.now
    second = take(client)
    assert DEAD_SECONDS <= clock.now - start <= DEAD_SECONDS + 2
    second.check()
    assert list(client.tags) == [LEASE + second.claim.uid]
    first._beat()  # it was only asleep
    with pytest.raises(Failure, match="taken over by another process"):
        first.check()
    assert first.is_lost and list(client.tags) == [LEASE + second.claim.uid]
    second._beat()
    second.check()


def test_a_holder_that_slept_learns_it_before_it_records(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Tags()
    first = taken_elsewhere(client, monkeypatch)
    clock.now += 2 * DEAD_SECONDS
    second = take(client)
    recorded: list[str] = []
    with pytest.raises(Failure, match="taken over"):
        first.guarded(recorded.append)("a trial")
    assert recorded == []
    second.guarded(recorded.append)("a trial")
    assert recorded == ["a trial"]


def test_a_sign_of_life_that_crosses_the_take_over_does_not_bring_the_dead_back(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Tags()
    first = taken_elsewhere(client, monkeypatch)
    clock.now += 2 * DEAD_SECONDS
    second = take(client)
    first._put(first.claim.beaten())  # it had read the claims before
    second._beat()
    second.check()
    with pytest.raises(Refusal):
        take(client)
    first._beat()
    assert first.is_lost


def test_a_server_that_is_away_costs_no_lease(clock: Clock) -> None:
    client = Tags()
    lease = take(client)
    client.is_away = True
    clock.now += 100 * DEAD_SECONDS
    lease._beat()
    lease.check()
    client.is_away = False
    lease._beat()
    lease.check()
    assert claims_of(client.tags) == [lease.claim]


def test_a_process_of_this_machine_that_is_gone_is_not_waited_for(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    start = clock.now
    for birth in (lambda pid: None, lambda pid: "another process with the same id"):
        client = Tags()
        take(client)
        with pytest.raises(Refusal):
            take(client)
        with monkeypatch.context() as patch:
            patch.setattr(leases, "birth", birth)
            take(client)
    client = Tags()
    take(client)
    leases._held.clear()  # as where this process could not give it back
    take(client).give_back()
    assert client.tags == {} and clock.now == start


def test_tags_that_are_no_claims_change_nothing(clock: Clock) -> None:
    client = Tags()
    client.tags |= {LEASE + "a": "", LEASE + "b": "{}", LEASE + "c": "[1]", LEASE + "d": '{"uid": 1}', "lrscale.other": "x"}
    before = dict(client.tags)
    lease = take(client)
    lease.give_back()
    assert client.tags == before


def test_a_server_that_cannot_remove_tags_has_them_emptied(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Tags()

    def unknown(*_: object) -> None:
        raise Failure("404")

    monkeypatch.setattr(client, "delete_experiment_tag", unknown)
    lease = take(client)
    lease.give_back()
    assert set(client.tags.values()) == {""}
    take(client)


def test_a_process_lives_until_it_has_ended() -> None:
    assert system.birth(os.getpid()) == system.birth(os.getpid()) is not None
    process = subprocess.Popen(["sleep", "60"])
    assert system.birth(process.pid) not in (None, system.birth(os.getpid()))
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert system.birth(process.pid) is None  # its parent has not asked yet how it ended
    process.wait()
    assert system.birth(process.pid) is None
