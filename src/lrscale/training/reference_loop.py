"""The usual training loop: one module, torch.optim, autograd, and one backward pass per micro-batch.

Tests and probes compare the rest of the program with this loop.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from lrscale.law.translation import Batch
from lrscale.streams import generator
from lrscale.tasks.built_in import Arrays, BuiltInTask
from lrscale.training.minibatches import batch_order

TermLosses = Callable[[Tensor, Tensor], Tensor]
"""A function of outputs and targets that returns the losses, one per term."""


def make_module(task: BuiltInTask, seed: int) -> nn.Module:
    """Makes a module with the initial weights of a seed. The task must be least squares, or have 10 classes."""
    return module_of(task.model.initial(generator("init", seed))).to(task.data.x.dtype)


def module_of(weights: list[Tensor]) -> nn.Module:
    """Makes a module with given weights, in float64.

    One vector makes linear regression. A matrix and a vector make softmax regression with 10 classes. Two matrices and two
    vectors make an MLP with 10 classes.
    """
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
    """Returns the loss of each example, [example]: half the squared error for real targets, cross-entropy for classes."""
    if y.is_floating_point():
        return (out.squeeze(1) - y).square() / 2
    return nn.functional.cross_entropy(out, y, reduction="none")


def whole_batches(data: Arrays, seed: int, size: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields the minibatches of a seed, epoch after epoch. A short last minibatch of an epoch is dropped.

    Args:
      data: the data of the seed, without an axis of seeds; `BuiltInTask.data_of` returns it.
      seed: the seed, which decides the order of the examples.
      size: number of examples in a minibatch.
      steps: number of minibatches.

    Returns:
      An iterator over pairs of features, [example, ...], and targets, [example].
    """
    count, epoch = len(data.x), 0
    while steps > 0:
        order = batch_order(seed, epoch, count)
        for indices in order[: count // size * size].split(size)[:steps]:
            yield data.x[indices], data.y[indices]
            steps -= 1
        epoch += 1


def trajectory(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[tuple[Tensor, Tensor]],
    batch: Batch,
    knobs: Mapping[str, float],
    term_losses: TermLosses = per_example_losses,
) -> Tensor:
    """Trains a module and returns its weights after each step.

    Args:
      module: the module to train; its weights are changed in place.
      optimizer: an optimizer of torch.optim for the module's parameters.
      batches: features and targets of each step, [example, ...]. Each step has as many examples as the batch's size.
      batch: how the gradient of a step is computed from its examples. The ranks are simulated, one after the other.
      knobs: values of `clip_norm`, `clip_value`, `l1` and `l2`, by name. Other knobs belong to the optimizer and are ignored.
      term_losses: function that returns the losses, one per term.

    Returns:
      The weights after each step, [step, weight].
    """
    parameters, rows = list(module.parameters()), []
    for x, y in batches:
        optimizer.zero_grad()
        for part_x, part_y in zip(x.split(batch.micro_batch), y.split(batch.micro_batch), strict=True):
            loss = _reduced(term_losses(module(part_x), part_y), batch) + _penalty(parameters, knobs)
            (loss / (batch.accumulation if batch.divided else 1) / batch.ranks).backward()
        if "clip_norm" in knobs:
            nn.utils.clip_grad_norm_(parameters, knobs["clip_norm"])
        if "clip_value" in knobs:
            nn.utils.clip_grad_value_(parameters, knobs["clip_value"])
        optimizer.step()
        rows.append(torch.cat([parameter.detach().flatten() for parameter in parameters]))
    return torch.stack(rows)


def _reduced(losses: Tensor, batch: Batch) -> Tensor:
    """Returns the loss of a micro-batch: its terms' losses reduced by the batch's reduction."""
    if batch.reduction == "mean":
        return losses.mean()
    return losses.sum() / (1 if batch.reduction == "sum" else batch.micro_batch)


def _penalty(parameters: list[nn.Parameter], knobs: Mapping[str, float]) -> Tensor | float:
    """Returns the penalty that is added to the loss of a micro-batch: l1 x sum |w| + l2 x sum w^2."""
    l1, l2 = knobs.get("l1", 0.0), knobs.get("l2", 0.0)
    return sum(l1 * p.abs().sum() + l2 * p.square().sum() for p in parameters) if l1 or l2 else 0.0
