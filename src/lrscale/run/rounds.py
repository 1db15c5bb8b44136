"""Runs the loop of a study: ask Optuna, train, record in MLflow, tell Optuna, until every cell has all its trials."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from lrscale.run.costs import Costs
from lrscale.run.crew import Crew
from lrscale.run.job import Outcome, listening
from lrscale.run.order import Order
from lrscale.run.progress import Display
from lrscale.run.recording import Recorder, Work
from lrscale.run.setup import Setup
from lrscale.run.slots import Ended, SlotsLike
from lrscale.run.stopwatch import Stopwatch
from lrscale.search.tuner import Ask, Tuner
from lrscale.search.twin_tuner import TwinTuner
from lrscale.study.plan import Share
from lrscale.study.records import StudyRecord, TrialRecord
from lrscale.system import uninterrupted
from lrscale.tracking.store import Store

ShareSlots = SlotsLike[Share, Outcome]
"""The slots of a study."""


class Rounds:
    """The loop of one study. It starts from the trials that the stores hold already.

    A cell, with its twins, is idle, or has open work. Idle cells are asked for their next round. Where the launcher's workers
    are apart, this is as soon as their last round is told, so that all slots have work; the numbers of a cell depend on the
    cell and its twins alone. Else all cells are asked together, and their rounds are trained in order.
    """

    def __init__(
        self, setup: Setup, slots: ShareSlots, store: Store, study: StudyRecord, twins: list[TwinTuner], watch: Stopwatch
    ) -> None:
        """Reads the trials that the stores hold; see `Recorder`.

        Args:
          setup: the stores, and how jobs are run.
          slots: the slots in which jobs run.
          store: the MLflow store.
          study: the record of the study, with its plan.
          twins: the tuners of the cells of the plan, twins together.
          watch: the stopwatch that measures the phases of the loop.
        """
        self.setup, self.plan, self.twins, self.watch = setup, study.plan, twins, watch
        self.tuners = [tuner for group in twins for tuner in group.tuners]
        self.recorder = Recorder(store, study, self.tuners, setup.max_failure_rate)
        self.slots, self.costs = slots, Costs()
        self.crew: Crew[Work, Share, Outcome] = Crew(slots, _share, setup.n_retries)
        self.order = Order(twins, self.plan.n_trials, setup.n_jobs, self.costs)
        self.at_once = slots.workers.apart
        self.idle: list[TwinTuner] = []
        self.open: Counter[TwinTuner] = Counter()
        self.asked: Counter[TwinTuner] = Counter()
        self.waiting: list[Work] = []
        self.ended: list[Ended[Outcome]] = []
        self.training_seconds = 0.0

    @property
    def remarks(self) -> list[str]:
        """Remarks on recorded trials that were made otherwise."""
        return self.recorder.remarks

    def records(self) -> list[TrialRecord]:
        """Returns the records of all trials of the study's experiment, without reading the store again.

        Records of trials that this process has trained have no `run_id`.
        """
        return list(self.recorder.recorded.values())

    def trials_done(self) -> int:
        """Returns the number of trials that the study has already, over all cells, at most `n_trials` for each cell."""
        return sum(min(tuner.held(), self.plan.n_trials) for tuner in self.tuners)

    def run(self, display: Display) -> None:
        """Runs rounds until every cell has all its trials.

        Raises:
          Failure: more trials crashed than `max_failure_rate` allows.
        """
        start = time.perf_counter()
        with self.slots, listening(partial(self._tell_steps, display)):
            for group in self.twins:
                self._open(group, self._work(group, self.recorder.unrecorded))
            if self.waiting:
                display.round(0)
            while self._ask(display):
                self._fill()
                if not self.ended:
                    self.ended += self._wait()
                self._end(self.ended.pop(self.order.next_ended(self.ended, self.crew.jobs) if self.at_once else 0), display)
        display.cells_done = len(self.tuners)
        if self.at_once:
            seconds = time.perf_counter() - start
            self.watch.use_slots(self.slots.count, seconds, self.slots.busy_seconds, self.training_seconds)

    def _tell_steps(self, display: Display, seconds: float, step: int, steps: int) -> None:
        """Tells the display how far the cell is that trains in this process, and how much waits in its round."""
        waiting = sum(self.costs.steps(work.tuner.cell) for work in self.waiting)
        display.training(seconds, step, steps + waiting)

    def _open(self, group: TwinTuner, work: Iterator[Work]) -> None:
        """Puts the work of some twins into the queue. Where there is none, they are idle."""
        new = list(work)
        self.waiting += new
        self.open[group] = len(new)
        if not new:
            self.idle.append(group)

    def _ask(self, display: Display) -> bool:
        """Asks idle cells for their next rounds; returns whether there is work, in the queue or in a slot."""
        while self.idle and (self.at_once or not (self.waiting or self.crew.alone or self.crew.jobs)):
            idle, self.idle = self.idle, []
            asked = [group for group in idle if self._asks(group)]
            latest = max(self.asked.values(), default=0)
            self.asked.update(asked)
            if max((self.asked[group] for group in asked), default=0) > latest:
                going_on = {*asked, *(group for group in self.twins if self.open[group])}
                display.round(len(self.tuners) - sum(len(group.tuners) for group in going_on))
            for group in asked:
                self._open(group, self._work(group, self.recorder.tell_recorded))
        return bool(self.waiting or self.crew.alone or self.crew.jobs)

    def _asks(self, group: TwinTuner) -> bool:
        """Asks Optuna for the next round of some twins; returns whether there is one."""
        with self.watch.phase("asking"), uninterrupted():
            return bool(group.next_round())

    def _work(self, group: TwinTuner, trials_to_record: Callable[[Tuner], list[Ask]]) -> Iterator[Work]:
        """Yields the rounds that must be trained so that all trials of some twins are recorded.

        A trial is always trained together with its whole round, even where other trials of the round are recorded
        already. Products of other shapes would be rounded differently. A script trains each trial for itself.
        """
        for tuner in group.trained:
            recording = group.recording(tuner)
            wanted = {t.point(ask.params) for t in recording for ask in trials_to_record(t)}
            for asks in [[ask] for r in tuner.rounds() for ask in r] if self.plan.is_script else tuner.rounds():
                if any(tuner.point(ask.params) in wanted for ask in asks):
                    wanted -= {tuner.point(ask.params) for ask in asks}
                    yield Work(group, tuner, asks, recording)
            rest = [Ask(number, params) for number, params in tuner.every().items() if tuner.point(params) in wanted]
            if rest:  # trials whose round is not known
                yield Work(group, tuner, rest, recording)

    def _fill(self) -> None:
        """Launches jobs while there are free slots and work; see `Order` for which is first where cells are asked at once."""
        if self.at_once and self.waiting and self.slots.free:
            self.order.sort(self.waiting)
        self.crew.fill(self.waiting, self._next_job)

    def _next_job(self, free: int) -> list[Work]:
        """Removes the cells of the next job from the queue and returns them. They have the same Hydra overrides.

        Cells that train quickly share a job; otherwise starting the jobs would take most of the time. A script trains each
        trial in jobs of its own.
        """
        if self.plan.is_script:
            return [self.waiting.pop(0)]
        alike = [work for work in self.waiting if work.tuner.cell.overrides == self.waiting[0].tuner.cell.overrides]
        job = alike[: self.costs.share([work.tuner.cell for work in alike], free)]
        for work in job:
            self.waiting.remove(work)
        return job

    def _wait(self) -> list[Ended[Outcome]]:
        """Waits for a job to end; returns the jobs that have ended."""
        start = time.perf_counter()
        ended = self.slots.ended(wait=True)
        if self.at_once:
            self.watch.add("waiting for jobs", time.perf_counter() - start)
        return ended

    def _end(self, ended: Ended[Outcome], display: Display) -> None:
        """Records a job that has ended. Slots that come free meanwhile get the work that waits."""
        job, outcomes = self.crew.jobs[ended.number], ended.outcomes
        if isinstance(outcomes, str) or ended.lost:
            outcomes = [Outcome([], ended.lost or str(outcomes), 0.0)] * len(job)
        self._measure(ended, outcomes)
        for work, outcome in zip(job, outcomes, strict=True):
            if (ended.lost or outcome.late) and self._again(ended, work, outcome, display):
                continue
            start = time.perf_counter()
            with self.watch.phase("recording"):
                for tuner in work.recording:
                    for _ in self.recorder.record(work, tuner, outcome, ended.started, display):
                        self._refill()
            self.order.learn(work, time.perf_counter() - start)
            self.open[work.group] -= 1
            if not self.open[work.group]:
                self.idle.append(work.group)
        del self.crew.jobs[ended.number]

    def _refill(self) -> None:
        """Gives slots that came free the work that waits. What the job that is recorded now leads to is not among it yet."""
        if self.at_once:
            self.ended += self.slots.ended(wait=False)
            self._fill()

    def _again(self, ended: Ended[Outcome], work: Work, outcome: Outcome, display: Display) -> bool:
        """Puts lost work back, to be launched by itself; returns False where it was lost too often, and says so."""
        key = work.tuner.cell.id, tuple(ask.number for ask in work.asks)
        losses = self.crew.again(ended, work, key, outcome.late)
        if losses:
            display.console.print(
                f"lost     {work.tuner.cell.label}, {len(work.asks)} trials, {losses} times: {outcome.crash}", soft_wrap=True
            )
        return not losses

    def _measure(self, ended: Ended[Outcome], outcomes: Sequence[Outcome]) -> None:
        """Keeps what a job that has ended says of costs."""
        training = sum(outcome.seconds for outcome in outcomes)
        start_up = max(ended.seconds - training, 0.0)
        self.training_seconds += training
        for work, outcome in zip(self.crew.jobs[ended.number], outcomes, strict=True):
            if outcome.crash is None:
                self.costs.learn(work.tuner.cell, outcome.seconds)
        if not ended.lost:
            self.costs.learn_start_up(start_up)
        if not self.at_once:
            self.watch.add("training", min(training, ended.seconds))
            self.watch.add("composing and launching", start_up)


def _share(work: Work) -> Share:
    return Share(work.tuner.cell, tuple(ask.params for ask in work.asks))
