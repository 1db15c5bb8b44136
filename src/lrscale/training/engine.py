"""Trains many runs as one tensor program: trials x seeds in, their curves out."""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lrscale.errors import Refusal
from lrscale.spec import Compute, Training
from lrscale.streams import generator
from lrscale.tasks.models import Losses
from lrscale.tasks.task import Task
from lrscale.training.minibatches import BLOCK_BYTES, Minibatch, minibatches, strides
from lrscale.training.multistep import LARGEST, STRIDE, Stride, take
from lrscale.training.optimizers import OPTIMIZERS

Array = NDArray[np.float64]


class Curves(NamedTuple):
    """What the runs went through. Runs are ordered trial by trial, each with all its seeds.

    `steps` [point]: updates made. `train_loss` [point, run]: mean loss over the training data.
    `excess_risk` [point, run]: that above its minimum, nan where the minimum is unknown.
    `minibatch_loss`, `grad_norm` [point, run]: of the last update made, the mean loss of its minibatch
    and the norm of its gradient as the reduction makes it (at step 0: of the first update).
    `valid_loss`, `valid_error`, `steps_to_target` [run]: at the end; nan where there is none, steps
    inf where the target was missed.
    """

    steps: NDArray[np.int64]
    train_loss: Array
    excess_risk: Array
    minibatch_loss: Array
    grad_norm: Array
    valid_loss: Array
    valid_error: Array
    steps_to_target: Array


def train(training: Training, task: Task, memory_mb: int = Compute().memory_mb) -> Curves:
    """Trains every trial with every seed.

    All trials of a seed share its initial weights and minibatches. A run never sees its neighbours:
    one that diverges keeps its inf and nan, and the others' numbers stay the same, bit for bit.
    Where the runs do not fit the memory they are trained in chunks, which changes numbers by rounding only.

    Args:
      training: what to train.
      task: its task, from `make_task` or `module_task`.
      memory_mb: megabytes that runs and curves may take.

    Returns:
      Curves, over run = trial x number of seeds + place of the seed.

    Raises:
      Refusal: the task is not one with as many training examples as the training names.

    Source:
      Agreement with plain torch.optim loops: `tests/training/test_engine.py`.
    """
    if len(task.data.x) != training.examples:
        raise Refusal(
            f"`task` must have the {training.examples} training examples that the training names, got {len(task.data.x)}. "
            "Name their number: dataclasses.replace(training, examples=N)."
        )
    size = trials_in_memory(training, task, memory_mb)
    chunks = [slice(start, start + size) for start in range(0, training.trials, size)]
    if len(chunks) == 1:
        return _train_chunk(training, task, chunks[0])
    points, runs, seeds = recording_steps(training), training.trials * len(training.seeds), len(training.seeds)
    whole = Curves(np.array(points), *(np.empty((len(points), runs)) for _ in range(4)), *(np.empty(runs) for _ in range(3)))
    for chunk in chunks:
        for kept, made in zip(whole[1:], _train_chunk(training, task, chunk)[1:], strict=True):
            kept[..., chunk.start * seeds : chunk.stop * seeds] = made
    return whole


def use_threads(threads: int) -> None:
    """Sets how many threads torch computes with in this process."""
    torch.set_num_threads(threads)


