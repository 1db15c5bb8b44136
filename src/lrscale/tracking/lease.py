"""The lease of a study on a store that several machines reach: one process holds it and runs the study, all others are refused.

MLflow has no compare-and-set. A claim is a tag of the study's experiment, with a name of its own, so that no claim overwrites
another. A starter writes its claim and then reads all claims: of two starters, at least one sees the other. One that sees a
claim that is held, or a smaller one, withdraws. The smallest waits until the others have withdrawn, and then holds the lease.

No clock of another machine is trusted to call a claim dead. It is dead when its count of beats has not changed for
DEAD_SECONDS of the watcher's own time, or at once where its process ran on this machine and is gone.
"""

import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import ParamSpec, TypeVar

from lrscale.errors import Failure, Refusal, printable
from lrscale.provenance import who
from lrscale.system import birth, this_machine, uninterrupted
from lrscale.tracking.client import Client, answers
from lrscale.tracking.places import sqlite_file
from lrscale.tracking.schema import LEASE
from lrscale.tracking.store import Store

_P = ParamSpec("_P")
_T = TypeVar("_T")
BEAT_SECONDS = 10.0
"""Time between two signs of life of a holder, in seconds."""
DEAD_SECONDS = 30.0
"""A claim on another machine is dead when it gave no sign of life for this time, in seconds."""
SKEW_SECONDS = 5.0
"""A sign of life may lie this far in the future, in seconds, and still count as fresh. Beyond that the claim is watched."""
PAUSE_SECONDS = 0.3
"""Time between two readings of the claims while a starter waits, in seconds."""
_held: set[str] = set()
"""The claims that this process holds now. A claim of this process that is not in it could not be given back: it is dead."""


@dataclass(frozen=True)
class Claim:
    """A process's claim on a study.

    `uid` is its random name. `who` is user@host, `pid` and `born` identify the process on its `machine`, and `folder` is where
    it runs. `since` and `sign` are times of the holder's clock, in seconds: its start and its last sign of life. `beats` counts
    the signs. `held` is False while the process still asks. `after` has the uids of the dead claims that it took over from.
    """

    uid: str
    who: str
    pid: int
    born: str
    machine: str
    folder: str
    since: float
    sign: float
    beats: int = 0
    held: bool = False
    after: tuple[str, ...] = ()

    def beaten(self) -> "Claim":
        """Returns the claim with one more sign of life."""
        return replace(self, beats=self.beats + 1, sign=time.time())

    def in_words(self) -> str:
        """Returns who has the claim, since when, and when it gave its last sign of life."""
        return f"{self.by()}, last sign of life {f'{self.age:.0f} s ago' if self.age < DEAD_SECONDS else 'just now'}"

    def by(self) -> str:
        """Returns who has the claim, and since when."""
        since = datetime.fromtimestamp(self.since, UTC).isoformat(" ", "seconds").removesuffix("+00:00")
        return printable(f"{self.who} (process {self.pid} in {self.folder}) runs it since {since} UTC")

    @property
    def age(self) -> float:
        """The seconds since the last sign of life, as far as the clocks of both machines agree."""
        return max(time.time() - self.sign, 0.0)


def claims_of(tags: Mapping[str, str]) -> list[Claim]:
    """Returns the claims among the tags of an experiment, without those that a holder took over. A damaged tag is no claim."""
    found = []
    for key, text in tags.items():
        with suppress(ValueError, TypeError, AttributeError, OverflowError, OSError):
            if key.startswith(LEASE) and text:
                claim = Claim(**json.loads(text))
                claim.in_words()
                found.append(replace(claim, uid=key.removeprefix(LEASE), after=tuple(claim.after)))
    over = {uid for claim in found if claim.held for uid in claim.after}
    return [claim for claim in found if claim.uid not in over]


def is_gone(claim: Claim) -> bool:
    """Returns whether the process of a claim ran on this machine and is gone, or has ended the study."""
    if claim.machine != this_machine():
        return False
    born = birth(claim.pid)
    is_other = born is None or (born != claim.born and "" not in (born, claim.born))  # its number may be used again
    return is_other or (claim.pid == os.getpid() and claim.uid not in _held)


