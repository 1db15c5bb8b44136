"""Records what jobs returned: each trial in MLflow, then in Optuna; and knows the trials that the stores hold already."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from lrscale.errors import Failure
from lrscale.report.figures.palette import colours
from lrscale.run.job import Outcome
from lrscale.run.progress import Display
from lrscale.search.tuner import Ask, Tuner
from lrscale.search.twin_tuner import TwinTuner
from lrscale.study.plan import exact_label
from lrscale.study.records import StudyRecord, TrialRecord, trial_record
from lrscale.study.settings import remarks_on_trials, settings_of, sort_trials
from lrscale.system import uninterrupted
from lrscale.tracking.store import Store
from lrscale.training.results import Result, same_run

Key = tuple[str, frozenset[tuple[str, float]]]
"""Identifies a trial in both stores: the id of its cell, and its tuned hyperparameters with their values."""


class Work(NamedTuple):
    """A round of one cell that is to be trained, with the tuners that record it: the cell's own, and its same runs'.

    `group` holds the cell's twins.
    """

    group: TwinTuner
    tuner: Tuner
    asks: list[Ask]
    recording: list[Tuner]


class Recorder:
    """Writes the trials of one study to its stores. It starts from the trials that they hold."""

    def __init__(self, store: Store, study: StudyRecord, tuners: list[Tuner], max_failure_rate: float) -> None:
        """Deletes half-written trials from MLflow, and adds to Optuna the trials that only MLflow holds.

        `remarks` says which recorded trials were made otherwise, and what becomes of them.

        Args:
          store: the MLflow store.
          study: the record of the study, with its plan.
          tuners: the tuners of all cells of the plan.
          max_failure_rate: the largest share of the study's trials that may crash, from 0 to 1.
        """
        self.store, self.study, self.plan = store, study, study.plan
        self.max_failure_rate, self.most_trials = max_failure_rate, study.plan.n_trials * len(tuners)
        self.crashed = 0
        self.palette = colours([int(cell.config["batch_size"]) for cell in study.plan.cells])
        store.drop_unfinished(study.experiment_id, but=study.run_id)
        trials = store.trials(study.experiment_id)
        self.remarks = remarks_on_trials(study, trials)
        used = sort_trials(self.plan, trials).used
        self.recorded: dict[Key, TrialRecord] = {_key(record.cell, record.params): record for record in used}
        by_cell: dict[str, list[TrialRecord]] = {cell.id: [] for cell in self.plan.cells}
        for record in sorted(self.recorded.values(), key=lambda record: record.number):
            by_cell[record.cell].append(record)
        for tuner in tuners:
            with uninterrupted():
                tuner.adopt(by_cell[tuner.cell.id])
            self.tell_recorded(tuner)  # before the trials are counted

    def unrecorded(self, tuner: Tuner) -> list[Ask]:
        """Returns the trials that Optuna holds as complete and MLflow does not hold. They are trained again and recorded."""
        complete = tuner.complete()
        return [Ask(number, params) for number, params in complete.items() if _key(tuner.cell.id, params) not in self.recorded]

    def tell_recorded(self, tuner: Tuner) -> list[Ask]:
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

    def record(self, work: Work, tuner: Tuner, outcome: Outcome, started: float, display: Display) -> Iterator[None]:
        """Records the trials of one cell that MLflow does not hold yet, and tells Optuna those that it waits for.

        Yields after each trial, so that the caller can do other things between them.

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
            self.store.make_room()
            with uninterrupted():
                self.store.record_trial(
                    self.study, tuner.cell, ask.number, together, ask.params, result, started, colour, same_as
                )
                record = trial_record(tuner.cell.id, ask.number, together, ask.params, result, settings)
                self.recorded[_key(tuner.cell.id, ask.params)] = record
                tuner.learn(ask.params, result.objectives)
                if ask in new:
                    tuner.tell(ask.number, result.objectives)
            yield
        display.job(tuner.cell.label, len(diverged), sum(diverged), len(new), 0)

    def _record_crash(self, tuner: Tuner, asks: list[Ask], new: list[Ask], crash: str) -> None:
        """Records trials as crashed; raises Failure once more have crashed than `max_failure_rate` allows."""
        for ask in asks:
            self.store.make_room()
            with uninterrupted():
                self.store.record_failure(self.study, tuner.cell, ask.params, crash)
                if ask in new:
                    tuner.fail(ask.number)
        self.crashed += len(asks)
        if self.crashed > self.max_failure_rate * self.most_trials:
            raise Failure(
                f"{self.crashed} trials crashed, more than hydra.sweeper.max_failure_rate={self.max_failure_rate} "
                f"allows. The last crash was in cell {tuner.cell.label}:\n{crash}"
            )


def _in_twin(result: Result, trained: Tuner, tuner: Tuner) -> Result:
    """Returns the result of a cell that is the same run as the cell that was trained."""
    twin = tuner.cell.twin
    return result if tuner is trained or twin is None else same_run(result, twin.r)


def _key(cell: str, params: Mapping[str, float]) -> Key:
    return cell, frozenset(params.items())
