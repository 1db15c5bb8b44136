"""The plan of a study: its cells, the hyperparameters that are tuned in each cell, and the names of trials."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

from lrscale.errors import Refusal
from lrscale.spec import Training
from lrscale.study.config import identity, make_training
from lrscale.study.script import own_words


@dataclass(frozen=True)
class TunedInterval:
    """The interval [low, high] in which a hyperparameter is tuned. `log`: on a log scale instead of a linear one."""

    low: float
    high: float
    log: bool


class Twin(NamedTuple):
    """How a cell goes with its reference: the cell whose steps average the same examples and whose gradients are smallest.

    `of` is the id of the reference, and `r` the gradient scale of the cell divided by that of the reference. `factors` has
    a factor for each tuned hyperparameter: its value in the cell is the reference's times the factor. `is_same_run` says
    whether the two then train the same run: bit for bit, as r is a power of two, while no number of the training is so
    small that it underflows.
    """

    of: str
    r: float
    factors: Mapping[str, float]
    is_same_run: bool


@dataclass(frozen=True)
class Cell:
    """One combination of the scientific hyperparameters.

    `id` is a hash of the config without the tuned hyperparameters; cells with equal ids have equal trials.
    `scientific` holds the cell's values on the axes of the study, and `config` describes the whole training. Hydra
    composes the config from `overrides`, and `values` are then set in it by their dotted keys. Cells with the same
    overrides can share a job. A cell that is read from a record has no overrides and no values. `twin` says how the cell
    goes with its reference; it is None for a reference, and where no lr is tuned.
    """

    id: str
    label: str
    scientific: Mapping[str, Any]
    config: Mapping[str, Any]
    overrides: tuple[str, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    twin: Twin | None = None

    def factor(self, key: str) -> float:
        """The value of a tuned hyperparameter in this cell, divided by its value in the cell's reference."""
        return 1.0 if self.twin is None else self.twin.factors.get(key, 1.0)

    def is_same_run_as(self, other: "Cell") -> bool:
        """Whether the two cells are twins that train the same run."""
        twins = [cell.twin or Twin(cell.id, 1, {}, True) for cell in (self, other)]
        return twins[0].of == twins[1].of and all(twin.is_same_run for twin in twins)

    @cached_property
    def training(self) -> Training:
        """The training that the config describes; raises Refusal where a value cannot be used."""
        return make_training(self.config)


class Share(NamedTuple):
    """The part of a job that belongs to one cell: the tuned hyperparameters, one mapping per trial."""

    cell: Cell
    params: tuple[Mapping[str, float], ...]

    @property
    def config(self) -> dict[str, Any]:
        """The config that trains the trials together: each tuned hyperparameter is a list with one value per trial."""
        return with_values(self.cell.config, {name: [params[name] for params in self.params] for name in self.params[0]})


