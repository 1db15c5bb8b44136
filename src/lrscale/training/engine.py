"""Trains many runs as one tensor program: takes trials x seeds, and returns the curves of all runs."""

import math
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lrscale.spec import Compute, Training
from lrscale.streams import generator
from lrscale.system import memory_bytes
from lrscale.tasks.built_in import BuiltInTask
from lrscale.tasks.own import Task
from lrscale.tasks.registry import check_runs, weight_bytes
from lrscale.tasks.rows import CPU
from lrscale.training.built_in_runs import BuiltInRuns
from lrscale.training.device import SHARE, free_bytes, own_settings, widest
from lrscale.training.fit import check_fit
from lrscale.training.forms import quiet
from lrscale.training.minibatches import minibatches
from lrscale.training.multistep import STRIDE, Stride
from lrscale.training.named_optimizer import optimizer_of
from lrscale.training.own_runs import OwnRuns, choose_form, place

DEFAULT = Compute()
MEMORY_MB = 1024
"""The memory that runs and curves may use where nothing is said, and torch does not know what is free, in megabytes."""
Array = NDArray[np.float64]
"""An array of float64."""
Told = Callable[[int, int, float], None] | None
"""A function that is told the step, the number of steps and the mean loss; or None."""


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


def train(training: Training, task: BuiltInTask | Task, compute: Compute = DEFAULT, told: Told = None) -> Curves:
    """Trains every trial with every seed.

    All trials of a seed share its initial weights and minibatches. Runs do not influence each other: a run that diverges
    keeps its inf and nan, and the numbers of the other runs stay the same, bit for bit. Where the runs do not fit in the
    memory, they are trained in chunks. Chunks change the numbers by rounding only.

    Args:
      training: the description of the runs.
      task: its task, from `make_task`, or a task of the user's own.
      compute: settings of the machine: the memory that runs and curves may use, and the device of a task of the user's own,
        `cpu`, `cuda` or `mps`; see `chosen`. The number of threads is that of `use_threads`.
      told: called at each recorded point after the first with the step, the number of steps, and the mean training loss. Where
        there are several chunks, both numbers count the steps of all.

    Returns:
      The curves of all runs, with run = trial x number of seeds + index of the seed.

    Raises:
      Refusal: the task does not have the training examples or the data draws that the training names, or the optimizer
        takes matrices only and a parameter is none.

    Source:
      `tests/training/test_engine.py` checks the agreement with plain loops of torch.optim.
    """
    check_fit(training, task)
    size = trials_in_memory(training, task, compute)
    chunks = [slice(start, start + size) for start in range(0, training.trials, size)]
    if len(chunks) == 1:
        return _train_chunk(training, task, chunks[0], compute, told)
    points, runs, seeds = recording_steps(training), training.trials * len(training.seeds), len(training.seeds)
    curves = Curves(np.array(points), *(np.empty((len(points), runs)) for _ in range(5)), *(np.empty(runs) for _ in range(3)))
    for index, chunk in enumerate(chunks):
        of_all = None if told is None else partial(_of_chunks, told, index, len(chunks))
        for curve, part in zip(curves[1:], _train_chunk(training, task, chunk, compute, of_all)[1:], strict=True):
            curve[..., chunk.start * seeds : chunk.stop * seeds] = part
    return curves


def _of_chunks(told: Callable[[int, int, float], None], index: int, count: int, step: int, steps: int, loss: float) -> None:
    """Tells how far all chunks are, where one of them has taken some steps."""
    told(index * steps + step, count * steps, loss)


