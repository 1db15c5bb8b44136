"""Runs the loop of a study: ask Optuna, train, record in MLflow, tell Optuna, until every cell has all its trials."""

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
"""Identifies a trial in both stores: the id of its cell, and its tuned hyperparameters with their values."""
JOB_SECONDS = 1.0
"""Cells share a job up to about this time, in seconds. A kill loses about this much training in each running job."""


class Rounds:
    """The loop of one study. It starts from the trials that the stores hold already."""

    def __init__(
        self, setup: Setup, launch: Launch, store: Store, study: StudyRecord, tuners: list[Tuner], watch: Stopwatch
    ) -> None:
        """Deletes half-written trials from MLflow, and adds to Optuna the trials that only MLflow holds.

        Args:
          setup: the stores, and how jobs are run.
          launch: the function that runs jobs.
          store: the MLflow store.
          study: the record of the study, with its plan.
          tuners: the tuner of each cell of the plan.
          watch: the stopwatch that measures the phases of the loop.
        """
        self.setup, self.launch, self.store, self.study, self.tuners, self.watch = setup, launch, store, study, tuners, watch
        self.plan = study.plan
        self.crashed = 0
        self.cell_seconds = math.inf
        self.palette = colours([int(cell.config["batch_size"]) for cell in study.plan.cells])
        store.drop_unfinished(study.experiment_id, but=study.run_id)
        self.recorded: dict[Key, TrialRecord] = {
            _key(record.cell, record.params): record for record in store.trials(study.experiment_id)
        }
        self.new_records: list[TrialRecord] = []
        for tuner in tuners:
            self._add_missing_to_optuna(tuner)

    def _add_missing_to_optuna(self, tuner: Tuner) -> None:
        """Adds the trials of one cell that MLflow holds and Optuna does not."""
        in_optuna = {_key(tuner.cell.id, params) for params in tuner.every().values()}
        for key, record in self.recorded.items():
            if record.cell == tuner.cell.id and key not in in_optuna and set(record.params) == set(tuner.space):
                with uninterrupted():
                    tuner.add(record.params, mean_objective(record.objectives))

    def records(self) -> list[TrialRecord]:
        """Returns the records of all trials of the study's experiment, without reading the store again.

        Records of trials that this process has trained have no `run_id`.
        """
        return [*self.recorded.values(), *self.new_records]

    def trials_done(self) -> int:
        """Returns the number of trials that the study has already, over all cells, at most `n_trials` for each cell."""
        return sum(min(tuner.held(), self.plan.n_trials) for tuner in self.tuners)

    def run(self, display: Display) -> None:
        """Runs rounds until every cell has all its trials.

        Raises:
          Failure: more trials crashed than `max_failure_rate` allows.
        """
        unrecorded = [(tuner, asks) for tuner in self.tuners for asks in tuner.whole_rounds(self._unrecorded(tuner))]
        if unrecorded:
            display.round(0)
            self._run_jobs(unrecorded, display)
        while rounds := self._ask_rounds():
            display.round(len(self.tuners) - len(rounds))
            untold = [(tuner, self._tell_recorded(tuner, asks)) for tuner, asks in rounds]
            work = [(tuner, round_asks) for tuner, asks in untold for round_asks in tuner.whole_rounds(asks)]
            self._run_jobs(work, display)
        display.cells_done = len(self.tuners)

    def _ask_rounds(self) -> list[tuple[Tuner, list[Ask]]]:
        """Asks Optuna for the next round of each cell. Cells that have all their trials are left out."""
        rounds = []
        for tuner in self.tuners:
            with self.watch.phase("asking"), uninterrupted():
                asks = tuner.next_round()
            if asks:
                rounds.append((tuner, asks))
        return rounds

    def _unrecorded(self, tuner: Tuner) -> list[Ask]:
        """Returns the trials that Optuna holds as complete and MLflow does not hold. They are trained again and recorded."""
        complete = tuner.complete()
        return [Ask(number, params) for number, params in complete.items() if _key(tuner.cell.id, params) not in self.recorded]

    def _tell_recorded(self, tuner: Tuner, asks: list[Ask]) -> list[Ask]:
        """Tells Optuna the objectives that MLflow recorded before a kill, and returns the trials without a record."""
        untold = []
        for ask in asks:
            record = self.recorded.get(_key(tuner.cell.id, ask.params))
            if record is None:
                untold.append(ask)
            else:
                with uninterrupted():
                    tuner.tell(ask.number, mean_objective(record.objectives))
        return untold

    def _run_jobs(self, work: list[tuple[Tuner, list[Ask]]], display: Display) -> None:
        """Launches jobs, `n_jobs` at a time, and records their outcomes.

        Cells that train quickly share a job; otherwise composing the jobs would take most of the time.
        """
        waiting = list(work)
        while waiting:
            jobs = [job for _ in range(self.setup.n_jobs) if (job := self._next_job(waiting))]
            started, start = time.time(), time.perf_counter()
            returned = self.launch([[Share(t.cell, tuple(a.params for a in asks)) for t, asks in job] for job in jobs])
            wall_seconds = time.perf_counter() - start
            training_seconds = 0.0
            with self.watch.phase("recording"):
                for job, outcomes in zip(jobs, returned, strict=True):
                    if isinstance(outcomes, str):
                        outcomes = [Outcome([], outcomes, 0.0)] * len(job)
                    for (tuner, asks), outcome in zip(job, outcomes, strict=True):
                        self._record_outcome(tuner, asks, outcome, started, display)
                        training_seconds += outcome.seconds
            self.cell_seconds = max(training_seconds / sum(len(job) for job in jobs), 1e-3)
            self.watch.add("training", min(training_seconds, wall_seconds))
            self.watch.add("composing and launching", max(wall_seconds - training_seconds, 0.0))

    def _next_job(self, waiting: list[tuple[Tuner, list[Ask]]]) -> list[tuple[Tuner, list[Ask]]]:
        """Removes the cells of one job from `waiting` and returns them.

        The cells of a job have the same Hydra overrides, and together take about JOB_SECONDS. No job gets more than an
        equal share of the waiting cells, so that all `n_jobs` jobs have work.
        """
        if not waiting:
            return []
        equal_share = max(1, len(waiting) // self.setup.n_jobs)
        most = min(equal_share, max(1, int(JOB_SECONDS / self.cell_seconds)))
        job = [pair for pair in waiting if pair[0].cell.overrides == waiting[0][0].cell.overrides][:most]
        for pair in job:
            waiting.remove(pair)
        return job

    def _record_outcome(self, tuner: Tuner, asks: list[Ask], outcome: Outcome, started: float, display: Display) -> None:
        """Records the trials of one share that MLflow does not hold yet, and tells Optuna those that it waits for."""
        complete = set(tuner.complete())
        missing = [ask for ask in asks if _key(tuner.cell.id, ask.params) not in self.recorded]
        new = [ask for ask in missing if ask.number not in complete]
        if outcome.crash is not None:
            self._record_crash(tuner, missing, new, outcome.crash)
            display.job(tuner.cell.label, 0, 0, 0, len(missing))
            return
        colour = self.palette[int(tuner.cell.config["batch_size"])]
        results = [result for ask, result in zip(asks, outcome.results, strict=True) if ask in missing]
        for ask, result in zip(missing, results, strict=True):
            with uninterrupted():
                self.store.record_trial(self.study, tuner.cell, ask.number, asks[0].number, ask.params, result, started, colour)
                self.new_records.append(trial_record(tuner.cell.id, ask.number, asks[0].number, ask.params, result))
                if ask in new:
                    tuner.tell(ask.number, result.objective)
        diverged = [flag for result in results for flag in result.diverged]
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


def _key(cell: str, params: Mapping[str, float]) -> Key:
    return cell, frozenset(params.items())
