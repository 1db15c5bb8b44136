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
    matrices, as Muon needs. `size` returns how many numbers the data of one draw have, how many weights a run has, and how many
    numbers a run keeps for each example of a step (`width` of the model); 0 where that is not known before the task is made.
    """

    make: Callable[[Training], BuiltInTask | Task]
    examples: Callable[[Mapping[str, Any]], int]
    classes: bool = False
    population: Callable[[Mapping[str, Any]], Population] | None = None
    check_files: Callable[[Mapping[str, Any]], None] = lambda options: None
    only_matrices: bool = False
    size: Callable[[Mapping[str, Any]], tuple[int, int, int]] = lambda options: (0, 0, 0)

    @property
    def is_least_squares(self) -> bool:
        """Whether the task is least squares. Then the optimum is known, and the theory applies."""
        return self.population is not None


NUMBER_BYTES = {"float64": 8, "float32": 4}
"""The bytes of a number, by dtype."""
COPIES = 4
"""How many numbers a run keeps at least for each weight: the weight, its gradient, its update and one for the sum."""
WIDE = 3 * 8
"""How many bytes a run keeps for each weight besides, in float64: norms of gradients are taken in it."""
BIG = ("examples", "features", "hidden")
"""The options of tasks that make data or models big."""
MOST_EPOCH_ENDS, POINT_BYTES = 102, 5 * 8
"""How many points curves have at most besides `points`, and the bytes of a point: the engine records five numbers of 8 bytes."""
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


def weight_bytes(weights: int, bytes_each: int, slots: int = 0) -> int:
    """Returns the memory that the weights of one run take with all that is kept beside them, in bytes.

    Args:
      weights: how many weights the model has.
      bytes_each: the bytes of a number.
      slots: how many numbers the optimizer keeps for each weight.
    """
    return weights * ((COPIES + slots) * bytes_each + WIDE)


def check_runs(task: str, run_bytes: int, seeds: int, what: str) -> None:
    """Raises Refusal where one trial of a task of the user's own, with all its seeds, does not fit in this machine's memory.

    Args:
      task: the name of the task.
      run_bytes: the memory of one run, in bytes.
      seeds: the number of seeds.
      what: what takes the memory, in words.
    """
    there = memory_bytes()
    if run_bytes * seeds > there:
        fewer = f"Take seeds={there // run_bytes}, or a" if run_bytes <= there else "Take a"
        raise Refusal(
            f"`task` {task:.200} must fit in this machine's memory of {there / 2**30:.0f} GiB, got {what}, which need "
            f"{run_bytes / 2**30:.1f} GiB a seed, x {seeds} seeds. {fewer} smaller model or smaller steps."
        )


def check_files(training: Training, trials: int = 1) -> None:
    """Raises Refusal where a file that the training's task reads is missing, or data and runs do not fit in the memory.

    Makes neither data nor model. Runs are trained in chunks of at least one trial with all its seeds; curves are kept of all.

    Args:
      training: the description of the runs.
      trials: how many trials its cell may have.
    """
    kind, options = TASKS[training.task.name], training.task.options
    kind.check_files(options)
    numbers, weights, width = kind.size(options)
    draws = 1 if training.data_seeds == "shared" else len(training.seeds)
    seeds, step = len(training.seeds), training.step_examples
    bytes_each = 0 if training.is_script else NUMBER_BYTES[training.dtype]
    points = 0 if training.is_script else min(training.points + MOST_EPOCH_ENDS, training.steps + 1)
    curves = POINT_BYTES * points * trials * seeds
    needed = bytes_each * (numbers * draws + (COPIES * weights + step * width) * seeds) + curves
    if needed > (there := memory_bytes()):
        big = [*(f"task.{key}={options[key]}" for key in BIG if key in options), "batch_size", "n_trials"]
        raise Refusal(
            f"`task` {training.task.name} must fit in this machine's memory of {there / 2**30:.0f} GiB, got "
            f"{numbers} numbers of data x {draws} draws, {weights} weights x {seeds} seeds, {step} examples in a step x "
            f"{width} numbers x {seeds} seeds, and curves of {points} points x {trials} trials x {seeds} seeds, "
            f"which need {needed / 2**30:.0f} GiB. Lower {', '.join(big)} or seeds."
        )