def holder_in(tags: Mapping[str, str]) -> Claim | None:
    """Returns the claim of the process that runs the study of an experiment with these tags; None where none is known to."""
    return next((claim for claim in claims_of(tags) if claim.held and not is_gone(claim)), None)


def refused(study: str, claim: Claim) -> Refusal:
    """Returns the Refusal that names the process that runs a study."""
    return Refusal(
        f"`hydra.sweeper.study_name` must be of a study that nobody else runs, got {study}: {claim.in_words()}. Wait until it "
        f"ends (a process that was killed is noticed after {DEAD_SECONDS:.0f} s), or take another name: "
        "hydra.sweeper.study_name=NAME."
    )


class Lease:
    """The lease of one study. On a database file there is nothing to do: the lock files beside it do the same."""

    def __init__(self, study: str) -> None:
        self.study, self.is_lost = study, False

    def check(self) -> None:
        """Raises Failure where another process has taken the study over."""

    def guarded(self, function: Callable[_P, _T]) -> Callable[_P, _T]:
        """Returns a function that also checks, before and after, that this process still has the study."""

        def call(*arguments: _P.args, **options: _P.kwargs) -> _T:
            self.check()
            returned = function(*arguments, **options)
            self.check()
            return returned

        return call


class SharedLease(Lease):
    """A lease on a server. A thread gives the signs of life."""

    def __init__(self, study: str, client: Client, experiment: str, say: Callable[[str], object]) -> None:
        """Takes the lease.

        Args:
          study: the name of the study.
          client: the store.
          experiment: the id of the study's experiment.
          say: prints a line, where this takes long.

        Raises:
          Refusal: another process has it.
        """
        super().__init__(study)
        self.client, self.experiment, self.say = client, experiment, say
        uid, pid, now = secrets.token_hex(8), os.getpid(), time.time()
        self.claim = Claim(uid, who(), pid, birth(pid) or "", this_machine(), os.getcwd()[-200:], now, now)
        self._watched: dict[str, tuple[int, float, bool]] = {}
        self._lock, self._ended, self._tried, self._failed = threading.Lock(), threading.Event(), _now(), False
        _held.add(uid)
        try:
            self._take()
        except BaseException:
            _held.discard(uid)
            raise
        threading.Thread(target=self._live, daemon=True, name="lease").start()

    def _take(self) -> None:
        """Asks for the lease until this process has it; raises Refusal where another has it."""
        self._wait(asks=False)
        try:
            while True:
                asked = self._wait(asks=True)
                dead = tuple(claim.uid for claim in self._others() if self._is_dead(claim))
                self._put(replace(self.claim.beaten(), held=True, after=dead))
                if rival := next((claim for claim in self._others() if claim.held and claim.uid not in dead), None):
                    raise refused(self.study, rival)
                if _now() - asked < DEAD_SECONDS / 2 and self._is_mine():
                    break
                self._put(replace(self.claim, held=False))  # this process slept: others may have called its claim dead
        except BaseException:
            with uninterrupted(), suppress(Failure):
                self._remove(self.claim.uid)
            raise
        for uid in dead:
            self._remove(uid)

    def _wait(self, asks: bool) -> float:
        """Waits until all other claims are dead or gone, and returns when the last reading began.

        Args:
          asks: whether this process has a claim; before, only claims that are held matter, and nothing is written.

        Raises:
          Refusal: another claim is alive, and it is held or smaller than this one.
        """
        has_said = False
        while True:
            if asks:
                self._put(self.claim.beaten())
            begun = _now()
            rivals = [claim for claim in self._others() if (asks or claim.held) and not self._is_dead(claim)]
            if not rivals:
                return begun
            for claim in rivals:
                if self._is_alive(claim) and (claim.held or claim.uid < self.claim.uid):
                    raise refused(self.study, claim)
                if claim.held and not has_said:
                    has_said = True
                    self.say(f"{self.study}: {claim.who} gives no sign of life. It is watched for {DEAD_SECONDS:.0f} s.")
            time.sleep(PAUSE_SECONDS)

    def _is_dead(self, claim: Claim) -> bool:
        """Returns whether a claim's process is gone, or gave no sign of life for long enough while this process watched."""
        beats, since, has_beaten = self._watched.get(claim.uid, (claim.beats, _now(), False))
        if beats != claim.beats:
            beats, since, has_beaten = claim.beats, _now(), True
        self._watched[claim.uid] = beats, since, has_beaten
        return is_gone(claim) or _now() - since > DEAD_SECONDS

    def _is_alive(self, claim: Claim) -> bool:
        """Returns whether a claim's process is known to live; one of which this is not known yet is watched."""
        age = time.time() - claim.sign
        return claim.machine == this_machine() or -SKEW_SECONDS <= age <= DEAD_SECONDS or self._watched[claim.uid][2]

    def _live(self) -> None:
        """Gives signs of life until the study ends, or another process has taken it over."""
        while not self.is_lost and not self._ended.wait(BEAT_SECONDS / 5 if self._failed else BEAT_SECONDS):
            self._beat()

    def _beat(self) -> None:
        """Gives one sign of life, where the store can be reached, and learns whether the lease is lost."""
        with self._lock:
            if self._ended.is_set() or self.is_lost:
                return
            self._tried = _now()
            try:
                self.is_lost = not self._is_mine()
                if not self.is_lost:
                    self._put(self.claim.beaten())
                self._failed = False
            except Failure:
                self._failed = True
            self._tried = _now()

    def check(self) -> None:
        """Raises Failure where another process has taken the study over."""
        if _now() - self._tried > DEAD_SECONDS:  # this machine slept, and its thread has not looked yet
            self._beat()
        if self.is_lost:
            raise Failure(
                f"{self.study} was taken over by another process, because this one gave no sign of life for "
                f"{DEAD_SECONDS:.0f} s. Once that process has ended, the same command goes on."
            )

    def give_back(self) -> None:
        """Ends the lease, so that the next start need not wait. A server that is away is not waited for."""
        self._ended.set()
        _held.discard(self.claim.uid)
        if not self._lock.acquire(timeout=2):
            return
        try:
            if not self._failed or answers(self.client.uri):
                with suppress(Failure):
                    self._remove(self.claim.uid)
        finally:
            self._lock.release()

    def _tags(self) -> dict[str, str]:
        return dict(self.client.get_experiment(self.experiment).tags)

    def _others(self) -> list[Claim]:
        return [claim for claim in claims_of(self._tags()) if claim.uid != self.claim.uid]

    def _is_mine(self) -> bool:
        """Returns whether this process's claim still stands, and no holder has taken over from it."""
        return any(claim.uid == self.claim.uid for claim in claims_of(self._tags()))

    def _put(self, claim: Claim) -> None:
        self.claim = claim
        self.client.set_experiment_tag(self.experiment, LEASE + claim.uid, json.dumps(asdict(claim)))

    def _remove(self, uid: str) -> None:
        """Removes a claim; where the server cannot remove tags, empties it."""
        if LEASE + uid in self._tags():
            try:
                self.client.delete_experiment_tag(self.experiment, LEASE + uid)
            except Failure:
                self.client.set_experiment_tag(self.experiment, LEASE + uid, "")


@contextmanager
def study_lease(uri: str, study: str, say: Callable[[str], object]) -> Iterator[Lease]:
    """Inside this context no other process on any machine runs a study.

    Args:
      uri: the URI of the MLflow store.
      study: the name of the study.
      say: prints a line, where it takes long to tell whether another process is dead.

    Raises:
      Refusal: another process runs the study; nothing has been written.
    """
    if sqlite_file(uri) is not None:
        yield Lease(study)
        return
    store = Store(uri)
    lease = SharedLease(study, store.client, store.experiment(study), say)
    try:
        yield lease
    finally:
        with uninterrupted():
            lease.give_back()


def _now() -> float:
    """Returns the seconds of a clock that is never set, and that goes on while the machine sleeps, where there is one."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)
