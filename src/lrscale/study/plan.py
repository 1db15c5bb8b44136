"""What a study is going to do: its cells, what is tuned in each, and how trials are named."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

from lrscale.errors import Refusal
from lrscale.spec import Training
from lrscale.study.config import identity, make_training


@dataclass(frozen=True)
class TunedInterval:
    """Where a hyperparameter is tuned: [low, high], on a log scale or a linear one."""

    low: float
    high: float
    log: bool


@dataclass(frozen=True)
class Cell:
    """One combination of the scientific hyperparameters.

    `id` names its config without what is tuned; equal ids have equal trials. `scientific` holds the
    values of this study's axes, `config` the whole training. It is what Hydra composes from `overrides`,
    with `values` set by their dotted keys: cells with the same overrides can share a job. A cell that is read
    from a record has neither.
    """

    id: str
    label: str
    scientific: Mapping[str, Any]
    config: Mapping[str, Any]
    overrides: tuple[str, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def training(self) -> Training:
        """The checked description of the config; raises Refusal where a value cannot be used."""
        return make_training(self.config)


class Share(NamedTuple):
    """A cell's share of a job: the tuned hyperparameters of its trials, one mapping a trial."""

    cell: Cell
    params: tuple[Mapping[str, float], ...]

    @property
    def config(self) -> dict[str, Any]:
        """The config that trains the trials together, what is tuned as lists."""
        return with_values(self.cell.config, {name: [params[name] for params in self.params] for name in self.params[0]})


@dataclass(frozen=True)
class Plan:
    """What a study asks: its cells, what is tuned in each and how, and what is claimed of the outcome.

    `ranges`: batch-size ranges [low, high] by name. `law`: what theory says. `command`: repeats the study.
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

    @property
    def id(self) -> str:
        """Names what is run, so that the same command continues the same study."""
        what = [[cell.id for cell in self.cells], self.n_trials, dict(self.sampler)]
        intervals = {name: asdict(interval) for name, interval in self.intervals.items()}
        return hashlib.sha256(json.dumps([what, intervals], sort_keys=True).encode()).hexdigest()[:12]

    @property
    def objective(self) -> str:
        """What is minimised over the lr; the same in all cells that are compared."""
        return str(self.cells[0].config["objective"])

    @property
    def is_probed(self) -> bool:
        """Whether its cells measure quantities instead of training."""
        return any(cell.config.get("probe") is not None for cell in self.cells)

    def renewed(self) -> "Plan":
        """The same plan with ids and labels that this version gives to its cells, to run a recorded study again."""
        return replace(
            self,
            cells=tuple(replace(c, id=identity(c.config, self.intervals), label=cell_label(c.scientific)) for c in self.cells),
        )


def cell_label(scientific: Mapping[str, Any]) -> str:
    """Short name of a cell, as in `sum b256`.

    Example:
      >>> cell_label({"reduction": "sum", "batch_size": 256, "optimizer": "adam", "optimizer.momentum": 0.9})
      'sum b256 adam momentum0.9'
    """
    letters = {"batch_size": "b", "accumulation": "a"}
    parts = (v if isinstance(v, str) else f"{letters.get(key, key.rpartition('.')[2])}{v}" for key, v in scientific.items())
    return " ".join(parts) or "all"


def in_words(shared: Mapping[str, Any]) -> list[str]:
    """What cells share, each with its name where it is a number.

    Example:
      >>> in_words({"optimizer": "adam", "task.features": 8})
      ['adam', 'features 8']
    """
    return [value if isinstance(value, str) else f"{key.rpartition('.')[2]} {value}" for key, value in shared.items()]


def study_name(study: str, label: str, cell: str) -> str:
    """The name of the Optuna study of a cell, by its label and id."""
    return f"{study} / {label} / {cell}"


def short_number(number: float) -> str:
    """A number in two digits, as in run names.

    Example:
      >>> short_number(0.0031), short_number(1.0), short_number(123456.0)
      ('3.1e-3', '1e0', '1.2e5')
    """
    digits, _, exponent = f"{number:.1e}".partition("e")
    return f"{digits.removesuffix('.0')}e{int(exponent)}"


def trial_label(cell: str, params: Mapping[str, float]) -> str:
    """Name of a trial, as in `sum b256 lr3e-3`."""
    return " ".join([cell, *(f"{key.rpartition('.')[2]}{short_number(value)}" for key, value in params.items())])


def has_value(plain: Mapping[str, Any], key: str) -> bool:
    """Whether a dotted key names a value of a config, not a group of them."""
    found: Any = plain
    for part in key.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return False
        found = found[part]
    return not isinstance(found, Mapping)


def with_values(plain: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config with values set by their dotted keys.

    Raises:
      Refusal: there is no such key.
    """
    made = {key: dict(value) if isinstance(value, Mapping) else value for key, value in plain.items()}
    for key, value in values.items():
        if not has_value(made, key):
            raise Refusal(f"`{key}` is not known, got {value!r:.60}. lrscale run --help lists all keys.")
        group, _, name = key.partition(".")
        if name:
            made[group][name] = value
        else:
            made[group] = value
    return made
