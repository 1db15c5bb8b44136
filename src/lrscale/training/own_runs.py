"""The runs of a user's task: many copies of a module, each with weights, buffers and optimizer state of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import partial
from operator import itemgetter
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import default_collate

from lrscale.errors import Refusal, said
from lrscale.spec import Training
from lrscale.streams import generator
from lrscale.tasks.own import PIECE_BYTES, Task
from lrscale.tasks.rows import CPU, Rows, Tree, leaves, mapped
from lrscale.training.device import free_bytes, own_settings, seed_generators, wait_for, widest
from lrscale.training.fit import check_fit
from lrscale.training.forms import FORMS, Form, Loop, fastest, make_forms, quiet
from lrscale.training.minibatches import batch_order
from lrscale.training.reduction import STEP_DIVISORS
from lrscale.training.updates import make_updates


class OwnMinibatch(NamedTuple):
    """The data of one step: inputs and targets [seed, example, ...], and the sum of the terms of each seed, [seed, 1]."""

    x: Tree
    y: Tree
    terms: Tensor


def own_minibatches(training: Training, task: Task) -> Iterator[OwnMinibatch]:
    """Yields one minibatch per step, epoch after epoch, without end, on the device of the task's data."""
    epoch, step, size, device = 0, 0, training.step_examples, task.train.device
    while True:
        orders = torch.stack([batch_order(seed, epoch, training.examples) for seed in training.seeds])
        orders = orders[:, : training.steps_per_epoch * size]
        stored = orders.to(task.train.stored)  # once an epoch
        for indices, of_data in zip(orders.split(size, 1), stored.split(size, 1), strict=True):
            step += 1
            terms = task.terms[indices].sum(1, keepdim=True)
            yield OwnMinibatch(*_taken(training, task, of_data, step), terms.to(device, widest(device)))
        epoch += 1


def _taken(training: Training, task: Task, indices: Tensor, step: int) -> tuple[Tree, Tree]:
    """Returns the examples of a step, [seed, example, ...]. The draws of random ones depend on the seed and the step alone."""
    if not task.train.is_random:
        return task.train.take(indices)
    draws = [generator("data", seed, step).initial_seed() for seed in training.seeds]
    x, y = default_collate([task.train.take(*pair) for pair in zip(indices, draws, strict=True)])
    return mapped(torch.clone, x), mapped(torch.clone, y)


def choose_form(training: Training, task: Task, on: torch.device | str = CPU) -> tuple[str, str]:
    """Returns the name of the form that is fastest for a step of a training, and why other forms cannot be taken.

    The second one is empty where all can.

    Args:
      training: the description of the runs.
      task: its task.
      on: the device.

    Raises:
      Refusal: the task does not fit the training, or cannot take its smallest micro-batch, or cannot be trained on the device,
        as where its model makes tensors on the CPU, or where others have filled the device.
    """
    check_fit(training, task)
    device = torch.device(on)
    try:
        with own_settings(device), quiet():
            runs = OwnRuns(training, task, slice(None), "loop", device)
            if device != CPU:
                _ = runs.piece_sums(task.valid, torch.arange(1, device=CPU))
            check_smallest(training, task, device)
            return runs.fastest_form(next(own_minibatches(training, task)))
    except Exception as error:
        if device == CPU:
            raise
        with own_settings(CPU):
            check_smallest(training, task, CPU)  # the device is to blame only for what the CPU can take
        problem = said(error.__cause__ or error)
        if "out of memory" in problem.lower():
            raise Refusal(
                f"`compute.device` {device.type} must have room for one step of `task` {training.task.name:.200}, got {problem}. "
                "End other programs that use it, or take fewer seeds, a smaller model or compute.device=cpu."
            ) from error
        raise Refusal(
            f"`compute.device` {device.type} cannot train `task` {training.task.name:.200}, got {problem}. "
            "Make tensors with device=x.device, or with register_buffer. Or take compute.device=cpu."
        ) from error


