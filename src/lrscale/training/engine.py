"""Trains many runs as one tensor program: takes trials x seeds, and returns the curves of all runs."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lrscale.spec import Compute, Training
from lrscale.streams import generator
from lrscale.tasks.models import Losses
from lrscale.tasks.task import Task
from lrscale.training.fit import check_fit
from lrscale.training.minibatches import BLOCK_BYTES, Minibatch, minibatches, strides
from lrscale.training.multistep import LARGEST, STRIDE, Stride, take
from lrscale.training.optimizers import OPTIMIZERS
from lrscale.training.schedules import lr_factor

Array = NDArray[np.float64]
"""An array of float64."""


class Curves(NamedTuple):
    """The curves of all runs. Runs are ordered by trial, and inside a trial by seed.

    `steps` [point] is the number of steps taken. `train_loss` [point, run] is the mean loss over the training data.
    `excess_risk` [point, run] is the training loss above its minimum, and nan where the minimum is unknown.
    `population_risk` [point, run] is the expected loss of a fresh example above its minimum, and nan where the
    population is unknown.
    `minibatch_loss` [point, run] is the mean loss of the minibatch of the last step taken. `grad_norm` [point, run] is the
    norm of the gradient of that step, as the reduction makes it. At step 0 both belong to the first step.
    `valid_loss`, `valid_error` and `steps_to_target` [run] are taken at the end, and nan where the task or the budget has no
    such number. `steps_to_target` is inf where the run missed the target.
    """

    steps: NDArray[np.int64]
    train_loss: Array
    excess_risk: Array
    population_risk: Array
    minibatch_loss: Array
    grad_norm: Array
    valid_loss: Array
    valid_error: Array
    steps_to_target: Array


def train(training: Training, task: Task, memory_mb: int = Compute().memory_mb) -> Curves:
    """Trains every trial with every seed.

    All trials of a seed share its initial weights and minibatches. Runs do not influence each other: a run that diverges
    keeps its inf and nan, and the numbers of the other runs stay the same, bit for bit. Where the runs do not fit in the
    memory, they are trained in chunks. Chunks change the numbers by rounding only.

    Args:
      training: the description of the runs.
      task: its task, from `make_task` or `module_task`.
      memory_mb: megabytes that runs and curves may use.

    Returns:
      The curves of all runs, with run = trial x number of seeds + index of the seed.

    Raises:
      Refusal: the task does not have the training examples or the data draws that the training names, or the optimizer
        takes matrices only and a parameter is none.

    Source:
      `tests/training/test_engine.py` checks the agreement with plain loops of torch.optim.
    """
    check_fit(training, task)
    size = trials_in_memory(training, task, memory_mb)
    chunks = [slice(start, start + size) for start in range(0, training.trials, size)]
    if len(chunks) == 1:
        return _train_chunk(training, task, chunks[0])
    points, runs, seeds = recording_steps(training), training.trials * len(training.seeds), len(training.seeds)
    curves = Curves(np.array(points), *(np.empty((len(points), runs)) for _ in range(5)), *(np.empty(runs) for _ in range(3)))
    for chunk in chunks:
        for curve, part in zip(curves[1:], _train_chunk(training, task, chunk)[1:], strict=True):
            curve[..., chunk.start * seeds : chunk.stop * seeds] = part
    return curves


def use_threads(threads: int) -> None:
    """Sets the number of threads that torch uses in this process."""
    torch.set_num_threads(threads)


def trials_in_memory(training: Training, task: Task, memory_mb: int) -> int:
    """Returns the number of trials that are trained at once; at least 1.

    These trials, with all their seeds, fit in the memory together with the curves of all runs.

    Args:
      training: the description of the runs.
      task: its task.
      memory_mb: megabytes that runs and curves may use.
    """
    weights = sum(tensor.numel() for tensor in task.model.initial(generator("init", 0)))
    slots = len(OPTIMIZERS[training.optimizer.name].slots(training.optimizer.options))
    numbers = weights * (4 + slots) + training.step_examples * task.model.width
    curves = 5 * len(recording_steps(training)) + 3
    run_bytes = numbers * task.data.x.element_size() + 8 * (3 * weights + 3 * curves)  # curves: recorded, stacked, transposed
    free_bytes = memory_mb * 2**20 - 8 * curves * training.trials * len(training.seeds)
    trials = free_bytes // (run_bytes * len(training.seeds))
    return max(1, trials if 2 * training.trials <= trials else trials // 4)  # later chunks reuse only part of the freed memory


def recording_steps(training: Training) -> list[int]:
    """Returns the steps at which curves have a point: 0, `points` log-spaced steps, and the ends of at most 100 epochs."""
    last = training.steps
    spaced = {round(step) for step in np.geomspace(1, last, min(training.points, last))}
    epochs = last // training.steps_per_epoch
    ends = {epoch * training.steps_per_epoch for epoch in range(1, epochs + 1, math.ceil(max(epochs, 1) / 100))}
    return sorted({0, last} | spaced | ends)


def full_data_mean(per_example: Losses, parameters: list[Tensor], x: Tensor, y: Tensor, width: int) -> Tensor:
    """Returns the mean over all examples of a per-example quantity, [seed, trial], float64.

    The examples are processed in pieces of bounded size.

    Args:
      per_example: function that returns the quantity, [seed, trial, example].
      parameters: parameters of the runs, [seed, trial, *shape] each.
      x: features, [seed or 1, example, ...].
      y: targets, [seed or 1, example].
      width: how many numbers are kept per example and run; see `Model`.
    """
    seeds, trials = parameters[0].shape[:2]
    shape = (len(x), seeds * trials // len(x))  # all runs see the same data where these have no axis of seeds
    run_parameters = [parameter.reshape(*shape, *parameter.shape[2:]) for parameter in parameters]
    size = max(1, BLOCK_BYTES // (seeds * trials * width * x.element_size()))
    total = torch.zeros(shape, dtype=torch.float64)
    with torch.no_grad():
        for features, targets in zip(x.split(size, 1), y.split(size, 1), strict=True):
            total += per_example(run_parameters, features, targets).sum(-1)
    return (total / x.shape[1]).view(seeds, trials)


def per_trial(training: Training, chunk: slice, like: Tensor) -> dict[str, Any]:
    """Returns the hyperparameters of a chunk of trials, for the update of one parameter.

    A hyperparameter with one value per trial becomes a tensor that broadcasts over the parameter.

    Args:
      training: the description of the runs.
      chunk: the trials.
      like: the parameter, [seed, trial, *shape].
    """
    declared = OPTIMIZERS[training.optimizer.name].options
    shape = (1, -1, *[1] * (like.ndim - 2))
    return {
        name: torch.tensor(value[chunk], dtype=like.dtype).view(shape)
        if declared[name].tunable and isinstance(value, tuple)
        else value
        for name, value in training.optimizer.options.items()
    }


class _Runs:
    """The state of one chunk of runs: parameters [seed, trial, *shape] and optimizer state. Each step changes it in place."""

    def __init__(self, training: Training, task: Task, chunk: slice) -> None:
        self.task = task
        trials = len(training.optimizer.options["lr"][chunk])
        initial = [task.model.initial(generator("init", seed)) for seed in training.seeds]
        self.parameters = [
            torch.stack(weights).to(task.data.x.dtype).unsqueeze(1).repeat(1, trials, *[1] * weights[0].ndim)
            for weights in zip(*initial, strict=True)
        ]
        self.gradients = [torch.empty_like(parameter) for parameter in self.parameters]
        self.optimizer = OPTIMIZERS[training.optimizer.name]
        self.hypers = [per_trial(training, chunk, parameter) for parameter in self.parameters]
        self.states = [self.optimizer.state(p, h) for p, h in zip(self.parameters, self.hypers, strict=True)]
        options = training.optimizer.options
        self.plain_sgd = training.optimizer.name == "sgd" and options["momentum"] == 0 and options["weight_decay"] == 0
        self.lrs = torch.tensor(options["lr"][chunk], dtype=task.data.x.dtype).view(1, -1, 1)
        self.lr_factor = lr_factor(training)
        self.full_lrs = [hyper["lr"] for hyper in self.hypers]
        self.factors: dict[float, Tensor] = {}

    def step(self, minibatch: Minibatch, step: int) -> Tensor:
        """Takes one step. Leaves the gradients in `gradients`, and returns the mean loss of the minibatch, [seed, trial]."""
        losses = self.task.model.gradients(self.parameters, *minibatch, self.gradients, 0)
        with torch.no_grad():
            mean = losses().mean(-1)
        self._update(step)
        return mean

    def _update(self, step: int) -> None:
        """Updates the parameters with the gradients in `gradients`, by the optimizer's rule."""
        if self.lr_factor is not None:
            factor = self.lr_factor(step)
            for hyper, lr in zip(self.hypers, self.full_lrs, strict=True):
                hyper["lr"] = lr * factor
        for k, gradient in enumerate(self.gradients):
            self.optimizer.update(self.parameters[k], gradient, self.states[k], self.hypers[k], step)

    def step_unrecorded(self, minibatch: Minibatch, step: int) -> None:
        """Takes one step whose gradients are not recorded.

        Plain SGD adds -lr times the gradient directly to the parameters, without a tensor for the gradient.
        """
        x, y, weight = minibatch
        if self.plain_sgd and isinstance(weight, float):
            scale = self.factor(weight) if self.lr_factor is None else -weight * self.lr_factor(step) * self.lrs
            self.task.model.gradients(self.parameters, x, y, scale, self.parameters, 1)
        else:
            self.task.model.gradients(self.parameters, x, y, weight, self.gradients, 0)
            self._update(step)

    def stride(self, stride: Stride) -> None:
        """Takes the steps of a stride at once. They are not recorded."""
        take(self.parameters[0], stride, self.factor(stride.weight))

    def factor(self, weight: float) -> Tensor:
        """Returns -lr x weight of each trial, [1, trial, 1]."""
        if weight not in self.factors:
            self.factors[weight] = -weight * self.lrs
        return self.factors[weight]

    def train_loss(self) -> tuple[Tensor, Tensor]:
        """Returns the mean loss over the training data, and its excess over the minimum (nan if unknown), [seed, trial] each."""
        optimum = self.task.optimum
        if optimum is not None:
            excess = optimum.excess(self.parameters)
            return optimum.minimum + excess, excess
        loss = self.mean(self.task.model.losses, self.task.data.x, self.task.data.y)
        return loss, torch.full_like(loss, math.nan)

    def risks(self) -> tuple[Tensor, Tensor, Tensor]:
        """Returns training loss, excess risk and population risk (nan where unknown), [seed, trial] each."""
        loss, excess = self.train_loss()
        population = self.task.population
        return loss, excess, torch.full_like(loss, math.nan) if population is None else population.excess(self.parameters)

    def mean(self, per_example: Losses, x: Tensor, y: Tensor) -> Tensor:
        """Returns the mean of a per-example quantity over data of the task, [seed, trial]."""
        if not self.task.has_own_data:
            x, y = x.unsqueeze(0), y.unsqueeze(0)
        return full_data_mean(per_example, self.parameters, x, y, self.task.model.width)


