"""The loop everybody writes: one module, torch.optim, autograd, one backward a micro-batch. What the rest is held against."""

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from lrscale.law.translation import Batch
from lrscale.streams import generator
from lrscale.tasks.task import Task
from lrscale.training.minibatches import batch_order

Each = Callable[[Tensor, Tensor], Tensor]
"""Outputs and targets to losses, one a term."""


def make_module(task: Task, seed: int) -> nn.Module:
    """A module with the initial weights of a seed, for a task of least squares or with 10 classes."""
    return module_of(task.model.initial(generator("init", seed))).to(task.data.x.dtype)


def module_of(weights: list[Tensor]) -> nn.Module:
    """A module with such weights, float64: a vector: least squares; a matrix and a vector: 10 classes; two of each: an MLP."""
    inputs = weights[0].shape[-1]
    if len(weights) == 1:
        module: nn.Module = nn.Linear(inputs, 1, bias=False)
        weights = [weights[0].unsqueeze(0)]
    elif len(weights) == 2:
        module = nn.Linear(inputs, 10)
    else:
        module = nn.Sequential(nn.Linear(inputs, len(weights[1])), nn.ReLU(), nn.Linear(len(weights[1]), 10))
    module.double()
    with torch.no_grad():
        for parameter, weight in zip(module.parameters(), weights, strict=True):
            parameter.copy_(weight)
    return module


def per_example_losses(out: Tensor, y: Tensor) -> Tensor:
    """Each example's loss, [example]: half the squared error where targets are numbers, cross-entropy where they are classes."""
    if y.is_floating_point():
        return (out.squeeze(1) - y).square() / 2
    return nn.functional.cross_entropy(out, y, reduction="none")


def whole_batches(task: Task, seed: int, size: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields a seed's minibatches, epoch after epoch, short last ones dropped."""
    count, epoch = len(task.data.x), 0
    while steps > 0:
        order = batch_order(seed, epoch, count)
        for places in order[: count // size * size].split(size)[:steps]:
            yield task.data.x[places], task.data.y[places]
            steps -= 1
        epoch += 1


def trajectory(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[tuple[Tensor, Tensor]],
    batch: Batch,
    knobs: Mapping[str, float],
    each: Each = per_example_losses,
) -> Tensor:
    """Trains a module and returns its weights after each step.

    Args:
      module: what is trained, in place.
      optimizer: of torch.optim, over the module's parameters.
      batches: features and targets of each step, [example, ...]; their number is the batch's size.
      batch: how a step's gradient is put together; ranks are played one after the other.
      knobs: `clip_norm`, `clip_value`, `l1` and `l2` by name; others are the optimizer's and are passed over.
      each: losses, one a term.

    Returns:
      Weights, [step, weight].
    """
    parameters, out = list(module.parameters()), []
    for x, y in batches:
        optimizer.zero_grad()
        for part_x, part_y in zip(x.split(batch.micro_batch), y.split(batch.micro_batch), strict=True):
            loss = _reduced(each(module(part_x), part_y), batch) + _penalty(parameters, knobs)
            (loss / (batch.accumulation if batch.divided else 1) / batch.ranks).backward()
        if "clip_norm" in knobs:
            nn.utils.clip_grad_norm_(parameters, knobs["clip_norm"])
        if "clip_value" in knobs:
            nn.utils.clip_grad_value_(parameters, knobs["clip_value"])
        optimizer.step()
        out.append(torch.cat([parameter.detach().flatten() for parameter in parameters]))
    return torch.stack(out)


def _reduced(terms: Tensor, batch: Batch) -> Tensor:
    if batch.reduction == "mean":
        return terms.mean()
    return terms.sum() / (1 if batch.reduction == "sum" else batch.micro_batch)


def _penalty(parameters: list[nn.Parameter], knobs: Mapping[str, float]) -> Tensor | float:
    l1, l2 = knobs.get("l1", 0.0), knobs.get("l2", 0.0)
    return sum(l1 * p.abs().sum() + l2 * p.square().sum() for p in parameters) if l1 or l2 else 0.0
