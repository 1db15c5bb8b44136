"""The samplers that choose hyperparameters: the ladder, whose points are given, and those of Optuna."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from lrscale.errors import Refusal
from lrscale.rules import BOOLEAN, check
from lrscale.study.plan import Cell, Plan


class Given(BaseSampler):
    """An Optuna sampler that returns a point that was chosen elsewhere."""

    def __init__(self, point: Mapping[str, float]) -> None:
        self.point = point

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        return {}

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> Any:
        return self.point[param_name]


class EvenGrid(optuna.samplers.GridSampler):
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
    "grid": EvenGrid,
}
AT_ONCE = ("qmc", "random", "grid")
"""Samplers that do not learn from objectives: all their trials are asked in one round."""


def start_up(n_trials: int) -> int:
    """Returns how many of a cell's trials are random draws before tpe learns: a third, at least 2 and at most Optuna's 10.

    Example:
      >>> start_up(6), start_up(16), start_up(64)
      (2, 5, 10)
    """
    return min(max(n_trials // 3, 2), 10)


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
        if unknown := [key for key in options if key != "widen"]:
            raise Refusal(f"`hydra.sweeper.sampler` ladder has no option but widen, got {', '.join(unknown)}. Leave it out.")
        check("hydra.sweeper.sampler.widen", BOOLEAN, options.get("widen", False))
        if [*plan.intervals] not in (["optimizer.lr"], []) or not all(i.log for i in plan.intervals.values()):
            raise Refusal(
                "`hydra.sweeper.sampler` ladder tunes optimizer.lr alone, on a log scale, got intervals for "
                f"{', '.join(plan.intervals)}. Take sampler=tpe, or optimizer.lr='tag(log,interval(1e-4,1))'."
            )
        return Given({})  # the points of the ladder are given
    if name not in SAMPLERS:
        known = ", ".join(["ladder", *SAMPLERS])
        raise Refusal(f"`hydra.sweeper.sampler` must be one of {known}, got {name!r:.60}. Take hydra.sweeper.sampler=ladder.")
    if name == "grid":
        return EvenGrid(_grid(plan, cell), seed=0, **options)
    options.setdefault("seed", int(hashlib.sha256(f"{cell.id} {index}".encode()).hexdigest()[:8], 16))
    if name == "tpe":
        options.setdefault("n_startup_trials", start_up(plan.n_trials))
    try:
        sampler: BaseSampler = SAMPLERS[name](**options)
        return sampler
    except (TypeError, ValueError) as error:
        raise Refusal(f"`hydra.sweeper.sampler` {name} does not take these options, got {options}: {error}") from None


def _grid(plan: Plan, cell: Cell) -> dict[str, list[float]]:
    """Returns an even grid over d intervals: n points in each, where n is the largest number with n^d <= n_trials."""
    points = max(1, round(plan.n_trials ** (1 / max(1, len(plan.intervals))) - 0.499))
    grid = {}
    for name in plan.intervals:
        i = plan.interval_of(cell, name)
        grid[name] = (np.geomspace if i.log else np.linspace)(i.low, i.high, points).clip(i.low, i.high).tolist()
    return grid
