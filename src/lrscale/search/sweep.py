"""The Optuna study of a sweep without roles: asks for trials, tells what they returned, and continues after a kill.

A trial is asked completely, or not at all: until all its parameters are drawn it has no attribute `DRAWN`. A trial that is
still RUNNING at the next start is run again under its number. A trial that failed is asked again at the next start.
"""

import hashlib
import inspect
import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from lrscale.errors import Refusal
from lrscale.search.samplers import EvenGrid
from lrscale.study.space import Choices, Parameter, Space, differences, holds, space_in_words

optuna.logging.set_verbosity(optuna.logging.ERROR)
DRAWN = "lrscale:asked"
"""Attribute of a trial whose parameters are all drawn."""
FIXED, SPACE, SAMPLER = "lrscale:fixed", "lrscale:space", "lrscale:sampler"
"""Attributes of the study: what the sweep does not vary, its search space, and its sampler."""
CLASSES: dict[str, type[BaseSampler]] = {
    "tpe": optuna.samplers.TPESampler,
    "gp": optuna.samplers.GPSampler,
    "qmc": optuna.samplers.QMCSampler,
    "random": optuna.samplers.RandomSampler,
    "grid": EvenGrid,
    "cmaes": optuna.samplers.CmaEsSampler,
    "nsgaii": optuna.samplers.NSGAIISampler,
    "nsgaiii": optuna.samplers.NSGAIIISampler,
}
SAME_SEED = ("qmc", "grid")
"""The samplers that count what they have drawn: all their trials have one seed. Others have a seed for each trial, so that a
sweep that is continued does not draw its first points again."""
LEARN_NOTHING = ("random", "qmc", "grid")
"""The samplers that draw the same points whatever earlier trials returned."""
Extend = Callable[[Trial], None]
"""A user's function that draws further parameters of a trial."""


class SweepTrial(NamedTuple):
    """A trial that is to be run: its number and its parameters, by the app's own keys."""

    number: int
    params: Mapping[str, Any]