def weights_after(training: Training, task: Task, steps: int) -> list[Tensor]:
    """Returns the weights of each run after a number of steps, [seed, trial, *shape].

    They are the weights that `train` has after these steps. All trials are trained at once.

    Args:
      training: the description of the runs.
      task: its task.
      steps: number of steps.
    """
    runs = _Runs(training, task, slice(None))
    for step, minibatch in zip(range(1, steps + 1), minibatches(training, task), strict=False):
        runs.step_unrecorded(minibatch, step)
    return runs.parameters


class _Target:
    """Watches for the target loss of the budget.

    `reached` [seed, trial] is the step at which a run first reached the target, and inf until then. Between two checks the
    log of the loss is interpolated linearly, so the step can be a fraction. Whole steps would turn the best lr into a
    plateau of equally good lrs where few steps are enough.
    """

    def __init__(self, training: Training, runs: _Runs) -> None:
        self.loss, self.every = training.budget.options["target"], training.budget.options["check_every"]
        self.above = self._log_above(runs.train_loss()[0])
        self.reached = torch.where(self.above <= 0, 0.0, math.inf).double()

    def _log_above(self, loss: Tensor) -> Tensor:
        """Returns the log of loss / target, [seed, trial]; <= 0 where the target is reached."""
        return torch.log(loss.double().clamp(min=1e-300) / self.loss)

    def is_checked_at(self, step: int) -> bool:
        """Whether the loss is compared with the target after this step."""
        return bool(step % self.every == 0)

    def all_finished(self, step: int, runs: _Runs) -> bool:
        """Checks the loss where a check is due. Returns True when every run has reached the target or diverged."""
        if not self.is_checked_at(step):
            return False
        above = self._log_above(runs.train_loss()[0])
        now = (above <= 0) & self.reached.isinf()
        self.reached[now] = (step - self.every * above / (above - self.above))[now]
        self.above = above
        return bool((self.reached.isfinite() | ~above.isfinite()).all())


