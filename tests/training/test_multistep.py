"""Several steps at once: the same examples in the same order, and the steps' own weights."""

import pytest
import torch
from torch.testing import assert_close

from lrscale.tasks.models import linear_regression
from lrscale.tasks.registry import make_task
from lrscale.training.minibatches import minibatches, strides
from lrscale.training.multistep import LARGEST, STRIDE, Stride, couplings, take
from tests.configs import make

SEEDS, TRIALS, FEATURES = 2, 3, 5


@pytest.mark.parametrize("count", range(1, LARGEST + 1))
@pytest.mark.parametrize("lr", [0.01, 0.3])
def test_a_stride_is_its_steps(count: int, lr: float) -> None:
    stream = torch.Generator().manual_seed(count)
    x = torch.randn(SEEDS, STRIDE * count, FEATURES, generator=stream, dtype=torch.float64)
    y = torch.randn(SEEDS, STRIDE * count, generator=stream, dtype=torch.float64)
    weights = torch.randn(SEEDS, TRIALS, FEATURES, generator=stream, dtype=torch.float64)
    factor = -lr * torch.tensor([1.0, 0.5, 0.1], dtype=torch.float64).view(1, -1, 1) / count
    once, twice = couplings(x, count)
    stepped = weights.clone()
    take(weights, Stride(x, y, 1.0, once[0], twice[0]), factor)
    model = linear_regression(FEATURES, bias=False)
    for xs, ys in zip(x.split(count, 1), y.split(count, 1), strict=True):
        model.gradients([stepped], xs, ys, factor, [stepped], 1)
    assert_close(weights, stepped, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_strides_hold_the_examples_of_their_steps_and_leave_alone_what_is_looked_at(batch_size: int, drop_last: bool) -> None:
    made = make(task="linear", task__examples=50, batch_size=batch_size, drop_last=drop_last, seeds=2)
    task, alone = make_task(made), {1, 2, 21, made.steps_per_epoch, made.steps_per_epoch + 6}
    singles, step, strode, last = minibatches(made, task), 0, 0, 3 * made.steps_per_epoch
    for minibatch in strides(made, task, alone):
        steps = range(step + 1, step + (STRIDE if isinstance(minibatch, Stride) else 1) + 1)
        assert len(steps) == 1 or alone.isdisjoint(steps)
        parts = [next(singles) for _ in steps]
        assert_close(minibatch.x, torch.cat([part.x for part in parts], 1))
        assert_close(minibatch.y, torch.cat([part.y for part in parts], 1))
        assert {part.weights for part in parts} == {minibatch[2]}
        step += len(steps)
        strode += len(steps) > 1
        if step >= last:
            break
    assert strode * STRIDE > last / 2