class Sweep:
    """One Optuna study. `remarks` says what differs from earlier executions."""

    def __init__(
        self,
        name: str,
        storage: BaseStorage,
        space: Space,
        direction: Literal["minimize", "maximize"],
        sampler: Mapping[str, Any],
        fixed_config: Mapping[str, Any],
        fixed_values: Mapping[str, str],
        extend: Extend | None = None,
    ) -> None:
        """Opens the Optuna study; creates it where there is none.

        Args:
          name: the name of the study in Optuna.
          storage: Optuna's storage.
          space: the search space.
          direction: `minimize` or `maximize`.
          sampler: the name and the options of the sampler.
          fixed_config: what the sweep does not vary, by dotted keys.
          fixed_values: the overrides with one value; `extend` finds them as attributes of the trial.
          extend: draws further parameters.

        Raises:
          Refusal: the study was made with other settings, or the sampler or one of its options cannot be used.
        """
        self.name, self.space, self.direction, self.sampler = name, space, direction, dict(sampler)
        self.fixed_values, self.extend = dict(fixed_values), extend
        self._make_sampler(0)
        names = optuna.get_all_study_names(storage)
        if name in names:
            self.study = optuna.load_study(study_name=name, storage=storage)
        else:
            self.study = optuna.create_study(storage=storage, study_name=name, direction=direction)
        self.space = _in_recorded_order(space, self._trials(*TrialState))
        self.distributions = {key: _distribution(parameter) for key, parameter in self.space.items()}
        self.remarks = self._compare(json.loads(json.dumps(dict(fixed_config), default=str)))
        for trial in self._trials(TrialState.RUNNING):
            if DRAWN not in trial.user_attrs:  # killed while it was asked, or of another sweeper: it is not run here
                self.study.tell(trial.number, state=TrialState.FAIL)
        self.failed_before = len(self._trials(TrialState.FAIL))
        self._retry()

    def _compare(self, fixed: dict[str, Any]) -> list[str]:
        """Returns what differs from earlier executions, and keeps what is asked now.

        Raises:
          Refusal: the trials of the study cannot be compared with those that are asked now.
        """
        attributes = self.study.user_attrs
        if self.study.direction.name.lower() != self.direction:
            raise Refusal(
                f"`hydra.sweeper.direction` must be {self.study.direction.name.lower()}, as in the study {self.name}, got "
                f"{self.direction}. Take another hydra.sweeper.study_name."
            )
        changed = _moved(attributes, fixed, self.space) if FIXED in attributes else []
        if changed:
            shown = ", ".join(changed[:4]) + (f" and {len(changed) - 4} more" if len(changed) > 4 else "")
            count = len(self._trials(TrialState.COMPLETE))
            raise Refusal(
                f"`hydra.sweeper.study_name` {self.name} holds {count} trials of other settings: "
                f"{shown}. Put them back, or take another hydra.sweeper.study_name."
            )
        remarks = []
        space, sampler = space_in_words(self.space), json.loads(json.dumps(self.sampler))
        if SPACE in attributes and attributes[SPACE] != space:
            self._check_choices(attributes[SPACE])
            outside = len(self._trials(TrialState.COMPLETE)) - len(self.complete())
            left = f" {outside} trials lie outside it and do not count." if outside else " All trials lie inside it and count."
            remarks.append(f"The search space has changed: {'; '.join(differences(attributes[SPACE], space))}.{left}")
        if SAMPLER in attributes and attributes[SAMPLER] != sampler:
            remarks.append(f"The sampler has changed: {'; '.join(differences(attributes[SAMPLER], sampler))}. All trials count.")
        for key, value in ((FIXED, fixed), (SPACE, space), (SAMPLER, sampler)):
            if attributes.get(key) != value:
                self.study.set_user_attr(key, value)
        return remarks

    def _check_choices(self, before: Mapping[str, Any]) -> None:
        """Raises Refusal where the choices of a parameter have changed, which Optuna does not allow."""
        for key, words in space_in_words(self.space).items():
            if (
                key in before
                and before[key] != words
                and (isinstance(self.space[key], Choices) or before[key].startswith("one of"))
            ):
                raise Refusal(
                    f"`{key}` must keep its choices in the study {self.name}, as Optuna cannot change them, got {words:.100}; "
                    f"before: {before[key]:.100}. Take another hydra.sweeper.study_name."
                )

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=states)

    def complete(self) -> list[FrozenTrial]:
        """Returns the complete trials that lie in the search space."""
        return [
            trial
            for trial in self._trials(TrialState.COMPLETE)
            if all(key in trial.params and holds(parameter, trial.params[key]) for key, parameter in self.space.items())
        ]

    def failed(self) -> int:
        """Returns the number of trials that failed in this execution."""
        return len(self._trials(TrialState.FAIL)) - self.failed_before

    def held(self) -> int:
        """Returns how many trials count towards n_trials: complete ones, and those that failed in this execution."""
        return len(self.complete()) + self.failed()

    def most(self) -> float:
        """Returns the largest number of trials that the sampler can give: the size of a grid, or inf."""
        if self.sampler["name"] != "grid" or self.extend is not None:
            return math.inf
        return math.prod(len(_grid_values(key, parameter)) for key, parameter in self.space.items())

    def running(self) -> list[SweepTrial]:
        """Returns the trials that are to be run, because an earlier execution was killed."""
        return [SweepTrial(trial.number, dict(trial.params)) for trial in self._trials(TrialState.RUNNING)]

    @property
    def learns(self) -> bool:
        """Whether what is asked depends on what earlier trials returned."""
        return self.sampler["name"] not in LEARN_NOTHING

    def ask(self, count: int) -> list[SweepTrial]:
        """Asks Optuna for trials.

        Raises:
          Refusal: a parameter cannot be drawn, or the user's function draws one that has a fixed value.
        """
        asked = []
        for _ in range(count):
            self.study.sampler = self._make_sampler(len(self._trials(*TrialState)))
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    trial = self.study.ask()
                    for key, distribution in self.distributions.items():
                        trial._suggest(key, distribution)
            except (ValueError, ImportError) as error:
                raise Refusal(f"`hydra.sweeper.params` cannot be drawn by Optuna: {error}") from None
            if self.extend is not None:
                for key, value in self.fixed_values.items():
                    trial.set_user_attr(key, value)
                self.extend(trial)
                if both := {key.lstrip("+") for key in trial.params} & {key.lstrip("+") for key in self.fixed_values}:
                    raise Refusal(
                        f"`hydra.sweeper.custom_search_space` must not draw what has a fixed value, got {', '.join(both)}."
                    )
            trial.set_user_attr(DRAWN, True)
            asked.append(SweepTrial(trial.number, dict(trial.params)))
        return asked

    def tell(self, number: int, objective: float) -> None:
        """Completes a trial. An objective that is not finite counts as the worst, in either direction."""
        worst = math.inf if self.direction == "minimize" else -math.inf
        self.study.tell(number, objective if math.isfinite(objective) else worst)

    def fail(self, number: int) -> None:
        """Marks a trial as failed."""
        self.study.tell(number, state=TrialState.FAIL)

    def best(self) -> FrozenTrial | None:
        """Returns the best complete trial in the search space; None where none returned a finite number."""
        sign = 1 if self.direction == "minimize" else -1
        finite = [trial for trial in self.complete() if trial.value is not None and math.isfinite(trial.value)]
        values = [(sign * (trial.value or 0.0), trial.number, trial) for trial in finite]
        return min(values, default=(0.0, 0, None))[2] if values else None

    def _retry(self) -> None:
        """Lets Optuna ask again for the parameters of trials that failed in earlier executions."""
        tried = [trial.params for trial in self._trials(TrialState.COMPLETE, TrialState.RUNNING)]
        tried += [dict(trial.system_attrs.get("fixed_params", {})) for trial in self._trials(TrialState.WAITING)]
        for trial in self._trials(TrialState.FAIL):
            inside = all(key in trial.params and holds(parameter, trial.params[key]) for key, parameter in self.space.items())
            if DRAWN in trial.user_attrs and inside and trial.params not in tried:
                self.study.enqueue_trial(trial.params)
                tried.append(trial.params)

    def _make_sampler(self, index: int) -> BaseSampler:
        """Returns the sampler of one trial.

        Args:
          index: the number of the trial.

        Raises:
          Refusal: the sampler or one of its options is not known.
        """
        name, options = str(self.sampler["name"]), {key: v for key, v in self.sampler.items() if key != "name"}
        if name not in CLASSES:
            raise Refusal(f"`hydra.sweeper.sampler` must be one of {', '.join(CLASSES)} without `roles`, got {name!r:.60}.")
        seed = options.pop("seed", None)
        text = f"{self.name if seed is None else seed} {'' if name in SAME_SEED else index}"
        options["seed"] = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)
        if name == "cmaes" and find_spec("cmaes") is None:
            raise Refusal("`hydra.sweeper.sampler` cmaes needs the package cmaes, which is not installed: pip install cmaes.")
        cls = CLASSES[name]
        if name == "grid":
            grid = {key: _grid_values(key, parameter) for key, parameter in self.space.items()}
            return EvenGrid(grid, seed=options["seed"])
        known = inspect.signature(cls.__init__).parameters
        if unknown := [key for key in options if key not in known]:
            raise Refusal(
                f"`hydra.sweeper.sampler.{unknown[0]}` is not known by {cls.__name__} of Optuna {optuna.__version__}. "
                "Leave it out."
            )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return cls(**options)
        except (TypeError, ValueError, ImportError) as error:
            raise Refusal(f"`hydra.sweeper.sampler` {name} cannot be used with {options}: {error}") from None


