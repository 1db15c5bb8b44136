"""Asks Optuna for the trials of one cell, and tells it the objectives.

Every cell is an Optuna study of its own. Trials are asked in rounds, which `lrscale.search.twin_tuner` chooses. An
interrupted study continues as if it had not been interrupted. Trials that are still RUNNING are run again under the same
numbers. A round that was only partly asked is completed. Every draw of a sampler is seeded by the cell and the trial's
number.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from lrscale.search.ladder import WIDENING
from lrscale.search.samplers import Given, make_sampler
from lrscale.study.plan import Cell, Plan
from lrscale.study.records import TrialRecord
from lrscale.study.settings import LEEWAY, asked_for, question_of
from lrscale.training.results import mean_objective

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
ROUNDS = "lrscale:rounds"
"""Attribute of a cell's Optuna study. For each round it holds the number of its first trial, one more than that of its last
trial, and the points that are to be tried, where they are given."""
Params = Mapping[str, float]
"""Tuned hyperparameters by dotted key."""
PointKey = tuple[tuple[str, str], ...]
"""Tuned hyperparameters as a key of dictionaries: in the units of the cell's reference, and equal where only rounding differs."""


class Ask(NamedTuple):
    """A trial that is to be run: its number in the cell, and its tuned hyperparameters."""

    number: int
    params: dict[str, float]