def use_threads(threads: int) -> None:
    """Sets the number of threads that torch uses in this process."""
    torch.set_num_threads(threads)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Inside this context torch may use as many threads as `use_threads` says there; afterwards, as many as before.

    Args:
      count: number of threads at first.
    """
    before = torch.get_num_threads()
    use_threads(count)
    try:
        yield
    finally:
        use_threads(before)


def trials_in_memory(training: Training, task: BuiltInTask | Task, compute: Compute = DEFAULT) -> int:
    """Returns the number of trials that are trained at once; at least 1.

    These trials, with all their seeds, fit in the memory together with the curves of all runs.

    Args:
      training: the description of the runs.
      task: its task.
      compute: settings of the machine.
    """
    room = math.inf
    if isinstance(task, Task):
        device = torch.device(compute.device)
        place(training, task, device)  # the data come first, and the runs take what is left
        room = SHARE * free_bytes(device)
        weights, width, bytes_each = task.weights, task.width, getattr(torch, training.dtype).itemsize
    else:
        weights = sum(tensor.numel() for tensor in task.model.initial(generator("init", 0)))
        width, bytes_each = task.model.width, task.data.x.element_size()
    curves = _curve_numbers(training)
    run_bytes = bytes_of_run(training, weights, width, bytes_each)
    if compute.memory_mb is not None or room == math.inf:
        room = (compute.memory_mb or MEMORY_MB) * 2**20
    room -= 8 * curves * training.trials * len(training.seeds)
    trials = int(room // (run_bytes * len(training.seeds)))
    return max(1, trials if 2 * training.trials <= trials else trials // 4)  # later chunks reuse only part of the freed memory


def _curve_numbers(training: Training) -> int:
    return 5 * len(recording_steps(training)) + 3


def bytes_of_run(training: Training, weights: int, width: int, bytes_each: int) -> int:
    """Returns the memory that one run takes while it is trained, in bytes.

    Args:
      training: the description of the runs.
      weights: how many weights the model has.
      width: how many numbers a run keeps for each example of a step.
      bytes_each: the bytes of a number.
    """
    slots = len(optimizer_of(training.optimizer).slots(training.optimizer.options))
    curves = 3 * _curve_numbers(training)  # recorded, stacked, transposed
    return weight_bytes(weights, bytes_each, slots) + training.step_examples * width * bytes_each + 8 * curves


def within_machine(training: Training, task: Task, device: str) -> Training:
    """Returns a training with as many of its trials as this machine's memory holds at once with all seeds.

    Args:
      training: the description of the runs.
      task: its task.
      device: where it is trained. Of another device than the CPU, the memory is known only when it is used.

    Raises:
      Refusal: not even one trial fits.
    """
    run, seeds = bytes_of_run(training, task.weights, task.width, getattr(torch, training.dtype).itemsize), len(training.seeds)
    if device != "cpu" or run * seeds * training.trials <= memory_bytes():
        return training
    what = f"{task.weights} weights and {training.step_examples} examples in a step x {task.width} numbers"
    check_runs(training.task.name, run, seeds, what)
    options = {**training.optimizer.options, "lr": training.optimizer.options["lr"][: memory_bytes() // (run * seeds)]}
    return replace(training, optimizer=replace(training.optimizer, options=options))


def recording_steps(training: Training) -> list[int]:
    """Returns the steps at which curves have a point: 0, `points` log-spaced steps, and the ends of at most 100 epochs."""
    last = training.steps
    spaced = {round(step) for step in np.geomspace(1, last, min(training.points, last))}
    epochs = last // training.steps_per_epoch
    ends = {epoch * training.steps_per_epoch for epoch in range(1, epochs + 1, math.ceil(max(epochs, 1) / 100))}
    return sorted({0, last} | spaced | ends)


M = TypeVar("M")
"""The minibatches of some runs."""


class Runs(Protocol[M]):
    """The state of one chunk of runs. Each step changes it in place."""

    parameters: list[Tensor]
    gradients: list[Tensor]

    def minibatches(self, alone: AbstractSet[int] | None) -> Iterator[M]:
        """Yields one minibatch per step, without end. Steps other than those in `alone` may be joined to strides."""

    def step(self, minibatch: M, step: int) -> Tensor:
        """Takes one step. Leaves the gradients in `gradients`, and returns the mean loss of the minibatch, [seed, trial]."""

    def step_unrecorded(self, minibatch: M, step: int) -> None:
        """Takes one step, or a stride of several, whose gradients are not recorded."""

    def train_loss(self) -> tuple[Tensor, Tensor]:
        """Returns the mean loss over the training data, and its excess over the minimum (nan if unknown), [seed, trial] each."""

    def risks(self) -> tuple[Tensor, Tensor, Tensor]:
        """Returns training loss, excess risk and population risk (nan where unknown), [seed, trial] each."""

    def ends(self) -> tuple[Tensor, Tensor]:
        """Returns validation loss and validation error (nan without classes), [seed, trial] each."""


def weights_after(training: Training, task: BuiltInTask, steps: int) -> list[Tensor]:
    """Returns the weights of each run after a number of steps, [seed, trial, *shape].

    They are the weights that `train` has after these steps. All trials are trained at once.

    Args:
      training: the description of the runs.
      task: its task.
      steps: number of steps.
    """
    runs = BuiltInRuns(training, task, slice(None))
    for step, minibatch in zip(range(1, steps + 1), minibatches(training, task), strict=False):
        runs.step_unrecorded(minibatch, step)
    return runs.parameters


class _Target:
    """Watches for the target loss of the budget.

    `reached` [seed, trial] is the step at which a run first reached the target, and inf until then. Between two checks the
    log of the loss is interpolated linearly, so the step can be a fraction. Whole steps would turn the best lr into a
    plateau of equally good lrs where few steps are enough.
    """

    def __init__(self, training: Training, runs: Runs[M]) -> None:
        self.loss, self.every = training.budget.options["target"], training.budget.options["check_every"]
        self.above = self._log_above(runs.train_loss()[0])
        self.reached = torch.where(self.above <= 0, 0.0, math.inf).double()

    def _log_above(self, loss: Tensor) -> Tensor:
        """Returns the log of loss / target, [seed, trial]; <= 0 where the target is reached."""
        return torch.log(loss.double().clamp(min=1e-300) / self.loss)

    def is_checked_at(self, step: int) -> bool:
        """Whether the loss is compared with the target after this step."""
        return bool(step % self.every == 0)

    def all_finished(self, step: int, runs: Runs[M]) -> bool:
        """Checks the loss where a check is due. Returns True when every run has reached the target or diverged."""
        if not self.is_checked_at(step):
            return False
        above = self._log_above(runs.train_loss()[0])
        now = (above <= 0) & self.reached.isinf()
        self.reached[now] = (step - self.every * above / (above - self.above))[now]
        self.above = above
        return bool((self.reached.isfinite() | ~above.isfinite()).all())


def _train_chunk(training: Training, task: BuiltInTask | Task, chunk: slice, compute: Compute, told: Told = None) -> Curves:
    """Trains the trials of a chunk with every seed, all at once."""
    if isinstance(task, Task):
        device = torch.device(compute.device)
        form = training.task.options.get("form") or choose_form(training, task, device)[0]
        with own_settings(device, compute.tf32), quiet():  # dropout and a user's optimizer draw from torch's own generator
            return _curves(training, OwnRuns(training, task, chunk, form, device), told)
    with torch.random.fork_rng(devices=[]):
        return _curves(training, BuiltInRuns(training, task, chunk), told)


def _curves(training: Training, runs: Runs[M], told: Told = None) -> Curves:
    """Takes all steps of some runs, and returns their curves."""
    target = _Target(training, runs) if training.budget.name == "target" else None
    points, last = recording_steps(training), training.steps
    due = set(points) | {1}
    recorded: dict[int, tuple[Tensor, ...]] = {}
    step = 0
    for minibatch in runs.minibatches(due if target is None else None):
        step += STRIDE if isinstance(minibatch, Stride) else 1
        if step not in due and not (target is not None and target.is_checked_at(step)):
            runs.step_unrecorded(minibatch, step)
            continue
        before = runs.risks() if step == 1 else None
        minibatch_loss = runs.step(minibatch, step)
        if before is not None:
            recorded[0] = _on_cpu(*before, minibatch_loss, _norm(runs.gradients))
        finished = step == last or (target is not None and target.all_finished(step, runs))
        if finished or step in due:
            recorded[step] = _on_cpu(*runs.risks(), minibatch_loss, _norm(runs.gradients))
            if told is not None:
                told(step, last, recorded[step][0].double().mean().item())
        if finished:
            break
    values_at_points = [recorded[step if step in recorded else max(recorded)] for step in points]
    curves = [torch.stack(values).double().transpose(1, 2).flatten(1).numpy() for values in zip(*values_at_points, strict=True)]
    reached = torch.full(runs.parameters[0].shape[:2], math.nan, device=CPU) if target is None else target.reached
    ends = [values.double().T.flatten().numpy() for values in (*runs.ends(), reached)]
    return Curves(np.array(points), *curves, *ends)


def _on_cpu(*values: Tensor) -> tuple[Tensor, ...]:
    return tuple(value.to(CPU) for value in values)


def _norm(gradients: list[Tensor]) -> Tensor:
    """Returns the norm of each run's gradient over all parameters, [seed, trial]."""
    dtype = widest(gradients[0].device)
    norms: list[Tensor] = [torch.linalg.vector_norm(g.flatten(2), dim=-1, dtype=dtype) for g in gradients]
    return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms), dim=0)
