"""Makes configs and the plan of a study from the arguments of a call, as `lrscale.study` and `lrscale.train` get them.

A config made here is the one that Hydra composes for the same values, so a call and a command have the same cells.
"""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from lrscale.errors import Refusal
from lrscale.rules import check, integer, is_number
from lrscale.spec import is_own
from lrscale.study.config import GROUPS, identity, tunable
from lrscale.study.counts import check_count
from lrscale.study.own_code import TRIALS_TOGETHER, own_facts
from lrscale.study.plan import Cell, Plan, TunedInterval, cell_label, with_values
from lrscale.study.twins import LR_KEY, scaled_companions, with_twins
from lrscale.tasks.held import is_held
from lrscale.tasks.named import FACTS
from lrscale.tasks.named import PRESETS as OWN_PRESETS
from lrscale.tasks.registry import check_files
from lrscale.training.optimizers import LEFT_OUT

DEFAULTS = {"data_seeds": "shared", "points": 30, "objective": "train_loss", "dtype": "float64", "probe": None}
"""The values of `conf/config.yaml` that a call does not give. Tasks have defaults of their own for some."""
DEFAULT_EPOCHS = 3
"""How long runs are where a call does not say it, in passes over the training data."""


def called_config(
    task: str | Mapping[str, Any],
    optimizer: str,
    options: Mapping[str, Any],
    schedule: str | Mapping[str, Any],
    epochs: int | None,
    steps: int | None,
    **values: Any,
) -> dict[str, Any]:
    """Returns the config of a call, as plain values.

    Args:
      task: the name of a task that comes with lrscale; or a mapping with such a `name` and options of the task; or what
        `hold` returns.
      optimizer: the name of the optimizer.
      options: options of the optimizer.
      schedule: the name of the schedule, or a mapping with its `name` and options.
      epochs: the budget in epochs.
      steps: the budget in steps; at most one of the two is given.
      values: further values of the config by their key; None for the default of the task.

    Raises:
      Refusal: there is no such task, optimizer, schedule or option.
    """
    if epochs is not None and steps is not None:
        raise Refusal(f"`epochs` and `steps` cannot both be given, got {epochs} and {steps}. Leave one out.")
    budget = {"steps": plain(steps)} if steps is not None else {"epochs": DEFAULT_EPOCHS if epochs is None else plain(epochs)}
    config = {
        **DEFAULTS,
        **_chosen("task", task),
        **_chosen("optimizer", {"name": optimizer, **options}),
        **_chosen("schedule", schedule),
        "budget": budget,
    }
    return {**config, **{key: plain(value) for key, value in values.items() if value is not None}}


def _chosen(group: str, choice: Any) -> dict[str, Any]:
    """Returns the config values of a choice, with its options; raises Refusal where there is no such choice or option."""
    registry = GROUPS[group]
    given = dict(choice) if isinstance(choice, Mapping) else {"name": choice}
    name = given.pop("name", None)
    if is_held(name) and "sha256" in given:
        return {**OWN_PRESETS, "task": {"name": name, **dict.fromkeys(FACTS), **given}}
    registry.check_choice(name)
    if not isinstance(name, str) or is_own(name) or not registry.has_choice(name):
        way_out = " Or make a lrscale.Task of your own." if group == "task" else ""
        raise Refusal(f"`{group}` must be one of {', '.join(registry.choices())}, got {name!r:.60}.{way_out}")
    config = registry.config(name)
    known = config[group]
    for key, value in given.items():
        if group == "optimizer" and key in LEFT_OUT:
            raise Refusal(f"`{key}` is not an option here, got {value!r:.60}. {LEFT_OUT[key]}: leave it out.")
        if key not in known:
            names = ", ".join(option for option in known if option not in ("name", "lr")) or "none"
            field = key if group == "optimizer" else f"{group}.{key}"
            raise Refusal(f"`{field}` is not known, got {value!r:.60}. Options of {name}: {names}.")
    return {**config, group: {**known, **{key: plain(value) for key, value in given.items()}}}


def with_own_facts(config: Mapping[str, Any], device: str, trials: int = TRIALS_TOGETHER) -> dict[str, Any]:
    """Returns a config with what is known of its task, where this is the user's own."""
    return with_values(config, own_facts(config, trials, device))


def called_plan(
    config: Mapping[str, Any],
    axes: Mapping[str, Any],
    lr: Any,
    n_trials: int,
    name: str | None,
    command: str,
    device: str = "cpu",
) -> Plan:
    """Returns the plan of a study that tunes the lr in each cell of a grid.

    Args:
      config: the config that the cells share, as `called_config` returns it.
      axes: the value or the values of each axis, by its key. An axis with one value tells no cells apart.
      lr: the ends of the interval of the lr.
      n_trials: the number of trials of each cell.
      name: the name of the study; None to make one of the task and the axes.
      command: the call that repeats the study.
      device: the device that is asked for.

    Raises:
      Refusal: a value cannot be used.
    """
    check("n_trials", integer(1, 100_000), n_trials := plain(n_trials))
    interval = _interval(lr)
    base = {**config, "optimizer": {**config["optimizer"], "lr": (interval.low * interval.high) ** 0.5}}
    values = {key: _axis(key, given) for key, given in axes.items()}
    swept = [key for key, given in values.items() if len(given) > 1]
    check_count(values, n_trials)
    cells = []
    for combination in itertools.product(*values.values()):
        of_cell = dict(zip(values, combination, strict=True))
        scientific = {key: of_cell[key] for key in swept}
        made = with_own_facts({**base, **of_cell}, device)
        cell = Cell(identity(made, [LR_KEY]), cell_label(scientific), scientific, made)
        check_files(cell.training, n_trials)
        cells.append(cell)
    task = str(config["task"]["name"]).rpartition(":")[2]
    return Plan(
        study="-".join([task, *swept]) if name is None else name,
        cells=with_twins(scaled_companions(cells, [LR_KEY]), [LR_KEY], "scaled"),
        intervals={LR_KEY: interval},
        sampler={"name": "ladder"},
        n_trials=n_trials,
        question=None,
        law=None,
        ranges={},
        claims=[],
        command=command,
    )


def plain(value: Any) -> Any:
    """Returns a value without types of numpy. Tuples, ranges and arrays become lists.

    Example:
      >>> plain(np.array([8, 64])), plain("mean")
      ([8, 64], 'mean')
    """
    try:
        return np.asarray(value).tolist()
    except ValueError:  # lists of unequal lengths; no rule allows them
        return value


def _axis(key: str, given: Any) -> list[Any]:
    """Returns the values of an axis; raises Refusal where there are none, or equal ones."""
    values = found if isinstance(found := plain(given), list) else [found]
    if not values or len({repr(value) for value in values}) < len(values):
        raise Refusal(f"`{key}` must be a value, or values that differ, got {given!r:.60}. Take each value once.")
    return values


def _interval(lr: Any) -> TunedInterval:
    """Returns the interval of the lr; raises Refusal unless it has two ends, low < high, that are lrs."""
    ends = found if isinstance(found := plain(lr), list) else [found]
    if len(ends) != 2 or not all(is_number(end) for end in ends) or not 0 < ends[0] < ends[1]:
        raise Refusal(f"`lr` must be the ends of an interval, 0 < low < high, got {lr!r:.60}. Take lr=(1e-4, 1).")
    for end in ends:
        check("lr", tunable()[LR_KEY], end)
    return TunedInterval(float(ends[0]), float(ends[1]), True)
