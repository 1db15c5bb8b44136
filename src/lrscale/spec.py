"""The description of one training, and the declarations of tasks, optimizers and probes: names, options and rules."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from lrscale.errors import Refusal
from lrscale.rules import FRACTION, NOT_NEGATIVE, POSITIVE, Rule

TUNABLE = (POSITIVE, NOT_NEGATIVE, FRACTION)
"""The rules of tunable options. A tunable option may be a list with one value per trial."""


SCRIPT = "script"
"""The budget of a training script: how long it trains is its own affair."""


@dataclass(frozen=True)
class Choice:
    """The choice of one group of the config, such as `task`: a name, and the values of its options."""

    name: str
    options: Mapping[str, Any]


class Compute(NamedTuple):
    """Settings of the machine. A cell's id does not depend on them, so a larger machine can continue the same study.

    `threads` is the number of torch's threads. `memory_mb` limits the memory of training, in megabytes: runs are
    trained in chunks that fit into it. None stands for 1024 on the CPU, and elsewhere for what is free. `device` is where the
    user's own models are trained: `auto`, `cpu`, `cuda` or `mps`. `tf32` is whether cuda may multiply with fewer digits.
    """

    threads: int = 1
    memory_mb: int | None = None
    device: str = "cpu"
    tf32: bool = False


@dataclass(frozen=True)
class Training:
    """One or more runs that differ only in their tuned hyperparameters and seeds.

    `optimizer.options["lr"]` is a tuple with one value per trial, and so is every other tuned hyperparameter.
    `probe` names the measurement that replaces training, and is None for a training. `examples` is the number of
    training examples, N. `data_seeds` is `shared` where all seeds train on one data draw, and `own` where each seed has a
    draw of its own. `schedule` changes the lr from step to step, and is None where the lr is constant.
    `lrscale.make_training` checks every value and makes the description.
    """

    task: Choice
    optimizer: Choice
    budget: Choice
    probe: Choice | None
    seeds: tuple[int, ...]
    reduction: str
    batch_size: int
    accumulation: int
    drop_last: bool
    objective: str
    dtype: str
    points: int
    examples: int
    data_seeds: str = "shared"
    schedule: Choice | None = None

    @property
    def is_script(self) -> bool:
        """Whether a training script of a stranger trains: then its data, model, steps and dtype are not known."""
        return self.budget.name == SCRIPT

    @property
    def step_examples(self) -> int:
        """The number of examples in a full step: accumulation x batch size."""
        return self.accumulation * self.batch_size

    @property
    def steps_per_epoch(self) -> int:
        """The number of steps in one pass over the training data."""
        full_steps, rest = divmod(self.examples, self.step_examples)
        return full_steps + (rest > 0 and not self.drop_last)

    @property
    def steps(self) -> int:
        """The largest number of steps that a run can take."""
        options = self.budget.options
        if self.budget.name == "epochs":
            return int(options["epochs"]) * self.steps_per_epoch
        return int(options["steps" if self.budget.name == "steps" else "max_steps"])

    @property
    def trials(self) -> int:
        """The number of trials: one for each lr."""
        return len(self.optimizer.options["lr"])


class Option(NamedTuple):
    """One option of a task, an optimizer or a probe. `about` describes it in one line."""

    default: Any
    rule: Rule
    about: str = ""

    @property
    def tunable(self) -> bool:
        """Whether the option may be a list with one value per trial."""
        return self.rule in TUNABLE


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """The declaration of one name of a group: a task, an optimizer or a probe. Subclasses add the code that does the work.

    `about` describes it in one line. `options` holds its options by name. `variants` holds further names; each has
    the options whose values differ from the defaults. `presets` holds config values outside the group that it sets,
    such as a task's dtype; the command line and a sweep file can change them. `check` raises Refusal where the values
    of a training contradict each other.
    """

    about: str
    options: Mapping[str, Option] = field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    presets: Mapping[str, Any] = field(default_factory=dict)
    check: Callable[[Training], None] = lambda training: None


D = TypeVar("D", bound=Declaration)


def is_own(name: object) -> bool:
    """Returns whether a name of a config is that of a user's code, as in `mine.py:cnn`."""
    return isinstance(name, str) and ":" in name


