"""Asks Optuna for the trials of one cell, one round at a time, and tells it the objectives.

Every cell is an Optuna study of its own. An interrupted study continues as if it had not been interrupted. Trials
that are still RUNNING are run again under the same numbers. A round that was only partly asked is completed. Every
draw of a sampler is seeded by the cell and the trial's number.
"""

import hashlib
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, JournalStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from lrscale.errors import Refusal
from lrscale.files import can_write
from lrscale.search.journal import Journal
from lrscale.search.ladder import WIDENING, first_rungs, lr_at, next_rungs, place_of
from lrscale.study.plan import Cell, Plan, TunedInterval, study_name

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
ROUNDS = "lrscale:rounds"
"""Attribute of a cell's Optuna study. For each round it holds the number of its first trial, and one more than its last."""


class Ask(NamedTuple):
    """A trial that is to be run: its number in the cell, and its tuned hyperparameters."""

    number: int
    params: dict[str, float]


class LadderSampler(BaseSampler):
    """An Optuna sampler that takes lrs from `lrscale.search.ladder`: one hyperparameter, on a log scale."""

    def __init__(self, interval: TunedInterval, n_trials: int) -> None:
        self.interval, self.n_trials = interval, n_trials

    def rungs(self, study: Study) -> list[int]:
        """Returns the lattice points of the round that follows the complete trials, by index."""
        done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        tried = {place_of(next(iter(t.params.values()))): [math.inf if t.value is None else t.value] for t in done}
        if not tried:
            return first_rungs(self.interval.low, self.interval.high, self.n_trials)
        return next_rungs([tried], max(1, self.n_trials - len(done)), self.interval.low, self.interval.high)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        return {}

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> Any:
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        taken = {place_of(t.params[param_name]) for t in running if param_name in t.params}
        rungs = self.rungs(study)
        return lr_at(next((k for k in rungs if k not in taken), rungs[-1]))


class _Grid(optuna.samplers.GridSampler):
    """Optuna's grid sampler without its `after_trial`.

    That method stops the study when the grid is exhausted, which is an error outside of `optimize`.
    """

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        pass


SAMPLERS = {
    "tpe": optuna.samplers.TPESampler,
    "gp": optuna.samplers.GPSampler,
    "qmc": optuna.samplers.QMCSampler,
    "random": optuna.samplers.RandomSampler,
    "grid": _Grid,
}
AT_ONCE = ("qmc", "random", "grid")
"""Samplers that do not learn from objectives: all their trials are asked in one round."""