def check_smallest(training: Training, task: Task, device: torch.device) -> None:
    """Raises Refusal where a task cannot take as few examples at once as the smallest micro-batch has: with batch norm, one."""
    short = 0 if training.drop_last else training.examples % training.step_examples
    size = min(training.batch_size, short % training.batch_size or short or training.batch_size)
    alone = replace(training, seeds=training.seeds[:1])
    runs = OwnRuns(alone, task, slice(0, 1), "loop", device)
    minibatch = next(own_minibatches(alone, task))
    x, y = (mapped(lambda t: t[:, :size], tree) for tree in (minibatch.x, minibatch.y))
    try:
        _ = runs.step(minibatch._replace(x=x, y=y), 1)
    except Exception as error:
        way_out = "Take larger batches." if size == training.batch_size else "Take drop_last=true."
        raise Refusal(
            f"`batch_size` {training.batch_size} gives micro-batches of {size}, which the model or the loss cannot take in train "
            f"mode, got {said(error)}. {way_out}"
        ) from error


def place(training: Training, task: Task, device: torch.device) -> None:
    """Puts the data of a task on a device, in the dtype of a training. Each part may take a quarter of what is free there."""
    task.to(getattr(torch, training.dtype), device, free_bytes(device) / 4)


class OwnRuns:
    """The state of one chunk of runs of a user's task: parameters and buffers [seed, trial, *shape], and optimizer state."""

    def __init__(self, training: Training, task: Task, chunk: slice, form: str, device: torch.device = CPU) -> None:
        """Makes the runs.

        Args:
          training: the description of the runs.
          task: its task.
          chunk: the trials.
          form: the form in which gradients are computed: a name of `FORMS`.
          device: where all is computed. Initial weights are drawn on the CPU.
        """
        self.training, self.task, self.device = training, task, device
        self.dtype = getattr(torch, training.dtype)
        place(training, task, device)
        trials = len(training.optimizer.options["lr"][chunk])
        modules = [task.fresh(generator("init", seed)) for seed in training.seeds]
        parameters = [[p.detach() for p in module.parameters() if p.requires_grad] for module in modules]
        self.parameters = [self._stacked(values, trials) for values in zip(*parameters, strict=True)]
        self.buffers = [self._stacked(values, trials) for values in zip(*(m.buffers() for m in modules), strict=True)]
        self.gradients = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.updates = make_updates(training, chunk, self.parameters, task.factors)
        self.loop = Loop(task, training.seeds)
        self.form: Form = self.loop if form == "loop" else FORMS[form](task, training.seeds)
        for used in (self.loop, self.form):
            self._cast(used)

    def _stacked(self, values: tuple[Tensor, ...], trials: int) -> Tensor:
        """Returns the tensors of each seed's module as one tensor of all runs."""
        stacked = torch.stack(values).unsqueeze(1).repeat(1, trials, *[1] * values[0].ndim)
        return stacked.to(self.device, self.dtype) if stacked.is_floating_point() else stacked.to(self.device)

    def _cast(self, form: Form) -> Form:
        for module in form.modules:
            _ = module.to(self.device, self.dtype)
        return form

    def minibatches(self, alone: AbstractSet[int] | None) -> Iterator[OwnMinibatch]:
        """Yields one minibatch per step, without end; each is a step of its own."""
        return own_minibatches(self.training, self.task)

    def step(self, minibatch: OwnMinibatch, step: int) -> Tensor:
        """Takes one step. Leaves the gradients in `gradients`, and returns the mean loss of its terms, [seed, trial]."""
        sums = self._backward(minibatch, step)
        self.updates.update(self.parameters, self.gradients, step)
        return sums / minibatch.terms

    def step_unrecorded(self, minibatch: OwnMinibatch, step: int) -> None:
        """Takes one step whose gradients are not recorded."""
        self._backward(minibatch, step)
        self.updates.update(self.parameters, self.gradients, step)

    def _backward(self, minibatch: OwnMinibatch, step: int) -> Tensor:
        """Computes the gradients of a step as the reduction makes them, and returns the sums of losses, [seed, trial]."""
        sums = self._sums(self.form, minibatch, step)
        scale = self._scale(minibatch.terms)
        for gradient in self.gradients:
            _ = gradient.mul_(scale.view(-1, *[1] * (gradient.ndim - 1)) if isinstance(scale, Tensor) else scale)
        return sums

    def _scale(self, terms: Tensor) -> Tensor | float:
        """Returns by what the sum of a step's losses is multiplied. A step whose terms all count 0 has no gradient."""
        divisor = STEP_DIVISORS[self.training.reduction](terms, self.training.batch_size)
        return torch.where(divisor > 0, 1 / divisor, 0).to(self.dtype) if isinstance(divisor, Tensor) else 1 / divisor

    def _sums(self, form: Form, minibatch: OwnMinibatch, step: int) -> Tensor:
        """Adds up the gradients of the sums of losses over the micro-batches, which are passed through the module apart."""
        for gradient in self.gradients:
            _ = gradient.zero_()
        total = torch.zeros(self.parameters[0].shape[:2], dtype=widest(self.device), device=self.device)
        parts = zip(*(self._micro_batches(tree) for tree in (minibatch.x, minibatch.y)), strict=True)
        for micro, (x, y) in enumerate(parts):
            total += form.gradients(self.parameters, self.buffers, x, y, self.gradients, partial(self._seed, step, micro))
        return total

    def _micro_batches(self, tree: Tree) -> Iterator[Tree]:
        """Yields the micro-batches of a step's inputs or targets, each [seed, example, ...]."""
        size, count = self.training.batch_size, next(leaves(tree)).shape[1]
        for start in range(0, count, size):
            yield mapped(itemgetter((slice(None), slice(start, start + size))), tree)

    def _seed(self, step: int, micro: int, index: int) -> None:
        """Seeds torch's generator for the draws of the seed at an index in a micro-batch: dropout's masks.

        Step 0 is that of evaluations, whose pieces are its micro-batches.
        """
        name = ("draws", self.training.seeds[index], step, micro)
        seed_generators(self.device, generator(*name).initial_seed())

    def fastest_form(self, minibatch: OwnMinibatch) -> tuple[str, str]:
        """Returns the name of the form that is fastest in a step like this one, and why others cannot be taken."""
        buffers = [buffer.clone() for buffer in self.buffers]

        def take_step(form: Form) -> tuple[list[Tensor], ...]:
            for buffer, before in zip(self.buffers, buffers, strict=True):
                _ = buffer.copy_(before)
            _ = self._sums(form, minibatch, 1)
            pairs = list(zip(self.buffers, buffers, strict=True))
            changes = [after - before for after, before in pairs if before.is_floating_point()]
            counts = [after.to(widest(self.device)) - before for after, before in pairs if not before.is_floating_point()]
            return self.gradients, changes, counts

        forms = [self._cast(form) for form in make_forms(self.task, self.training.seeds)]
        return fastest(forms, take_step, partial(wait_for, self.device))

    def risks(self) -> tuple[Tensor, Tensor, Tensor]:
        """Returns training loss, excess risk and population risk (both nan), [seed, trial] each."""
        loss = self.evaluate(self.task.train)[0]
        unknown = torch.full_like(loss, math.nan)
        return loss, unknown, unknown

    def train_loss(self) -> tuple[Tensor, Tensor]:
        """Returns the mean loss over the training data, and its excess over the minimum (nan), [seed, trial] each."""
        loss, unknown, _ = self.risks()
        return loss, unknown

    def ends(self) -> tuple[Tensor, Tensor]:
        """Returns validation loss and validation error (nan without `wrong`), [seed, trial] each."""
        return self.evaluate(self.task.valid)

    def evaluate(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Returns the mean loss over the terms of some data and the share of wrong predictions, [seed, trial], in eval mode.

        Both are on the CPU.
        """
        size = max(1, PIECE_BYTES // (self.task.width * self.parameters[0].element_size()))
        sums = torch.zeros(4, *self.parameters[0].shape[:2], dtype=torch.float64, device=CPU)
        for piece, indices in enumerate(torch.arange(len(rows), device=CPU).split(size)):
            sums += self.piece_sums(rows, indices, piece).to(CPU)
        losses, weights, wrong, counts = sums
        return losses / weights, wrong / counts

    def piece_sums(self, rows: Rows, indices: Tensor, piece: int = 0) -> Tensor:
        """Returns the sums over a piece of some data in eval mode, [4, seed, trial], on the device; see `Loop.sums`."""
        return self.loop.evaluate(self.parameters, self.buffers, *rows.take(indices, piece), partial(self._seed, 0, piece))
