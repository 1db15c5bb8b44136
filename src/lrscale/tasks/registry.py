"""The tasks that a config can choose. Each is declared beside its code, in `least_squares` and `images`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lrscale.errors import Refusal
from lrscale.spec import Declaration, Registry, Training
from lrscale.system import memory_bytes

if TYPE_CHECKING:
    from lrscale.tasks.built_in import BuiltInTask, Population
    from lrscale.tasks.own import Task


@dataclass(frozen=True, kw_only=True)
class TaskKind(Declaration):
    """The declaration of a task.

    `make` makes the data and the model of the task that a training names. `examples` returns the number of training
    examples for the task's options. `classes` says whether the targets are classes. `population` returns, for the options
    of a least-squares task, the distribution that its data are drawn from; it is None for other tasks. `check_files`
    raises Refusal where a file that the options name is missing. `only_matrices` says whether all parameters of the model are
    matrices, as Muon needs. `size` returns how many numbers the data of one draw have, and how many weights a run has; 0 where
    it is not known before the task is made.
    """

    make: Callable[[Training], BuiltInTask | Task]
    examples: Callable[[Mapping[str, Any]], int]
    classes: bool = False
    population: Callable[[Mapping[str, Any]], Population] | None = None
    check_files: Callable[[Mapping[str, Any]], None] = lambda options: None
    only_matrices: bool = False
    size: Callable[[Mapping[str, Any]], tuple[int, int]] = lambda options: (0, 0)

    @property
    def is_least_squares(self) -> bool:
        """Whether the task is least squares. Then the optimum is known, and the theory applies."""
        return self.population is not None


NUMBER_BYTES = {"float64": 8, "float32": 4}
"""The bytes of a number, by dtype."""
COPIES = 4
"""How many numbers a run keeps at least for each weight: the weight, its gradient, its update and one for the sum."""
BIG = ("examples", "features", "hidden")
"""The options of tasks that make data or models big."""
TASKS: Registry[TaskKind] = Registry("task")
"""The declared tasks, by name."""


def make_task(training: Training) -> BuiltInTask | Task:
    """Makes the task of a training. Its data have the training's dtype, but targets that are classes stay integers.

    Raises:
      Refusal: a file that the task reads is missing or damaged.
    """
    return TASKS[training.task.name].make(training)


def make_built_in(training: Training) -> BuiltInTask:
    """Makes the task of a training, which comes with lrscale; see `make_task`."""
    from lrscale.tasks.built_in import BuiltInTask

    task = make_task(training)
    assert isinstance(task, BuiltInTask)
    return task


def population(training: Training) -> Population | None:
    """Returns the distribution that the data of a least-squares task are drawn from; None for other tasks."""
    make_population = TASKS[training.task.name].population
    return None if make_population is None else make_population(training.task.options)


def check_files(training: Training) -> None:
    """Raises Refusal where a file that the training's task reads is missing, or data and runs do not fit in the memory.

    Makes neither data nor model.
    """
    kind, options = TASKS[training.task.name], training.task.options
    kind.check_files(options)
    numbers, weights = kind.size(options)
    draws = 1 if training.data_seeds == "shared" else len(training.seeds)
    needed = NUMBER_BYTES[training.dtype] * (numbers * draws + COPIES * weights * len(training.seeds))
    if needed > (there := memory_bytes()):
        raise Refusal(
            f"`task` {training.task.name} must fit in this machine's memory of {there / 2**30:.0f} GiB, got {numbers} numbers of "
            f"data x {draws} draws and {weights} weights x {len(training.seeds)} seeds, which need {needed / 2**30:.0f} GiB. "
            f"Lower {', '.join(f'task.{key}={options[key]}' for key in BIG if key in options)} or seeds."
        )
