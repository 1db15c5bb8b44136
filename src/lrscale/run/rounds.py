"""Runs the loop of a study: ask Optuna, train, record in MLflow, tell Optuna, until every cell has all its trials."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from lrscale.errors import Failure
from lrscale.report.figures.palette import colours
from lrscale.run.job import Launch, Outcome
from lrscale.run.progress import Display
from lrscale.run.setup import Setup
from lrscale.run.stopwatch import Stopwatch
from lrscale.search.tuner import Ask, Tuner
from lrscale.search.twin_tuner import TwinTuner
from lrscale.signals import uninterrupted
from lrscale.study.plan import Share, exact_label
from lrscale.study.records import StudyRecord, TrialRecord, trial_record
from lrscale.study.settings import remarks_on_trials, settings_of, sort_trials
from lrscale.tracking.store import Store
from lrscale.training.results import Result, same_run

Key = tuple[str, frozenset[tuple[str, float]]]
"""Identifies a trial in both stores: the id of its cell, and its tuned hyperparameters with their values."""
JOB_SECONDS = 1.0
"""Cells share a job up to about this time, in seconds. A kill loses about this much training in each running job."""


class Work(NamedTuple):
    """A round of one cell that is to be trained, with the tuners that record it: the cell's own, and its same runs'."""

    tuner: Tuner
    asks: list[Ask]
    recording: list[Tuner]


class Rounds:
    """The loop of one study. It starts from the trials that the stores hold already."""

    def __init__(
        self, setup: Setup, launch: Launch, store: Store, study: StudyRecord, twins: list[TwinTuner], watch: Stopwatch
    ) -> None:
        """Deletes half-written trials from MLflow, and adds to Optuna the trials that only MLflow holds.

        `remarks` says which recorded trials were made otherwise, and what becomes of them.

        Args:
          setup: the stores, and how jobs are run.
          launch: the function that runs jobs.
          store: the MLflow store.
          study: the record of the study, with its plan.
          twins: the tuners of the cells of the plan, twins together.
          watch: the stopwatch that measures the phases of the loop.
        """
        self.setup, self.launch, self.store, self.study, self.twins, self.watch = setup, launch, store, study, twins, watch
        self.tuners = [tuner for group in twins for tuner in group.tuners]
        self.plan = study.plan
        self.crashed = 0
        self.cell_seconds = math.inf
        self.palette = colours([int(cell.config["batch_size"]) for cell in study.plan.cells])
        store.drop_unfinished(study.experiment_id, but=study.run_id)
        trials = store.trials(study.experiment_id)
        self.remarks = remarks_on_trials(study, trials)
        used = sort_trials(self.plan, trials).used
        self.recorded: dict[Key, TrialRecord] = {_key(record.cell, record.params): record for record in used}
        by_cell: dict[str, list[TrialRecord]] = {cell.id: [] for cell in self.plan.cells}
        for record in sorted(self.recorded.values(), key=lambda record: record.number):
            by_cell[record.cell].append(record)
        for tuner in self.tuners:
            with uninterrupted():
                tuner.adopt(by_cell[tuner.cell.id])

    def records(self) -> list[TrialRecord]:
        """Returns the records of all trials of the study's experiment, without reading the store again.

        Records of trials that this process has trained have no `run_id`.
        """
        return list(self.recorded.values())

    def trials_done(self) -> int:
        """Returns the number of trials that the study has already, over all cells, at most `n_trials` for each cell."""
        return sum(min(tuner.held(), self.plan.n_trials) for tuner in self.tuners)

    def run(self, display: Display) -> None:
        """Runs rounds until every cell has all its trials.

        Raises:
          Failure: more trials crashed than `max_failure_rate` allows.
        """
        if unrecorded := [work for group in self.twins for work in self._work(group, self._unrecorded)]:
            display.round(0)
            self._run_jobs(unrecorded, display)
        while groups := [group for group in self.twins if self._asks(group)]:
            display.round(len(self.tuners) - sum(len(group.tuners) for group in groups))
            self._run_jobs([work for group in groups for work in self._work(group, self._tell_recorded)], display)
        display.cells_done = len(self.tuners)

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
                    yield Work(tuner, asks, recording)
            rest = [Ask(number, params) for number, params in tuner.every().items() if tuner.point(params) in wanted]
            if rest:  # trials whose round is not known
                yield Work(tuner, rest, recording)

    def _unrecorded(self, tuner: Tuner) -> list[Ask]:
        """Returns the trials that Optuna holds as complete and MLflow does not hold. They are trained again and recorded."""
        complete = tuner.complete()
        return [Ask(number, params) for number, params in complete.items() if _key(tuner.cell.id, params) not in self.recorded]

    def _tell_recorded(self, tuner: Tuner) -> list[Ask]:
        """Tells Optuna the objectives that MLflow recorded before a kill, and returns the running trials without a record."""
        untold = []
        for ask in tuner.running():
            record = self.recorded.get(_key(tuner.cell.id, ask.params))
            if record is None:
                untold.append(ask)
            else:
                with uninterrupted():
                    tuner.tell(ask.number, record.objectives)
        return untold

    def _run_jobs(self, work: list[Work], display: Display) -> None:
        """Launches jobs, `n_jobs` at a time, and records their outcomes.

        Cells that train quickly share a job; otherwise composing the jobs would take most of the time.
        """
        waiting = list(work)
        while waiting:
            jobs = [job for _ in range(self.setup.n_jobs) if (job := self._next_job(waiting))]
            started, start = time.time(), time.perf_counter()
            returned = self.launch([[Share(w.tuner.cell, tuple(a.params for a in w.asks)) for w in job] for job in jobs])
            wall_seconds = time.perf_counter() - start
            training_seconds = 0.0
            with self.watch.phase("recording"):
                for job, outcomes in zip(jobs, returned, strict=True):
                    if isinstance(outcomes, str):
                        outcomes = [Outcome([], outcomes, 0.0)] * len(job)
                    for one, outcome in zip(job, outcomes, strict=True):
                        for tuner in one.recording:
                            self._record_outcome(one, tuner, outcome, started, display)
                        training_seconds += outcome.seconds
            self.cell_seconds = max(training_seconds / sum(len(job) for job in jobs), 1e-3)
            self.watch.add("training", min(training_seconds, wall_seconds))
            self.watch.add("composing and launching", max(wall_seconds - training_seconds, 0.0))

    def _next_job(self, waiting: list[Work]) -> list[Work]:
        """Removes the cells of one job from `waiting` and returns them.

        The cells of a job have the same Hydra overrides, and together take about JOB_SECONDS. No job gets more than an
        equal share of the waiting cells, so that all `n_jobs` jobs have work.
        """
        if not waiting:
            return []
        equal_share = max(1, len(waiting) // self.setup.n_jobs)
        most = min(equal_share, max(1, int(JOB_SECONDS / self.cell_seconds)))
        job = [work for work in waiting if work.tuner.cell.overrides == waiting[0].tuner.cell.overrides][:most]
        for work in job:
            waiting.remove(work)
        return job

    def _record_outcome(self, work: Work, tuner: Tuner, outcome: Outcome, started: float, display: Display) -> None:
        """Records the trials of one cell that MLflow does not hold yet, and tells Optuna those that it waits for.

        Args:
          work: the round that was trained.
          tuner: the tuner of the round's cell, or of a twin that is the same run.
          outcome: what the training returned.
          started: the time when the job was launched, in seconds.
          display: shows the progress.
        """
        results = dict(zip((work.tuner.point(ask.params) for ask in work.asks), outcome.results, strict=False))
        names = {work.tuner.point(ask.params): exact_label(work.tuner.cell.label, ask.params) for ask in work.asks}
        of_round = [(ask, asks[0].number) for asks in tuner.rounds() for ask in asks if tuner.point(ask.params) in names]
        first_of = {ask.number: first for ask, first in of_round}
        missing = [ask for ask, _ in of_round if _key(tuner.cell.id, ask.params) not in self.recorded]
        complete = set(tuner.complete())
        new = [ask for ask in missing if ask.number not in complete]
        if outcome.crash is not None:
            self._record_crash(tuner, missing, new, outcome.crash)
            display.job(tuner.cell.label, 0, 0, 0, len(missing))
            return
        colour = self.palette[int(tuner.cell.config["batch_size"])]
        settings = settings_of(self.study, tuner.cell)
        diverged: list[bool] = []
        for ask in missing:
            result, together = _in_twin(results[tuner.point(ask.params)], work.tuner, tuner), first_of[ask.number]
            diverged += result.diverged
            same_as = "" if tuner is work.tuner else names[tuner.point(ask.params)]
            with uninterrupted():
                self.store.record_trial(
                    self.study, tuner.cell, ask.number, together, ask.params, result, started, colour, same_as
                )
                record = trial_record(tuner.cell.id, ask.number, together, ask.params, result, settings)
                self.recorded[_key(tuner.cell.id, ask.params)] = record
                tuner.learn(ask.params, result.objectives)
                if ask in new:
                    tuner.tell(ask.number, result.objectives)
        display.job(tuner.cell.label, len(diverged), sum(diverged), len(new), 0)

    def _record_crash(self, tuner: Tuner, asks: list[Ask], new: list[Ask], crash: str) -> None:
        """Records trials as crashed; raises Failure once more have crashed than `max_failure_rate` allows."""
        for ask in asks:
            with uninterrupted():
                self.store.record_failure(self.study, tuner.cell, ask.params, crash)
                if ask in new:
                    tuner.fail(ask.number)
        self.crashed += len(asks)
        if self.crashed > self.setup.max_failure_rate * self.plan.n_trials * len(self.tuners):
            raise Failure(
                f"{self.crashed} trials crashed, more than hydra.sweeper.max_failure_rate={self.setup.max_failure_rate} "
                f"allows. The last crash was in cell {tuner.cell.label}:\n{crash}"
            )


def _in_twin(result: Result, trained: Tuner, tuner: Tuner) -> Result:
    """Returns the result of a cell that is the same run as the cell that was trained."""
    twin = tuner.cell.twin
    return result if tuner is trained or twin is None else same_run(result, twin.r)


def _key(cell: str, params: Mapping[str, float]) -> Key:
    return cell, frozenset(params.items())
