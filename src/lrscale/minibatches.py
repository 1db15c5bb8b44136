"""The order of the data: which examples a seed's run sees at each step, the same for every lr and reduction."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from lrscale.reduction import example_weights
from lrscale.spec import Training
from lrscale.streams import generator
from lrscale.tasks import Task

BLOCK_BYTES = 32 * 2**20
"""Data are gathered in blocks of at most this size, many steps at once."""


class Minibatch(NamedTuple):
    """What one step sees: features [seed, example, feature], targets and loss weights [seed or 1, example]."""

    x: Tensor
    y: Tensor
    weights: Tensor


def batch_order(seed: int, epoch: int, examples: int) -> Tensor:
    """Order in which a seed's run visits the examples in an epoch, [example]; the same for every batch size."""
    return torch.randperm(examples, generator=generator("order", seed, epoch))


def minibatches(training: Training, task: Task) -> Iterator[Minibatch]:
    """Yields one minibatch a step, epoch after epoch, without end."""
    data, count = task.data, training.step_examples
    stop = training.steps_per_epoch * count if training.drop_last else training.examples
    step_bytes = count * data.x.shape[1] * data.x.element_size() * len(training.seeds)
    block = count * max(1, BLOCK_BYTES // step_bytes)
    weigh = _weigher(training, task)
    epoch = 0
    while True:
        orders = torch.stack([batch_order(seed, epoch, training.examples) for seed in training.seeds])
        for start in range(0, stop, block):
            places = orders[:, start : min(start + block, stop)]
            for x, y, at in zip(*(a.split(count, 1) for a in (data.x[places], data.y[places], places)), strict=True):
                yield Minibatch(x, y, weigh(at))
        epoch += 1


def _weigher(training: Training, task: Task) -> Callable[[Tensor], Tensor]:
    """Makes the function from places [seed, example] to weight x terms; one result a size where every term is 1."""
    known: dict[int, Tensor] = {}

    def weigh(places: Tensor) -> Tensor:
        if task.terms is not None:
            terms = task.terms[places]
            return example_weights(training.reduction, terms, training.batch_size) * terms
        count = places.shape[1]
        if count not in known:
            ones = torch.ones(1, count, dtype=task.data.x.dtype)
            known[count] = example_weights(training.reduction, ones, training.batch_size)
        return known[count]

    return weigh
