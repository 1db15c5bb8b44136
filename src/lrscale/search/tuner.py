"""Optuna's door: asks it for the trials of one cell, a round at a time, and tells it what came out.

Every cell is an Optuna study of its own. A study that was interrupted goes on as if it had not been:
trials left RUNNING are run again under their own numbers, a round that was being asked is asked to its
end, and every draw of a sampler is seeded by the cell and the trial's number.
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
"""Attribute of a cell's study: the first trial's number of each round, and the number after its last."""


class Ask(NamedTuple):
    """A trial to be run: its number in the cell, and the hyperparameters tuned."""

    number: int
    params: dict[str, float]


class LadderSampler(BaseSampler):
    """Asks for lrs as `lrscale.search.ladder` says; an Optuna sampler for one hyperparameter on a log scale."""

    def __init__(self, interval: TunedInterval, n_trials: int) -> None:
        self.interval, self.n_trials = interval, n_trials

    def rungs(self, study: Study) -> list[int]:
        """Lattice places of the round that follows what is complete."""
        done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        tried = {place_of(next(iter(t.params.values()))): t.value if t.value is not None else math.inf for t in done}
        if not tried:
            return first_rungs(self.interval.low, self.interval.high, self.n_trials)
        return next_rungs(tried, max(1, self.n_trials - len(done)))

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        return {}

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> Any:
        asked = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        taken = {place_of(t.params[param_name]) for t in asked if param_name in t.params}
        rungs = self.rungs(study)
        return lr_at(next((k for k in rungs if k not in taken), rungs[-1]))


class _Grid(optuna.samplers.GridSampler):
    """Optuna's grid, which would otherwise stop the study by itself when it is exhausted, and cannot outside `optimize`."""

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
"""Samplers that do not learn: their trials are asked in one round."""


class Tuner:
    """One cell's Optuna study."""

    def __init__(self, plan: Plan, cell: Cell, storage: BaseStorage) -> None:
        self.plan, self.cell = plan, cell
        name = study_name(plan.study, cell.label, cell.id)
        self.study = optuna.create_study(storage=storage, study_name=name, direction="minimize", load_if_exists=True)
        widest = 2.0**WIDENING if plan.sampler["name"] == "ladder" else 1.0
        self.space: dict[str, BaseDistribution] = {
            key: FloatDistribution(i.low / widest, i.high * widest, log=i.log) for key, i in plan.intervals.items()
        }
        for trial in self._trials(TrialState.RUNNING):
            if set(trial.params) != set(self.space):  # killed while it was asked: it never ran, and is asked anew
                self.study.tell(trial.number, state=TrialState.FAIL)
                *before, (start, end) = self._rounds()
                self.study.set_user_attr(ROUNDS, [*before, (start, end + 1)])
        self.failed_before = len(self._trials(TrialState.FAIL))

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=states or None)

    def held(self) -> int:
        """Trials that count towards n_trials: complete ones, and those that failed in this execution."""
        return len(self._trials(TrialState.COMPLETE)) + len(self._trials(TrialState.FAIL)) - self.failed_before

    def complete(self) -> dict[int, dict[str, float]]:
        """Hyperparameters of the complete trials, by number."""
        return {trial.number: dict(trial.params) for trial in self._trials(TrialState.COMPLETE)}

    def every(self) -> dict[int, dict[str, float]]:
        """Hyperparameters of the trials that are complete or running, by number."""
        return {trial.number: dict(trial.params) for trial in self._trials(TrialState.COMPLETE, TrialState.RUNNING)}

    def next_round(self) -> list[Ask]:
        """Asks the next round, or goes on with the open one; empty where the cell has all its trials."""
        present, running = len(self._trials()), self._trials(TrialState.RUNNING)
        end = self._rounds()[-1][1] if self._rounds() else 0
        if present >= end and not running:
            if self.held() >= self.plan.n_trials:
                return []
            end = present + self._round_size()
            self.study.set_user_attr(ROUNDS, [*self._rounds(), (present, end)])  # first: a killed round is asked to its end
        for _ in range(present, end):
            self.study.sampler = make_sampler(self.plan, self.cell, present - len(self._trials(TrialState.FAIL)))
            self.study.ask(self.space)
            present += 1
        return [Ask(trial.number, dict(trial.params)) for trial in self._trials(TrialState.RUNNING)]

    def _rounds(self) -> list[tuple[int, int]]:
        return [(start, end) for start, end in self.study.user_attrs.get(ROUNDS, [])]

    def whole_rounds(self, asks: Sequence[Ask]) -> list[list[Ask]]:
        """The rounds that hold these trials, with all their trials.

        A trial is always trained together with its round, whatever of that is known already: products of other
        shapes would round differently.
        """
        numbers, every = {ask.number for ask in asks}, self.every()
        found = [[n for n in every if start <= n < end] for start, end in self._rounds()]
        return [[Ask(n, every[n]) for n in sorted(held)] for held in found if numbers.intersection(held)]

    def _round_size(self) -> int:
        missing = self.plan.n_trials - self.held()
        sampler = make_sampler(self.plan, self.cell, 0)
        if isinstance(sampler, LadderSampler):
            return min(missing, len(sampler.rungs(self.study)))
        learns = self.plan.sampler["name"] not in AT_ONCE and self.space
        return min(missing, math.ceil(self.plan.n_trials / 4)) if learns else missing

    def tell(self, number: int, objective: float) -> None:
        """Completes a trial; an objective of inf is a value like any other."""
        self.study.tell(number, objective)

    def fail(self, number: int) -> None:
        """Marks a trial as crashed."""
        self.study.tell(number, state=TrialState.FAIL)

    def add(self, params: Mapping[str, float], objective: float) -> int:
        """Adds a trial that was recorded elsewhere, and returns its number."""
        trial = optuna.create_trial(params=dict(params), distributions=self.space, value=objective)
        self.study.add_trial(trial)
        return len(self._trials()) - 1


