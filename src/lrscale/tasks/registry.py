"""The tasks that a config can choose: each is declared beside its code, in `least_squares` and `images`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lrscale.spec import Declaration, Registry, Training

if TYPE_CHECKING:
    from lrscale.tasks.task import Population, Task


@dataclass(frozen=True, kw_only=True)
class TaskKind(Declaration):
    """A task by its name.

    `make`: makes the data and the model that a training names. `examples`: number of training examples, from the
    options. `classes`: whether targets are classes. `population`: of least squares, what the data are drawn from,
    from the options; None for other tasks. `check_files`: raises Refusal where a file that the options name is missing.
    """

    make: Callable[[Training], Task]
    examples: Callable[[Mapping[str, Any]], int]
    classes: bool = False
    population: Callable[[Mapping[str, Any]], Population] | None = None
    check_files: Callable[[Mapping[str, Any]], None] = lambda options: None

    @property
    def is_least_squares(self) -> bool:
        """Whether the optimum is known, and theory with it."""
        return self.population is not None


TASKS: Registry[TaskKind] = Registry("task")


def make_task(training: Training) -> Task:
    """Makes a training's task: its data in the training's dtype, where targets of classes stay integers.

    Raises:
      Refusal: a file that the task reads is missing or damaged.
    """
    return TASKS[training.task.name].make(training)


def population(training: Training) -> Population | None:
    """Returns what the data of a least-squares task are drawn from, None for other tasks."""
    draws_from = TASKS[training.task.name].population
    return None if draws_from is None else draws_from(training.task.options)


def check_files(training: Training) -> None:
    """Raises Refusal where a file that the training's task reads is missing."""
    TASKS[training.task.name].check_files(training.task.options)
