"""The tasks that a config can choose. Each is declared beside its code, in `least_squares` and `images`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lrscale.spec import Declaration, Registry, Training

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
    matrices, as Muon needs.
    """

    make: Callable[[Training], BuiltInTask | Task]
    examples: Callable[[Mapping[str, Any]], int]
    classes: bool = False
    population: Callable[[Mapping[str, Any]], Population] | None = None
    check_files: Callable[[Mapping[str, Any]], None] = lambda options: None
    only_matrices: bool = False

    @property
    def is_least_squares(self) -> bool:
        """Whether the task is least squares. Then the optimum is known, and the theory applies."""
        return self.population is not None


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
    """Raises Refusal where a file that the training's task reads is missing."""
    TASKS[training.task.name].check_files(training.task.options)