class Tuner:
    """The Optuna study of one cell."""

    def __init__(self, plan: Plan, cell: Cell, storage: BaseStorage) -> None:
        """Opens the Optuna study of a cell; creates it where there is none.

        Args:
          plan: the plan of the study.
          cell: one cell of the plan.
          storage: Optuna's storage.
        """
        self.plan, self.cell = plan, cell
        name = study_name(plan.study, cell.label, cell.id)
        self.study = optuna.create_study(storage=storage, study_name=name, direction="minimize", load_if_exists=True)
        widest = 2.0**WIDENING if plan.sampler["name"] == "ladder" else 1.0
        self.space: dict[str, BaseDistribution] = {
            key: FloatDistribution(i.low / widest, i.high * widest, log=i.log) for key, i in plan.intervals.items()
        }
        for trial in self._trials(TrialState.RUNNING):
            if set(trial.params) != set(self.space):  # killed while being asked: it never ran, so it is asked again
                self.study.tell(trial.number, state=TrialState.FAIL)
                *before, (start, end) = self._rounds()
                self.study.set_user_attr(ROUNDS, [*before, (start, end + 1)])
        self.failed_before = len(self._trials(TrialState.FAIL))

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=states or None)

    def held(self) -> int:
        """Returns how many trials count towards n_trials: complete ones, and those that failed in this execution."""
        return len(self._trials(TrialState.COMPLETE)) + len(self._trials(TrialState.FAIL)) - self.failed_before

    def complete(self) -> dict[int, dict[str, float]]:
        """Returns the tuned hyperparameters of the complete trials, by number."""
        return {trial.number: dict(trial.params) for trial in self._trials(TrialState.COMPLETE)}

    def every(self) -> dict[int, dict[str, float]]:
        """Returns the tuned hyperparameters of the trials that are complete or running, by number."""
        return {trial.number: dict(trial.params) for trial in self._trials(TrialState.COMPLETE, TrialState.RUNNING)}

    def next_round(self) -> list[Ask]:
        """Asks Optuna for the next round, or completes the open round.

        Returns:
          The running trials; empty where the cell has all its trials.
        """
        present, running = len(self._trials()), self._trials(TrialState.RUNNING)
        end = self._rounds()[-1][1] if self._rounds() else 0
        if present >= end and not running:
            if self.held() >= self.plan.n_trials:
                return []
            end = present + self._round_size()
            self.study.set_user_attr(
                ROUNDS, [*self._rounds(), (present, end)]
            )  # written first, so that a killed round is completed
        for _ in range(present, end):
            self.study.sampler = make_sampler(self.plan, self.cell, present - len(self._trials(TrialState.FAIL)))
            self.study.ask(self.space)
            present += 1
        return [Ask(trial.number, dict(trial.params)) for trial in self._trials(TrialState.RUNNING)]

    def _rounds(self) -> list[tuple[int, int]]:
        return [(start, end) for start, end in self.study.user_attrs.get(ROUNDS, [])]

    def whole_rounds(self, asks: Sequence[Ask]) -> list[list[Ask]]:
        """Returns the rounds of these trials, each with all its trials.

        A trial is always trained together with its whole round, even where other trials of the round are recorded
        already. Products of other shapes would be rounded differently.
        """
        numbers, params = {ask.number for ask in asks}, self.every()
        rounds = [[n for n in params if start <= n < end] for start, end in self._rounds()]
        return [[Ask(n, params[n]) for n in sorted(members)] for members in rounds if numbers.intersection(members)]

    def _round_size(self) -> int:
        missing = self.plan.n_trials - self.held()
        sampler = make_sampler(self.plan, self.cell, 0)
        if isinstance(sampler, LadderSampler):
            return min(missing, len(sampler.rungs(self.study)))
        learns = self.plan.sampler["name"] not in AT_ONCE and self.space
        return min(missing, math.ceil(self.plan.n_trials / 4)) if learns else missing

    def tell(self, number: int, objective: float) -> None:
        """Completes a trial with its objective. An objective of inf (a run diverged) is allowed."""
        self.study.tell(number, objective)

    def fail(self, number: int) -> None:
        """Marks a trial as crashed."""
        self.study.tell(number, state=TrialState.FAIL)

    def add(self, params: Mapping[str, float], objective: float) -> int:
        """Adds a complete trial that MLflow has and Optuna lacks, and returns its number."""
        trial = optuna.create_trial(params=dict(params), distributions=self.space, value=objective)
        self.study.add_trial(trial)
        return len(self._trials()) - 1