class Tuner:
    """The Optuna study of one cell. `objectives` holds the objectives of each seed at the points that are known."""

    def __init__(self, plan: Plan, cell: Cell, storage: BaseStorage) -> None:
        """Opens the Optuna study of a cell; creates it where there is none.

        Args:
          plan: the plan of the study.
          cell: one cell of the plan.
          storage: Optuna's storage.
        """
        self.plan, self.cell = plan, cell
        self.objectives: dict[PointKey, Sequence[float]] = {}
        self.study = optuna.create_study(
            storage=storage, study_name=plan.optuna_name(cell), direction="minimize", load_if_exists=True
        )
        self.space: dict[str, BaseDistribution] = {}
        for key in plan.intervals:
            low, high, log = (i := plan.interval_of(cell, key)).low, i.high, i.log
            widest = 2.0**WIDENING if plan.sampler.get("widen") else 1 + LEEWAY if cell.twin else 1.0
            self.space[key] = FloatDistribution(low / widest if log else low, high * widest, log=log)
        for trial in self._trials(TrialState.RUNNING):
            if set(trial.params) != set(self.space):  # killed while being asked: it never ran, so it is asked again
                self.study.tell(trial.number, state=TrialState.FAIL)
                *before, (start, end, points) = self._rounds()
                self._set_rounds([*before, (start, end + 1, points)])
        self.failed_before = len(self._trials(TrialState.FAIL))
        self._finish_asking()

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=states or None)

    def point(self, params: Params) -> PointKey:
        """Returns the point of tuned hyperparameters of this cell."""
        return tuple((key, f"{value / self.cell.factor(key):.9e}") for key, value in sorted(params.items()))

    def held(self) -> int:
        """Returns how many trials count towards n_trials: complete ones, and those that failed in this execution."""
        return len(self._trials(TrialState.COMPLETE)) + len(self._trials(TrialState.FAIL)) - self.failed_before

    def complete(self) -> dict[int, dict[str, float]]:
        """Returns the tuned hyperparameters of the complete trials, by number."""
        return {trial.number: dict(trial.params) for trial in self._trials(TrialState.COMPLETE)}

    def every(self) -> dict[int, dict[str, float]]:
        """Returns the tuned hyperparameters of the trials that are complete or running, by number."""
        return {trial.number: dict(trial.params) for trial in self._trials(TrialState.COMPLETE, TrialState.RUNNING)}

    def tried(self) -> dict[PointKey, dict[str, float]]:
        """Returns the points that are complete or running, or failed in this execution, with their hyperparameters."""
        failed = self._trials(TrialState.FAIL)[self.failed_before :]
        params = [*self.every().values(), *(dict(trial.params) for trial in failed)]
        return {self.point(each): each for each in params}

    def running(self) -> list[Ask]:
        """Returns the trials that are to be run."""
        return [Ask(trial.number, dict(trial.params)) for trial in self._trials(TrialState.RUNNING)]

    def rounds(self) -> list[list[Ask]]:
        """Returns the trials of each round, complete or running."""
        params = self.every()
        return [[Ask(n, params[n]) for n in range(start, end) if n in params] for start, end, _ in self._rounds()]

    def start_round(self, trials: int | Sequence[Params]) -> None:
        """Asks for a round.

        Args:
          trials: the hyperparameters of each trial, or how many trials the plan's sampler is to choose.
        """
        present = len(self._trials())
        size, points = (trials, None) if isinstance(trials, int) else (len(trials), [dict(point) for point in trials])
        self._set_rounds([*self._rounds(), (present, present + size, points)])  # first, so that a killed round is completed
        self._finish_asking()

    def _finish_asking(self) -> None:
        """Asks for the trials of the last round that have not been asked."""
        if not self._rounds():
            return
        start, end, points = self._rounds()[-1]
        trials = self._trials()
        asked = [self.point(trial.params) for trial in trials[start:end]]
        wanted = [params for params in points or [] if self.point(params) not in asked]
        for present in range(len(trials), end):
            failed = len(self._trials(TrialState.FAIL))
            self.study.sampler = make_sampler(self.plan, self.cell, present - failed) if points is None else Given(wanted.pop(0))
            self.study.ask(self.space)

    def _rounds(self) -> list[tuple[int, int, list[dict[str, float]] | None]]:
        return [(start, end, points) for start, end, points in self.study.user_attrs.get(ROUNDS, [])]

    def _set_rounds(self, rounds: Sequence[tuple[int, int, list[dict[str, float]] | None]]) -> None:
        self.study.set_user_attr(ROUNDS, rounds)

    def learn(self, params: Params, objectives: Sequence[float]) -> None:
        """Keeps the objectives of each seed at a point, which the ladder needs."""
        self.objectives[self.point(params)] = objectives

    def tell(self, number: int, objectives: Sequence[float]) -> None:
        """Completes a trial with the objectives of its seeds. An objective of inf (a run diverged) is allowed."""
        self.study.tell(number, mean_objective(tuple(objectives)))

    def fail(self, number: int) -> None:
        """Marks a trial as crashed."""
        self.study.tell(number, state=TrialState.FAIL)

    def adopt(self, used: Sequence[TrialRecord]) -> None:
        """Adds the complete trials that MLflow has and Optuna lacks, and keeps the objectives of all.

        An Optuna study without trials first gets those that were asked as now, under their own numbers, and then the
        others, all in their own rounds.

        Args:
          used: the recorded trials of the cell, sorted by number.
        """
        for trial in used:
            self.learn(trial.params, trial.objectives)
        if self._trials():
            known = {self.point(params) for params in self.every().values()}
            for trial in used:
                if self.point(trial.params) not in known:
                    self._add(trial)
            return
        now = question_of(asked_for(self.plan, self.cell))
        rounds: list[tuple[int, int, None]] = []
        before: tuple[str, int | None] | None = None
        for trial in sorted(used, key=lambda trial: (question_of(trial.settings) != now, question_of(trial.settings))):
            of = (question_of(trial.settings), trial.together)
            while of[0] == now and len(self._trials()) < trial.number:  # numbers of trials that crashed
                self.study.add_trial(optuna.create_trial(state=TrialState.FAIL))
            number = len(self._trials())
            start = rounds.pop()[0] if of == before else number
            rounds, before = [*rounds, (start, number + 1, None)], of
            self._add(trial)
        if rounds:
            self._set_rounds(rounds)
        self.failed_before = len(self._trials(TrialState.FAIL))

    def _add(self, trial: TrialRecord) -> None:
        space: dict[str, BaseDistribution] = {}
        for key, i in ((key, self.plan.interval_of(self.cell, key)) for key in self.space):
            value = trial.params[key]
            space[key] = FloatDistribution(min(i.low, value), max(i.high, value), log=i.log)
        value = mean_objective(trial.objectives)
        self.study.add_trial(optuna.create_trial(params=dict(trial.params), distributions=space, value=value))