def _in_recorded_order(space: Space, trials: Sequence[FrozenTrial]) -> Space:
    """Returns a search space with choices in the order in which trials have them: to Optuna, another order is a change."""
    ordered = dict(space)
    for trial in trials:
        for key, before in trial.distributions.items():
            now = ordered.get(key)
            if not isinstance(now, Choices) or not isinstance(before, CategoricalDistribution):
                continue
            if sorted(map(json.dumps, before.choices)) == sorted(map(json.dumps, now.values)):
                ordered[key] = Choices(tuple(before.choices))
    return ordered


def _moved(attributes: Mapping[str, Any], fixed: Mapping[str, Any], space: Space) -> list[str]:
    """Returns in words which settings that are not swept differ from those of a study, or were swept or are swept now."""
    before, swept = attributes[FIXED], attributes.get(SPACE, {})
    words = {key: f"{key} was swept and is {fixed[key]!r:.40}" for key in swept if key in fixed and key not in before}
    words |= {key: f"{key} was {before[key]!r:.40} and is swept" for key in space if key in before and key not in fixed}
    rest = ({key: value for key, value in values.items() if key not in words} for values in (before, fixed))
    return [*words.values(), *differences(*rest)]


def _distribution(parameter: Parameter) -> BaseDistribution:
    """Returns Optuna's distribution of a parameter."""
    if isinstance(parameter, Choices):
        return CategoricalDistribution(parameter.values)
    if parameter.whole:
        step = 1 if parameter.step is None else int(parameter.step)
        return IntDistribution(int(parameter.low), int(parameter.high), log=parameter.log, step=step)
    return FloatDistribution(float(parameter.low), float(parameter.high), log=parameter.log, step=parameter.step)


def _grid_values(key: str, parameter: Parameter) -> Sequence[Any]:
    """Returns the values of a parameter on a grid; raises Refusal for an interval of real numbers, which has no end of them."""
    if isinstance(parameter, Choices):
        return parameter.values
    if parameter.step is None and not parameter.whole:
        raise Refusal(
            f"`{key}` must be swept over values with the sampler grid, got an interval. Take range(low,high,step) or a,b."
        )
    step = parameter.step or 1
    values = [parameter.low + i * step for i in range(round((parameter.high - parameter.low) / step) + 1)]
    return [int(value) for value in values] if parameter.whole else values
