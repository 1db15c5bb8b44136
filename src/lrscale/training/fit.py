"""Checks that a task is the one that a training describes."""

from lrscale.errors import Refusal
from lrscale.spec import Training
from lrscale.streams import generator
from lrscale.tasks.task import Task
from lrscale.training.optimizers import OPTIMIZERS


def check_fit(training: Training, task: Task) -> None:
    """Checks that a task has the examples and the data draws that a training names, and parameters for its optimizer.

    Raises:
      Refusal: it does not.
    """
    if task.has_own_data != (training.data_seeds == "own") or (task.has_own_data and len(task.data.x) != len(training.seeds)):
        raise Refusal(
            f"`task` must have the data draws that the training names, got data_seeds={training.data_seeds} and another task. "
            "Make the task from the same training; a task of your own needs data_seeds=shared."
        )
    if (examples := len(task.data_of(0).x)) != training.examples:
        raise Refusal(
            f"`task` must have the {training.examples} training examples that the training names, got {examples}. "
            "Set their number in the training: dataclasses.replace(training, examples=N)."
        )
    name = training.optimizer.name
    if not OPTIMIZERS[name].only_matrices:
        return
    for weights in task.model.initial(generator("init", 0)):
        if weights.ndim != 2:
            raise Refusal(
                f"`optimizer` {name} takes parameters that are matrices only, got one of shape {tuple(weights.shape)}. "
                "Take optimizer=adamw, or a task without such a parameter."
            )
