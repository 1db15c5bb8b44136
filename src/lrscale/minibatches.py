"""The order of the data: which examples a seed's run sees at each step, the same for every lr and reduction."""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from lrscale.models import Weights
from lrscale.reduction import example_weights
from lrscale.spec import Training
from lrscale.streams import generator
from lrscale.tasks import Task

BLOCK_BYTES = 32 * 2**20
"""Data are gathered in blocks of at most this size, many steps at once."""


class Minibatch(NamedTuple):
    """What one step sees: features [seed, example, ...], targets [seed, example], and the examples' loss weights."""

    x: Tensor
    y: Tensor
    weights: Weights


@lru_cache(maxsize=128)
def batch_order(seed: int, epoch: int, examples: int) -> Tensor:
    """Order in which a seed's run visits the examples in an epoch, [example]; the same for every batch size."""
    return torch.randperm(examples, generator=generator("order", seed, epoch))


def minibatches(training: Training, task: Task) -> Iterator[Minibatch]:
    """Yields one minibatch a step, epoch after epoch, without end."""
    data, count = task.data, training.step_examples
    stop = training.steps_per_epoch * count if training.drop_last else training.examples
    step_bytes = count * data.x[0].numel() * data.x.element_size() * len(training.seeds)
    block = count * max(1, BLOCK_BYTES // step_bytes)
    ones = torch.ones(1, count, dtype=data.x.dtype)
    same = {size: _weights(training, ones[:, :size]) for size in {count, stop % count or count}}
    epoch = 0
    while True:
        orders = torch.stack([batch_order(seed, epoch, training.examples) for seed in training.seeds])
        for start in range(0, stop, block):
            places = orders[:, start : min(start + block, stop)]
            xs, ys = data.x[places].split(count, 1), data.y[places].split(count, 1)
            if task.terms is None:  # every example counts 1: weights depend on the number of examples alone
                last = len(xs) - 1
                for k in range(last):
                    yield Minibatch(xs[k], ys[k], same[count])
                yield Minibatch(xs[last], ys[last], same[xs[last].shape[1]])
            else:
                for x, y, terms in zip(xs, ys, task.terms[places].split(count, 1), strict=True):
                    yield Minibatch(x, y, _weights(training, terms))
        epoch += 1


def _weights(training: Training, terms: Tensor) -> Weights:
    """Weight x terms of a step's examples; a number where all are the same."""
    weights = example_weights(training.reduction, terms, training.batch_size) * terms
    return weights if bool((weights != weights[0, 0]).any()) else float(weights[0, 0])