def _train_chunk(training: Training, task: Task, chunk: slice) -> Curves:
    """Trains the trials of a chunk with every seed, all at once."""
    runs = _Runs(training, task, chunk)
    target = _Target(training, runs) if training.budget.name == "target" else None
    points, last = recording_steps(training), training.steps
    due = set(points) | {1}
    recorded: dict[int, tuple[Tensor, ...]] = {}
    step, use_strides = 0, runs.plain_sgd and target is None and runs.lr_factor is None and _can_stride(training, task)
    for minibatch in strides(training, task, due) if use_strides else minibatches(training, task):
        if isinstance(minibatch, Stride):
            runs.stride(minibatch)
            step += STRIDE
            continue
        step += 1
        if step not in due and not (target is not None and target.is_checked_at(step)):
            runs.step_unrecorded(minibatch, step)
            continue
        before = runs.risks() if step == 1 else None
        minibatch_loss = runs.step(minibatch, step)
        if before is not None:
            recorded[0] = (*before, minibatch_loss, _norm(runs.gradients))
        finished = step == last or (target is not None and target.all_finished(step, runs))
        if finished or step in due:
            recorded[step] = (*runs.risks(), minibatch_loss, _norm(runs.gradients))
        if finished:
            break
    values_at_points = [recorded[step if step in recorded else max(recorded)] for step in points]
    curves = [torch.stack(values).double().transpose(1, 2).flatten(1).numpy() for values in zip(*values_at_points, strict=True)]
    reached = torch.full(runs.parameters[0].shape[:2], math.nan) if target is None else target.reached
    return Curves(np.array(points), *curves, *_ends(runs, reached))


def _can_stride(training: Training, task: Task) -> bool:
    """Whether plain SGD can and should use strides: for least squares whose examples all count 1, in small steps."""
    return task.optimum is not None and task.terms is None and training.step_examples <= LARGEST


def _norm(gradients: list[Tensor]) -> Tensor:
    """Returns the norm of each run's gradient over all parameters, [seed, trial]."""
    norms: list[Tensor] = [torch.linalg.vector_norm(g.flatten(2), dim=-1, dtype=torch.float64) for g in gradients]
    return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms), dim=0)


def _ends(runs: _Runs, reached: Tensor) -> list[Array]:
    """Returns validation loss, validation error and steps to the target, [run] each."""
    model, data = runs.task.model, runs.task.data
    loss = runs.mean(model.losses, data.x_valid, data.y_valid)
    error = torch.full_like(loss, math.nan) if model.errors is None else runs.mean(model.errors, data.x_valid, data.y_valid)
    return [values.double().T.flatten().numpy() for values in (loss, error, reached)]
