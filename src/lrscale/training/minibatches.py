"""The order of the data: which examples a seed's run sees at each step, the same for every lr and reduction."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from lrscale.spec import Training
from lrscale.streams import generator
from lrscale.tasks.models import Weights
from lrscale.tasks.task import Task
from lrscale.training.multistep import STRIDE, Stride, couplings
from lrscale.training.reduction import example_weights

BLOCK_BYTES = 32 * 2**20
"""Data are gathered in blocks of at most this size, many steps at once."""


class Minibatch(NamedTuple):
    """What one step sees: features [seed, example, ...], targets [seed, example], and the losses' weights."""

    x: Tensor
    y: Tensor
    weights: Weights


@lru_cache(maxsize=128)
def batch_order(seed: int, epoch: int, examples: int) -> Tensor:
    """Order in which a seed's run visits the examples in an epoch, [example]; the same for every batch size."""
    return torch.randperm(examples, generator=generator("order", seed, epoch))


def minibatches(training: Training, task: Task) -> Iterator[Minibatch]:
    """Yields one minibatch a step, epoch after epoch, without end."""
    for x, y, places in _blocks(training, task):
        yield from _singles(training, task, x, y, places)


def strides(training: Training, task: Task, alone: AbstractSet[int]) -> Iterator[Minibatch | Stride]:
    """Yields what `minibatches` does, but whole strides of steps where none of them is to be taken alone."""
    count, step = training.step_examples, 0
    size = STRIDE * count
    weight = _even_weights(training.reduction, training.batch_size, count, task.data.x.dtype)
    assert isinstance(weight, float)
    for x, y, places in _blocks(training, task, beside=2 * size):
        once, twice = couplings(x, count)
        for k, (xs, ys) in enumerate(zip(x.split(size, 1), y.split(size, 1), strict=True)):
            if xs.shape[1] == size and alone.isdisjoint(range(step + 1, step + STRIDE + 1)):
                yield Stride(xs, ys, weight, once[k], twice[k])
                step += STRIDE
            else:
                for minibatch in _singles(training, task, xs, ys, places[:, k * size : (k + 1) * size]):
                    yield minibatch
                    step += 1


def _blocks(training: Training, task: Task, beside: int = 0) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Features, targets and places in the data of the examples of many steps, [seed, example, ...], none across epochs.

    `beside`: numbers that are kept for each example beside its features.
    """
    data, count = task.data, training.step_examples
    stop = training.steps_per_epoch * count if training.drop_last else training.examples
    step_bytes = count * (data.x[0].numel() + beside) * data.x.element_size() * len(training.seeds)
    block = count * max(1, BLOCK_BYTES // step_bytes)
    epoch = 0
    while True:
        orders = torch.stack([batch_order(seed, epoch, training.examples) for seed in training.seeds])
        for start in range(0, stop, block):
            places = orders[:, start : min(start + block, stop)]
            flat = places.flatten()
            yield data.x.index_select(0, flat).unflatten(0, places.shape), data.y.index_select(0, flat).view_as(places), places
        epoch += 1


def _singles(training: Training, task: Task, x: Tensor, y: Tensor, places: Tensor) -> Iterator[Minibatch]:
    """The minibatches of a block's examples."""
    count, terms, described = training.step_examples, task.terms, (training.reduction, training.batch_size)
    xs, ys = x.split(count, 1), y.split(count, 1)
    if terms is not None:
        weights = [_weights(*described, part) for part in terms[places].split(count, 1)]
    else:
        whole, last = (_even_weights(*described, size, x.dtype) for size in (count, xs[-1].shape[1]))
        weights = [whole] * (len(xs) - 1) + [last]
    return map(Minibatch, xs, ys, weights)


@lru_cache(maxsize=128)
def _even_weights(reduction: str, batch_size: int, count: int, dtype: torch.dtype) -> Weights:
    """The weights of a step's examples where each example counts 1."""
    return _weights(reduction, batch_size, torch.ones(1, count, dtype=dtype))


def _weights(reduction: str, batch_size: int, terms: Tensor) -> Weights:
    """Weight x terms of a step's examples; a number where all are the same."""
    weights = example_weights(reduction, terms, batch_size) * terms
    return weights.unsqueeze(1) if bool((weights != weights[0, 0]).any()) else float(weights[0, 0])
