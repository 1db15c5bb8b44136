"""What one training is, and how a task, an optimizer or a probe declares its name, its options and their rules."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from lrscale.rules import FRACTION, NOT_NEGATIVE, POSITIVE, Rule

TUNABLE = (POSITIVE, NOT_NEGATIVE, FRACTION)
"""Options under these rules may be lists, one value a trial."""


@dataclass(frozen=True)
class Choice:
    """A name of a group, with the values of its options."""

    name: str
    options: Mapping[str, Any]


class Compute(NamedTuple):
    """Settings of the machine; they are no part of what a cell is, so a larger machine continues the same study.

    `threads`: torch's threads. `memory_mb`: runs are trained in chunks that fit into so many megabytes.
    """

    threads: int = 1
    memory_mb: int = 1024


@dataclass(frozen=True)
class Training:
    """One or more runs that differ only in their tuned hyperparameters and seeds.

    `optimizer.options["lr"]` is a tuple with one value a trial, and so is every other hyperparameter that is tuned.
    `probe` is what is measured instead of training, None for a training. `examples` is the number of training
    examples, N. Made by `lrscale.make_training`, which checks every value.
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

    @property
    def step_examples(self) -> int:
        """Examples that a full step consumes: accumulation x batch size."""
        return self.accumulation * self.batch_size

    @property
    def steps_per_epoch(self) -> int:
        """Steps in one pass over the training data."""
        full_steps, rest = divmod(self.examples, self.step_examples)
        return full_steps + (rest > 0 and not self.drop_last)

    @property
    def steps(self) -> int:
        """The largest number of steps that is run."""
        options = self.budget.options
        if self.budget.name == "epochs":
            return int(options["epochs"]) * self.steps_per_epoch
        return int(options["steps" if self.budget.name == "steps" else "max_steps"])

    @property
    def trials(self) -> int:
        """Number of trials: one for each lr."""
        return len(self.optimizer.options["lr"])


class Option(NamedTuple):
    """One option of a task, an optimizer or a probe: its default, the rule of its values, and what it is, in a line."""

    default: Any
    rule: Rule
    about: str = ""

    @property
    def tunable(self) -> bool:
        """Whether the option may be a list with one value a trial."""
        return self.rule in TUNABLE


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """What a name of a group stands for. Each kind of declaration adds the code that does the work.

    `about`: what it is, in a line. `options`: by name. `variants`: further names for it, each with the options in
    which it differs from the defaults. `presets`: values of the config outside the group that go with it, as a
    task's dtype; a command line or a sweep file may change them. `check`: raises Refusal where the values of a
    training do not go together.
    """

    about: str
    options: Mapping[str, Option] = field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    presets: Mapping[str, Any] = field(default_factory=dict)
    check: Callable[[Training], None] = lambda training: None


D = TypeVar("D", bound=Declaration)


class Registry(Generic[D]):
    """The declarations of a group, by name: `task=d2l` looks up `d2l` in the registry of tasks.

    Args:
      group: name of the config's group.
      package: a package whose modules bear the names that they declare; each is imported when its name is looked up.
    """

    def __init__(self, group: str, package: str | None = None) -> None:
        self.group, self.package = group, package
        self._declared: dict[str, D] = {}

    def declare(self, name: str, declaration: D) -> D:
        """Adds a name, and returns its declaration.

        Raises:
          ValueError: the name, or one of its variants, stands for something else already.
        """
        for taken in (name, *declaration.variants):
            if taken in self._choices():
                raise ValueError(f"{self.group} {taken} is declared already")
        self._declared[name] = declaration
        return declaration

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def __getitem__(self, name: str) -> D:
        if name not in self._declared and name in self._modules():
            import_module(f"{self.package}.{name}")
        return self._declared[name]

    def names(self) -> list[str]:
        """All names, without variants."""
        return list(dict.fromkeys([*self._declared, *self._modules()]))

    def choices(self) -> list[str]:
        """All that can be chosen in a config, variants too, in alphabetical order."""
        return sorted({*self._choices(), *self._modules()})

    def config(self, choice: str) -> dict[str, Any]:
        """What a choice sets in a config: its presets, and under the group's name its own name and options.

        Raises:
          KeyError: there is no such choice.
        """
        name, changes = self._choices().get(choice, (choice, {}))
        declaration = self[name]
        defaults = {key: option.default for key, option in declaration.options.items()}
        return {**declaration.presets, self.group: {"name": name, **defaults, **changes}}

    def _choices(self) -> dict[str, tuple[str, Mapping[str, Any]]]:
        """Name and changed options of each choice that is declared."""
        own: dict[str, tuple[str, Mapping[str, Any]]] = {name: (name, {}) for name in self._declared}
        return own | {v: (n, changes) for n, d in self._declared.items() for v, changes in d.variants.items()}

    def _modules(self) -> list[str]:
        spec = find_spec(self.package) if self.package else None
        places = spec.submodule_search_locations if spec is not None else None
        return [file.stem for place in places or () for file in sorted(Path(place).glob("[a-z]*.py"))]
