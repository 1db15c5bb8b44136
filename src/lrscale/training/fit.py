"""Checks that a task is the one that a training describes."""

from lrscale.errors import Refusal
from lrscale.spec import Training
from lrscale.streams import generator
from lrscale.tasks.built_in import BuiltInTask
from lrscale.tasks.own import Task
from lrscale.training.named_optimizer import optimizer_of


def check_fit(training: Training, task: BuiltInTask | Task) -> None:
    """Checks that a task has the examples and the data draws that a training names, and parameters for its optimizer.

    Raises:
      Refusal: it does not.
    """
    if isinstance(task, Task):
        examples, shapes = len(task.train), [parameter.shape for parameter in task.module.parameters() if parameter.requires_grad]
    elif task.has_own_data != (training.data_seeds == "own") or (task.has_own_data and len(task.data.x) != len(training.seeds)):
        raise Refusal(
            f"`task` must have the data draws that the training names, got data_seeds={training.data_seeds} and another task. "
            "Make the task from the same training."
        )
    else:
        examples, shapes = len(task.data_of(0).x), [weights.shape for weights in task.model.initial(generator("init", 0))]
    if examples != training.examples:
        raise Refusal(
            f"`task` must have the {training.examples} training examples that the training names, got {examples}. "
            "Set their number in the training: dataclasses.replace(training, examples=N)."
        )
    name, optimizer = training.optimizer.name, optimizer_of(training.optimizer)
    numbers = [key for key in optimizer.options if optimizer.options[key].tunable]
    for factors in task.factors if isinstance(task, Task) else ():
        for key in factors:
            if key not in numbers:
                raise Refusal(f"`groups` must return factors of {', '.join(numbers)}, the numbers of {name}, got {key!r:.60}.")
    for shape in shapes if optimizer.only_matrices else ():
        if len(shape) != 2:
            raise Refusal(
                f"`optimizer` {name} takes parameters that are matrices only, got one of shape {tuple(shape)}. "
                "Take optimizer=adamw, or a task without such a parameter."
            )