def make_sampler(plan: Plan, cell: Cell, index: int) -> BaseSampler:
    """Returns the sampler for one trial of a cell.

    Its seed depends only on the cell and the trial's index, unless the plan's sampler has a seed.

    Args:
      plan: the plan of the study; it names the sampler and its options.
      cell: one cell of the plan.
      index: the number of trials that the cell has so far, without failed ones.

    Raises:
      Refusal: the name or an option is unknown, or the ladder is to tune something other than an lr on a log scale.
    """
    options = {key: value for key, value in plan.sampler.items() if key != "name"}
    name = plan.sampler.get("name")
    if name == "ladder":
        if options:
            raise Refusal(f"`hydra.sweeper.sampler` ladder has no options, got {', '.join(options)}. Leave them out.")
        if [*plan.intervals] not in (["optimizer.lr"], []) or not all(i.log for i in plan.intervals.values()):
            raise Refusal(
                "`hydra.sweeper.sampler` ladder tunes optimizer.lr alone, on a log scale, got intervals for "
                f"{', '.join(plan.intervals)}. Take sampler=tpe, or optimizer.lr='tag(log,interval(1e-4,1))'."
            )
        interval = plan.intervals.get("optimizer.lr")
        return LadderSampler(interval, plan.n_trials) if interval else optuna.samplers.RandomSampler(0)
    if name not in SAMPLERS:
        known = ", ".join(["ladder", *SAMPLERS])
        raise Refusal(f"`hydra.sweeper.sampler` must be one of {known}, got {name!r:.60}. Take hydra.sweeper.sampler=ladder.")
    if name == "grid":
        return _Grid(_grid(plan), seed=0, **options)
    options.setdefault("seed", int(hashlib.sha256(f"{cell.id} {index}".encode()).hexdigest()[:8], 16))
    try:
        sampler: BaseSampler = SAMPLERS[name](**options)
        return sampler
    except (TypeError, ValueError) as error:
        raise Refusal(f"`hydra.sweeper.sampler` {name} does not take these options, got {options}: {error}") from None


def _grid(plan: Plan) -> dict[str, list[float]]:
    """Returns an even grid over d intervals: n points in each, where n is the largest number with n^d <= n_trials."""
    points = max(1, round(plan.n_trials ** (1 / max(1, len(plan.intervals))) - 0.499))
    grid = {}
    for name, i in plan.intervals.items():
        grid[name] = (np.geomspace if i.log else np.linspace)(i.low, i.high, points).clip(i.low, i.high).tolist()
    return grid


def cell_studies(url: str, study: str, cells: Sequence[tuple[str, str]]) -> list[Study]:
    """Returns the Optuna studies of a study's cells, as far as a storage has them.

    Args:
      url: the URL of Optuna's storage, or the path of its journal.
      study: the name of the study.
      cells: the label and the id of each cell.

    Raises:
      Refusal: the storage cannot be opened.
    """
    storage = open_storage(url)
    known = set(optuna.get_all_study_names(storage))
    names = [study_name(study, label, cell) for label, cell in cells]
    return [optuna.load_study(study_name=name, storage=storage) for name in names if name in known]


def check_storage(url: str) -> None:
    """Raises Refusal where a storage cannot be opened at a URL. It is called before a study writes anything.

    Args:
      url: the URL of Optuna's storage, or the path of its journal.

    Raises:
      Refusal: the URL has another scheme, the database does not answer, or the folder cannot be written.
    """
    file = storage_file(url)
    if file is None:
        if not url.startswith(("postgresql", "mysql")):  # Optuna keeps pickles in redis
            raise Refusal(f"`hydra.sweeper.storage` must be a file, or a postgresql:// or mysql:// database, got {url}.")
        open_storage(url)  # connects to a database server
        return
    folder = file.resolve().parent
    if file.is_dir() or not folder.is_dir() or not can_write(folder):
        raise Refusal(f"`hydra.sweeper.storage` must be a file in a folder that can be written, got {url}. Make {folder} first.")


def storage_file(url: str) -> Path | None:
    """Returns the file of a storage; None where the storage is a database server."""
    path = url.removeprefix("sqlite:///")
    return None if "://" in path else Path(path)


def open_storage(url: str) -> BaseStorage:
    """Opens Optuna's storage.

    Args:
      url: the URL of a database, or the path of a journal file.

    Raises:
      Refusal: the storage cannot be opened.
    """
    try:
        if "://" in url:
            return optuna.storages.get_storage(url)
        return JournalStorage(Journal(url))
    except Refusal:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Refusal(
            f"`hydra.sweeper.storage` must be a journal file or a database that can be opened, got {url}: {reason}"
        ) from None