def trials_in_memory(training: Training, task: Task, memory_mb: int) -> int:
    """Number of trials, all seeds each, that fit the memory budget beside the curves of all; at least 1."""
    weights = sum(tensor.numel() for tensor in task.model.initial(generator("init", 0)))
    slots = len(OPTIMIZERS[training.optimizer.name].slots(training.optimizer.options))
    numbers = weights * (4 + slots) + training.step_examples * task.model.width
    curves = 4 * len(recording_steps(training)) + 3
    bytes_a_run = numbers * task.data.x.element_size() + 8 * (3 * weights + 3 * curves)  # curves: recorded, stacked, laid out
    room = memory_mb * 2**20 - 8 * curves * training.trials * len(training.seeds)
    fit = room // (bytes_a_run * len(training.seeds))
    return max(1, fit if 2 * training.trials <= fit else fit // 4)  # memory that chunks leave behind is not all used again


def recording_steps(training: Training) -> list[int]:
    """Steps at which curves have a point: 0, `points` log-spaced ones, and each epoch's end (at most 100 of them)."""
    last = training.steps
    spaced = {round(step) for step in np.geomspace(1, last, min(training.points, last))}
    epochs = last // training.steps_per_epoch
    ends = {epoch * training.steps_per_epoch for epoch in range(1, epochs + 1, math.ceil(max(epochs, 1) / 100))}
    return sorted({0, last} | spaced | ends)


def full_data_mean(each: Losses, parameters: list[Tensor], x: Tensor, y: Tensor, width: int) -> Tensor:
    """Mean over all examples of a per-example quantity, float64 [seed, trial], in pieces of bounded size."""
    seeds, trials = parameters[0].shape[:2]
    flat = [parameter.reshape(1, seeds * trials, *parameter.shape[2:]) for parameter in parameters]
    piece = max(1, BLOCK_BYTES // (seeds * trials * width * x.element_size()))
    total = torch.zeros(1, seeds * trials, dtype=torch.float64)
    with torch.no_grad():
        for part, target in zip(x.split(piece), y.split(piece), strict=True):
            total += each(flat, part.unsqueeze(0), target.unsqueeze(0)).sum(-1)
    return (total / len(x)).view(seeds, trials)


def per_trial(training: Training, chunk: slice, like: Tensor) -> dict[str, object]:
    """Hyperparameters for one parameter `like` [seed, trial, *shape]: those with a value a trial as tensors that broadcast."""
    known = OPTIMIZERS[training.optimizer.name].options
    shape = (1, -1, *[1] * (like.ndim - 2))
    return {
        name: torch.tensor(value[chunk], dtype=like.dtype).view(shape)
        if known[name].tunable and isinstance(value, tuple)
        else value
        for name, value in training.optimizer.options.items()
    }


class _Runs:
    """One chunk of runs: parameters [seed, trial, *shape] and optimizer state, changed by each step."""

    def __init__(self, training: Training, task: Task, chunk: slice) -> None:
        self.task = task
        trials = len(training.optimizer.options["lr"][chunk])
        starts = [task.model.initial(generator("init", seed)) for seed in training.seeds]
        self.parameters = [
            torch.stack(weights).to(task.data.x.dtype).unsqueeze(1).repeat(1, trials, *[1] * weights[0].ndim)
            for weights in zip(*starts, strict=True)
        ]
        self.gradients = [torch.empty_like(parameter) for parameter in self.parameters]
        self.optimizer = OPTIMIZERS[training.optimizer.name]
        self.hypers = [per_trial(training, chunk, parameter) for parameter in self.parameters]
        self.states = [self.optimizer.state(p, h) for p, h in zip(self.parameters, self.hypers, strict=True)]
        options = training.optimizer.options
        self.plain_sgd = training.optimizer.name == "sgd" and options["momentum"] == 0 and options["weight_decay"] == 0
        self.lrs = torch.tensor(options["lr"][chunk], dtype=task.data.x.dtype).view(1, -1, 1)
        self.factors: dict[float, Tensor] = {}

    def step(self, minibatch: Minibatch, step: int) -> Tensor:
        """Updates the parameters; leaves the gradients in `gradients` and returns the minibatch's mean loss, [seed, trial]."""
        losses = self.task.model.gradients(self.parameters, *minibatch, self.gradients, 0)
        with torch.no_grad():
            mean = losses().mean(-1)
        self._update(step)
        return mean

    def _update(self, step: int) -> None:
        for k, gradient in enumerate(self.gradients):
            self.optimizer.update(self.parameters[k], gradient, self.states[k], self.hypers[k], step)

    def step_unseen(self, minibatch: Minibatch, step: int) -> None:
        """The same update where nobody looks at the gradients: plain SGD's go into the parameters at once, times -lr."""
        x, y, weight = minibatch
        if self.plain_sgd and isinstance(weight, float):
            self.task.model.gradients(self.parameters, x, y, self.factor(weight), self.parameters, 1)
        else:
            self.task.model.gradients(self.parameters, x, y, weight, self.gradients, 0)
            self._update(step)

    def stride(self, stride: Stride) -> None:
        """Takes several unseen steps at once."""
        take(self.parameters[0], stride, self.factor(stride.weight))

    def factor(self, weight: float) -> Tensor:
        """-lr x weight of each trial, [1, trial, 1]."""
        if weight not in self.factors:
            self.factors[weight] = -weight * self.lrs
        return self.factors[weight]

    def train_loss(self) -> tuple[Tensor, Tensor]:
        """Mean loss over the training data, and its excess over the minimum, [seed, trial] each."""
        model, data, optimum = self.task.model, self.task.data, self.task.optimum
        if optimum is not None:
            excess = optimum.excess(self.parameters)
            return optimum.minimum + excess, excess
        loss = full_data_mean(model.losses, self.parameters, data.x, data.y, model.width)
        return loss, torch.full_like(loss, math.nan)


def weights_after(training: Training, task: Task, steps: int) -> list[Tensor]:
    """Each run's weights after so many steps, [seed, trial, *shape]; as `train` has them, all trials at once."""
    runs = _Runs(training, task, slice(None))
    for step, minibatch in zip(range(1, steps + 1), minibatches(training, task), strict=False):
        runs.step_unseen(minibatch, step)
    return runs.parameters


class _Target:
    """Watches for a target loss: the step at which each run first reached it, inf until then, [seed, trial].

    Between two looks the logarithm of the loss is taken as a line, so that steps come in fractions: whole ones
    would make the best lr a plateau where few steps suffice.
    """

    def __init__(self, training: Training, runs: _Runs) -> None:
        self.loss, self.every = training.budget.options["target"], training.budget.options["check_every"]
        self.above = self._log_above(runs.train_loss()[0])
        self.reached = torch.where(self.above <= 0, 0.0, math.inf).double()

    def _log_above(self, loss: Tensor) -> Tensor:
        return torch.log(loss.double().clamp(min=1e-300) / self.loss)

    def looks_at(self, step: int) -> bool:
        return bool(step % self.every == 0)

    def all_finished(self, step: int, runs: _Runs) -> bool:
        """Checks when it is time; true once every run has reached the target or diverged."""
        if not self.looks_at(step):
            return False
        above = self._log_above(runs.train_loss()[0])
        now = (above <= 0) & self.reached.isinf()
        self.reached[now] = (step - self.every * above / (above - self.above))[now]
        self.above = above
        return bool((self.reached.isfinite() | ~above.isfinite()).all())


def _train_chunk(training: Training, task: Task, chunk: slice) -> Curves:
    runs = _Runs(training, task, chunk)
    target = _Target(training, runs) if training.budget.name == "target" else None
    points, last = recording_steps(training), training.steps
    due = set(points) | {1}
    recorded: dict[int, tuple[Tensor, ...]] = {}
    step, together = 0, runs.plain_sgd and target is None and _can_stride(training, task)
    for minibatch in strides(training, task, due) if together else minibatches(training, task):
        if isinstance(minibatch, Stride):
            runs.stride(minibatch)
            step += STRIDE
            continue
        step += 1
        if step not in due and not (target is not None and target.looks_at(step)):
            runs.step_unseen(minibatch, step)
            continue
        before = runs.train_loss() if step == 1 else None
        minibatch_loss = runs.step(minibatch, step)
        if before is not None:
            recorded[0] = (*before, minibatch_loss, _norm(runs.gradients))
        finished = step == last or (target is not None and target.all_finished(step, runs))
        if finished or step in due:
            recorded[step] = (*runs.train_loss(), minibatch_loss, _norm(runs.gradients))
        if finished:
            break
    held = [recorded[step if step in recorded else max(recorded)] for step in points]
    lines = [torch.stack(values).double().transpose(1, 2).flatten(1).numpy() for values in zip(*held, strict=True)]
    reached = torch.full(runs.parameters[0].shape[:2], math.nan) if target is None else target.reached
    return Curves(np.array(points), *lines, *_ends(runs, reached))


def _can_stride(training: Training, task: Task) -> bool:
    """Least squares whose examples all count 1, in steps that are shorter together."""
    return task.optimum is not None and task.terms is None and training.step_examples <= LARGEST


def _norm(gradients: list[Tensor]) -> Tensor:
    """Norm of each run's gradient over all parameters, [seed, trial]."""
    norms: list[Tensor] = [torch.linalg.vector_norm(g.flatten(2), dim=-1, dtype=torch.float64) for g in gradients]
    return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms), dim=0)


def _ends(runs: _Runs, reached: Tensor) -> list[Array]:
    """Validation loss, validation error and steps to the target, [run] each."""
    model, data = runs.task.model, runs.task.data
    loss = full_data_mean(model.losses, runs.parameters, data.x_valid, data.y_valid, model.width)
    error = torch.full_like(loss, math.nan)
    if model.errors is not None:
        error = full_data_mean(model.errors, runs.parameters, data.x_valid, data.y_valid, model.width)
    return [values.double().T.flatten().numpy() for values in (loss, error, reached)]
