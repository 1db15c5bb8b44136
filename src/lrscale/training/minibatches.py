"""The minibatches of each seed: the examples that its runs see at each step. They are the same for every lr and reduction."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from lrscale.spec import Training
from lrscale.streams import generator
from lrscale.tasks.built_in import BuiltInTask
from lrscale.tasks.models import Weights
from lrscale.training.multistep import STRIDE, Stride, couplings
from lrscale.training.reduction import example_weights

BLOCK_BYTES = 32 * 2**20
"""The largest size of a block of data, in bytes. The examples of many steps are gathered at once, as one block."""


class Minibatch(NamedTuple):
    """The data of one step: features [seed, example, ...], targets [seed, example], and the weights of the losses."""

    x: Tensor
    y: Tensor
    weights: Weights


@lru_cache(maxsize=128)
def batch_order(seed: int, epoch: int, examples: int) -> Tensor:
    """Returns the order in which the runs of a seed visit the examples in an epoch, [example]; the same for every batch size."""
    return torch.randperm(examples, generator=generator("order", seed, epoch), device="cpu")


def minibatches(training: Training, task: BuiltInTask) -> Iterator[Minibatch]:
    """Yields one minibatch per step, epoch after epoch, without end."""
    for x, y, indices in _blocks(training, task):
        yield from _split_block(training, task, x, y, indices)


def strides(training: Training, task: BuiltInTask, alone: AbstractSet[int]) -> Iterator[Minibatch | Stride]:
    """Yields the same steps as `minibatches`, but joins STRIDE steps to one `Stride` where this is possible.

    Args:
      training: what is trained.
      task: its task, of least squares; each example must count 1.
      alone: steps that must not be part of a stride, counted from 1.
    """
    count, step = training.step_examples, 0
    size = STRIDE * count
    weight = _even_weights(training.reduction, training.batch_size, count, task.data.x.dtype)
    assert isinstance(weight, float)
    for x, y, indices in _blocks(training, task, extra_numbers=2 * size):
        coupling, squared = couplings(x, count)
        for k, (xs, ys) in enumerate(zip(x.split(size, 1), y.split(size, 1), strict=True)):
            if xs.shape[1] == size and alone.isdisjoint(range(step + 1, step + STRIDE + 1)):
                yield Stride(xs, ys, weight, coupling[k], squared[k])
                step += STRIDE
            else:
                for minibatch in _split_block(training, task, xs, ys, indices[:, k * size : (k + 1) * size]):
                    yield minibatch
                    step += 1


def _blocks(training: Training, task: BuiltInTask, extra_numbers: int = 0) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yields the examples of many steps at once: features, targets, and the examples' indices in the data.

    All three are [seed, example, ...]. The indices are those in the seed's own data, where it has such. No block holds
    examples of two epochs. `extra_numbers` is how many numbers are kept for each example in addition to its features; it
    makes the blocks smaller.
    """
    x, y, count = task.data.x, task.data.y, training.step_examples
    first = torch.zeros(1, 1, dtype=torch.int64)  # where the data of each seed start
    if task.has_own_data:
        first = len(x[0]) * torch.arange(len(x)).unsqueeze(1)
        x, y = x.flatten(0, 1), y.flatten(0, 1)
    stop = training.steps_per_epoch * count if training.drop_last else training.examples
    step_bytes = count * (x[0].numel() + extra_numbers) * x.element_size() * len(training.seeds)
    block = count * max(1, BLOCK_BYTES // step_bytes)
    epoch = 0
    while True:
        orders = torch.stack([batch_order(seed, epoch, training.examples) for seed in training.seeds])
        for start in range(0, stop, block):
            indices = orders[:, start : min(start + block, stop)]
            flat = (indices + first).flatten()
            yield x.index_select(0, flat).unflatten(0, indices.shape), y.index_select(0, flat).view_as(indices), indices
        epoch += 1


def _split_block(training: Training, task: BuiltInTask, x: Tensor, y: Tensor, indices: Tensor) -> Iterator[Minibatch]:
    """Yields the minibatches of a block: `x`, `y` and `indices` are those that `_blocks` yields."""
    count, terms, reduction = training.step_examples, task.terms, (training.reduction, training.batch_size)
    xs, ys = x.split(count, 1), y.split(count, 1)
    if terms is not None:
        weights = [_weights(*reduction, part) for part in terms[indices].split(count, 1)]
    else:
        full, last = (_even_weights(*reduction, size, x.dtype) for size in (count, xs[-1].shape[1]))
        weights = [full] * (len(xs) - 1) + [last]
    return map(Minibatch, xs, ys, weights)


@lru_cache(maxsize=128)
def _even_weights(reduction: str, batch_size: int, count: int, dtype: torch.dtype) -> Weights:
    """Returns the weights of the examples of a step in which each example counts 1."""
    return _weights(reduction, batch_size, torch.ones(1, count, dtype=dtype))


def _weights(reduction: str, batch_size: int, terms: Tensor) -> Weights:
    """Returns weight x terms of the examples of a step; a number where all are the same."""
    weights = example_weights(reduction, terms, batch_size) * terms
    return weights.unsqueeze(1) if bool((weights != weights[0, 0]).any()) else float(weights[0, 0])
