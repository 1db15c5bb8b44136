"""The loop of a study: rounds of asking, training, recording and telling, until every cell has its trials."""

import math
import time
from collections.abc import Mapping

from lrscale.errors import Failure
from lrscale.report.figures.palette import colours
from lrscale.run.job import Launch, Outcome
from lrscale.run.progress import Display
from lrscale.run.setup import Setup
from lrscale.run.stopwatch import Stopwatch
from lrscale.search.tuner import Ask, Tuner
from lrscale.signals import uninterrupted
from lrscale.study.plan import Share
from lrscale.study.records import StudyRecord, TrialRecord, trial_record
from lrscale.tracking.store import Store
from lrscale.training.results import mean_objective

Key = tuple[str, frozenset[tuple[str, float]]]
JOB_SECONDS = 1.0
"""Cells share a job up to about this time, which is what a kill can lose."""


class Rounds:
    """The loop, with what is in the store already."""

    def __init__(
        self, setup: Setup, launch: Launch, store: Store, study: StudyRecord, tuners: list[Tuner], watch: Stopwatch
    ) -> None:
        self.setup, self.launch, self.store, self.study, self.tuners, self.watch = setup, launch, store, study, tuners, watch
        self.plan = study.plan
        self.crashed = 0
        self.cell_seconds = math.inf
        self.palette = colours([int(cell.config["batch_size"]) for cell in study.plan.cells])
        store.drop_unfinished(study.experiment_id, but=study.run_id)
        self.recorded: dict[Key, TrialRecord] = {
            _key(record.cell, record.params): record for record in store.trials(study.experiment_id)
        }
        self.taken: list[TrialRecord] = []
        for tuner in tuners:
            self._add_what_optuna_lacks(tuner)

    def _add_what_optuna_lacks(self, tuner: Tuner) -> None:
        known = {_key(tuner.cell.id, params) for params in tuner.every().values()}
        for key, record in self.recorded.items():
            if record.cell == tuner.cell.id and key not in known and set(record.params) == set(tuner.space):
                with uninterrupted():
                    tuner.add(record.params, mean_objective(record.objectives))

    def records(self) -> list[TrialRecord]:
        """Every trial of the study, whether a store can be asked for it or not; those taken just now have no run yet."""
        return [*self.recorded.values(), *self.taken]

    def held(self) -> int:
        return sum(min(tuner.held(), self.plan.n_trials) for tuner in self.tuners)

    def run(self, display: Display) -> None:
        lost = [(tuner, asks) for tuner in self.tuners for asks in tuner.whole_rounds(self._unrecorded(tuner))]
        if lost:
            display.round(0)
            self._launch_all(lost, display)
        while rounds := self._ask():
            display.round(len(self.tuners) - len(rounds))
            fresh = [(tuner, self._tell_recorded(tuner, asks)) for tuner, asks in rounds]
            self._launch_all([(tuner, whole) for tuner, asks in fresh for whole in tuner.whole_rounds(asks)], display)
        display.cells_done = len(self.tuners)

    def _ask(self) -> list[tuple[Tuner, list[Ask]]]:
        rounds = []
        for tuner in self.tuners:
            with self.watch.phase("asking"), uninterrupted():
                asks = tuner.next_round()
            if asks:
                rounds.append((tuner, asks))
        return rounds

    def _unrecorded(self, tuner: Tuner) -> list[Ask]:
        """Trials that Optuna has as complete and MLflow has not: they are run again, for the record."""
        return [Ask(n, p) for n, p in tuner.complete().items() if _key(tuner.cell.id, p) not in self.recorded]

    def _tell_recorded(self, tuner: Tuner, asks: list[Ask]) -> list[Ask]:
        """Tells what was recorded before a kill, and returns the rest."""
        fresh = []
        for ask in asks:
            record = self.recorded.get(_key(tuner.cell.id, ask.params))
            if record is None:
                fresh.append(ask)
            else:
                with uninterrupted():
                    tuner.tell(ask.number, mean_objective(record.objectives))
        return fresh

    def _launch_all(self, work: list[tuple[Tuner, list[Ask]]], display: Display) -> None:
        """Launches jobs, `n_jobs` at a time. Quick cells share a job, so that composing it is not what takes the time."""
        waiting = list(work)
        while waiting:
            jobs = [job for _ in range(self.setup.n_jobs) if (job := self._next_job(waiting))]
            started, begun = time.time(), time.perf_counter()
            returned = self.launch([[Share(t.cell, tuple(a.params for a in asks)) for t, asks in job] for job in jobs])
            wall = time.perf_counter() - begun
            taken = 0.0
            with self.watch.phase("recording"):
                for job, outcomes in zip(jobs, returned, strict=True):
                    if isinstance(outcomes, str):
                        outcomes = [Outcome([], outcomes, 0.0)] * len(job)
                    for (tuner, asks), outcome in zip(job, outcomes, strict=True):
                        self._take(tuner, asks, outcome, started, display)
                        taken += outcome.seconds
            self.cell_seconds = max(taken / sum(len(job) for job in jobs), 1e-3)
            self.watch.add("training", min(taken, wall))
            self.watch.add("composing and launching", max(wall - taken, 0.0))

    def _next_job(self, waiting: list[tuple[Tuner, list[Ask]]]) -> list[tuple[Tuner, list[Ask]]]:
        """Takes the cells of one job from those waiting: as many that Hydra composes alike as take about JOB_SECONDS."""
        if not waiting:
            return []
        fair = max(1, len(waiting) // self.setup.n_jobs)
        most = min(fair, max(1, int(JOB_SECONDS / self.cell_seconds)))
        alike = [pair for pair in waiting if pair[0].cell.overrides == waiting[0][0].cell.overrides][:most]
        for pair in alike:
            waiting.remove(pair)
        return alike

    def _take(self, tuner: Tuner, asks: list[Ask], outcome: Outcome, started: float, display: Display) -> None:
        complete = set(tuner.complete())
        missing = [ask for ask in asks if _key(tuner.cell.id, ask.params) not in self.recorded]
        new = [ask for ask in missing if ask.number not in complete]
        if outcome.crash is not None:
            self._take_crash(tuner, missing, new, outcome.crash)
            display.job(tuner.cell.label, 0, 0, 0, len(missing))
            return
        colour = self.palette[int(tuner.cell.config["batch_size"])]
        results = [result for ask, result in zip(asks, outcome.results, strict=True) if ask in missing]
        for ask, result in zip(missing, results, strict=True):
            with uninterrupted():
                self.store.record_trial(self.study, tuner.cell, ask.number, asks[0].number, ask.params, result, started, colour)
                self.taken.append(trial_record(tuner.cell.id, ask.number, asks[0].number, ask.params, result))
                if ask in new:
                    tuner.tell(ask.number, result.objective)
        runs = [flag for result in results for flag in result.diverged]
        display.job(tuner.cell.label, len(runs), sum(runs), len(new), 0)

    def _take_crash(self, tuner: Tuner, asks: list[Ask], new: list[Ask], crash: str) -> None:
        for ask in asks:
            with uninterrupted():
                self.store.record_failure(self.study, tuner.cell, ask.params, crash)
                if ask in new:
                    tuner.fail(ask.number)
        self.crashed += len(asks)
        if self.crashed > self.setup.max_failure_rate * self.plan.n_trials * len(self.tuners):
            raise Failure(
                f"{self.crashed} trials crashed, more than hydra.sweeper.max_failure_rate={self.setup.max_failure_rate} "
                f"allows. The last one, {tuner.cell.label}:\n{crash}"
            )


def _key(cell: str, params: Mapping[str, float]) -> Key:
    return cell, frozenset(params.items())