def make_sampler(plan: Plan, cell: Cell, place: int) -> BaseSampler:
    """Makes the sampler for a cell's trial at `place`; its seed depends on the two alone.

    Raises:
      Refusal: the name or an option is unknown.
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
    options.setdefault("seed", int(hashlib.sha256(f"{cell.id} {place}".encode()).hexdigest()[:8], 16))
    try:
        sampler: BaseSampler = SAMPLERS[name](**options)
        return sampler
    except (TypeError, ValueError) as error:
        raise Refusal(f"`hydra.sweeper.sampler` {name} does not take these options, got {options}: {error}") from None


def _grid(plan: Plan) -> dict[str, list[float]]:
    """An even grid over the intervals, with n_trials points or the next power below."""
    points = max(1, round(plan.n_trials ** (1 / max(1, len(plan.intervals))) - 0.499))
    spaced = {}
    for name, i in plan.intervals.items():
        spaced[name] = (np.geomspace if i.log else np.linspace)(i.low, i.high, points).clip(i.low, i.high).tolist()
    return spaced


def cell_studies(url: str, study: str, cells: Sequence[tuple[str, str]]) -> list[Study]:
    """The Optuna studies of a study's cells, by label and id, that are in a storage."""
    storage = open_storage(url)
    known = set(optuna.get_all_study_names(storage))
    names = [study_name(study, label, cell) for label, cell in cells]
    return [optuna.load_study(study_name=name, storage=storage) for name in names if name in known]


def check_storage(url: str) -> None:
    """Raises Refusal, before anything is written, where a storage cannot be at that place."""
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
    """The file of a storage; None where it is a database server."""
    path = url.removeprefix("sqlite:///")
    return None if "://" in path else Path(path)


def open_storage(url: str) -> BaseStorage:
    """Opens Optuna's storage: a database URL, or the path of a journal file.

    Raises:
      Refusal: it cannot be opened.
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