@dataclass(frozen=True)
class Plan:
    """The plan of a study: its cells, what is tuned in each cell and how, and the claims about the result.

    `intervals` holds the tuned hyperparameters by dotted key. `ranges` holds batch-size ranges [low, high] by name.
    `law` states what theory predicts. `command` is the command line that repeats the study. `companions` is `scaled` where
    weight decay, eps and the like are given for the reference of each cell and scaled for its twins, and `as_given` where
    every cell has the values that are given. Likewise an interval is that of the references: see `interval_of`.
    """

    study: str
    cells: tuple[Cell, ...]
    intervals: Mapping[str, TunedInterval]
    sampler: Mapping[str, Any]
    n_trials: int
    question: str | None
    law: str | None
    ranges: Mapping[str, Sequence[float]]
    claims: Sequence[Mapping[str, Any]]
    command: str
    companions: str = "scaled"

    @property
    def id(self) -> str:
        """The id of the plan, a hash of what is run. It lets the same command continue the same study."""
        parts = [[cell.id for cell in self.cells], self.n_trials, dict(self.sampler)]
        intervals = {name: asdict(interval) for name, interval in self.intervals.items()}
        return hashlib.sha256(json.dumps([parts, intervals], sort_keys=True).encode()).hexdigest()[:12]

    def interval_of(self, cell: Cell, key: str) -> TunedInterval:
        """Returns the interval in which a hyperparameter is tuned in a cell."""
        interval, factor = self.intervals[key], cell.factor(key)
        return TunedInterval(interval.low * factor, interval.high * factor, interval.log)

    def optuna_name(self, cell: Cell) -> str:
        """Returns the name of a cell's Optuna study. Where another interval or sampler is asked for, it is another study."""
        intervals = {name: asdict(interval) for name, interval in self.intervals.items()}
        asked = hashlib.sha256(json.dumps([dict(self.sampler), intervals], sort_keys=True).encode()).hexdigest()[:6]
        return f"{self.study} / {cell.label} / {cell.id} / {asked}"

    @property
    def objective(self) -> str:
        """The objective, which is minimised over the lr. All cells of a study have the same objective."""
        return str(self.cells[0].config["objective"])

    @property
    def is_script(self) -> bool:
        """Whether a training script trains the cells: each run is a job of its own."""
        return any("script" in cell.config for cell in self.cells[:1])

    def in_own_words(self, text: str) -> str:
        """Returns a text with a script's own keys in place of lrscale's; see `own_words`."""
        return own_words(self.cells[0].config, text) if self.is_script else text

    @property
    def is_probed(self) -> bool:
        """Whether the study runs a probe: its cells then measure quantities and tune no lr."""
        return any(cell.config.get("probe") is not None for cell in self.cells)

    def renewed(self) -> "Plan":
        """Returns the same plan with the ids and labels that this version gives to its cells.

        A recorded study is run again with this plan.
        """
        ids = {cell.id: identity(cell.config, self.intervals) for cell in self.cells}
        twins = [None if c.twin is None else c.twin._replace(of=ids[c.twin.of]) for c in self.cells]
        renewed = [
            replace(c, id=ids[c.id], label=cell_label(c.scientific), twin=twin) for c, twin in zip(self.cells, twins, strict=True)
        ]
        return replace(self, cells=tuple(renewed))


def cell_label(scientific: Mapping[str, Any]) -> str:
    """Returns the short name of a cell, such as `sum b256`, from its values on the axes of the study.

    Example:
      >>> cell_label({"reduction": "sum", "batch_size": 256, "optimizer": "adam", "optimizer.momentum": 0.9})
      'sum b256 adam momentum0.9'
    """
    letters = {"batch_size": "b", "accumulation": "a"}
    parts = (v if isinstance(v, str) else f"{letters.get(key, key.rpartition('.')[2])}{v}" for key, v in scientific.items())
    return " ".join(parts) or "all"


def in_words(shared: Mapping[str, Any]) -> list[str]:
    """Returns axis values in words; a number has the name of its axis before it.

    Example:
      >>> in_words({"optimizer": "adam", "task.features": 8})
      ['adam', 'features 8']
    """
    return [value if isinstance(value, str) else f"{key.rpartition('.')[2]} {value}" for key, value in shared.items()]


def short_number(number: float) -> str:
    """Returns a number with two significant digits, as the names of MLflow runs show it.

    Example:
      >>> short_number(0.0031), short_number(1.0), short_number(123456.0)
      ('3.1e-3', '1e0', '1.2e5')
    """
    digits, _, exponent = f"{number:.1e}".partition("e")
    return f"{digits.removesuffix('.0')}e{int(exponent)}"


def trial_label(cell: str, params: Mapping[str, float]) -> str:
    """Returns the name of a trial, such as `sum b256 lr3e-3`, from its cell's label and its tuned hyperparameters."""
    return " ".join([cell, *(f"{key.rpartition('.')[2]}{short_number(value)}" for key, value in params.items())])


def exact_label(cell: str, params: Mapping[str, float]) -> str:
    """Returns what identifies a trial, with exact values, such as `sum b256 lr 0.0030517578125`."""
    return " ".join([cell, *(f"{key.rpartition('.')[2]} {float(value)!r}" for key, value in params.items())])


def has_value(config: Mapping[str, Any], key: str) -> bool:
    """Returns whether a dotted key names a single value of a config. A key that is absent or names a group does not."""
    value: Any = config
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return False
        value = value[part]
    return not isinstance(value, Mapping)


def with_values(config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a copy of a config in which values are set by their dotted keys.

    Raises:
      Refusal: the config has no value under one of the keys.
    """
    changed = {key: dict(value) if isinstance(value, Mapping) else value for key, value in config.items()}
    for key, value in values.items():
        if not has_value(changed, key):
            raise Refusal(f"`{key}` is not known, got {value!r:.60}. lrscale run --help lists all keys.")
        group, _, name = key.partition(".")
        if name:
            changed[group][name] = value
        else:
            changed[group] = value
    return changed