@dataclass(frozen=True)
class OwnCode(Generic[D]):
    """How a group takes code of the user's own, as in `task=mine.py:cnn`. Nothing here runs that code but `declaration`.

    `declaration` is the declaration of all such names. `config` returns the config values that a name sets, and `check`
    returns the checked options of a config, without its name; both raise Refusal. `facts` makes what a config names, and
    returns what is known about it, by dotted key; it runs the code, if that is trusted.
    """

    declaration: D
    config: Callable[[str], dict[str, Any]]
    check: Callable[[Mapping[str, Any]], dict[str, Any]]
    facts: Callable[[Mapping[str, Any]], dict[str, Any]]


class Registry(Generic[D]):
    """The declarations of a group, by name: `task=d2l` looks up `d2l` in the registry of tasks.

    Args:
      group: name of the config's group.
      package: a package in which each module declares the name that the module has. A module is imported when its
        name is looked up.
    """

    def __init__(self, group: str, package: str | None = None) -> None:
        self.group, self.package = group, package
        self.own: OwnCode[D] | None = None
        self._declared: dict[str, D] = {}
        self.refused: dict[str, str] = {}

    def declare(self, name: str, declaration: D) -> D:
        """Adds a declaration under a name, and returns the declaration.

        Raises:
          ValueError: the name, or the name of a variant, is declared already.
        """
        for choice in (name, *declaration.variants):
            if choice in self._choices():
                raise ValueError(f"{self.group} {choice} is declared already")
        self._declared[name] = declaration
        return declaration

    def refuse(self, name: str, reason: str) -> None:
        """Makes `check_choice` refuse a name that users may expect, with the reason and the way out."""
        self.refused[name] = reason

    def check_choice(self, choice: object) -> None:
        """Raises Refusal where a choice is one that `refuse` named."""
        if isinstance(choice, str) and choice in self.refused:
            raise Refusal(f"`{self.group}` cannot be {choice}: {self.refused[choice]}")

    def __contains__(self, name: object) -> bool:
        return name in self.names() or (self.own is not None and is_own(name))

    def __getitem__(self, name: str) -> D:
        if self.own is not None and is_own(name):
            return self.own.declaration
        if name not in self._declared and name in self._modules():
            import_module(f"{self.package}.{name}")
        return self._declared[name]

    def names(self) -> list[str]:
        """Returns all names, without variants."""
        return list(dict.fromkeys([*self._declared, *self._modules()]))

    def choices(self) -> list[str]:
        """Returns all choices of a config, names and variants, in alphabetical order."""
        return sorted({*self._choices(), *self._modules()})

    def declare_own(self, own: OwnCode[D]) -> None:
        """Lets a config name code of the user's own."""
        self.own = own

    def has_choice(self, choice: str) -> bool:
        """Returns whether a config can choose a name: one of `choices`, or code of the user's own."""
        return choice in self.choices() or (self.own is not None and is_own(choice))

    def config(self, choice: str) -> dict[str, Any]:
        """Returns the config values that a choice sets: its presets, and its name and options under the group's name.

        Raises:
          KeyError: there is no such choice.
          Refusal: it names code that cannot be used.
        """
        if self.own is not None and is_own(choice):
            return self.own.config(choice)
        name, changes = self._choices().get(choice, (choice, {}))
        declaration = self[name]
        defaults = {key: option.default for key, option in declaration.options.items()}
        return {**declaration.presets, self.group: {"name": name, **defaults, **changes}}

    def _choices(self) -> dict[str, tuple[str, Mapping[str, Any]]]:
        """Returns the name and the changed options of each declared choice."""
        names: dict[str, tuple[str, Mapping[str, Any]]] = {name: (name, {}) for name in self._declared}
        return names | {v: (n, changes) for n, d in self._declared.items() for v, changes in d.variants.items()}

    def _modules(self) -> list[str]:
        """Returns the names of the package's modules, without importing them."""
        spec = find_spec(self.package) if self.package else None
        folders = spec.submodule_search_locations if spec is not None else None
        return [file.stem for folder in folders or () for file in sorted(Path(folder).glob("[a-z]*.py"))]
