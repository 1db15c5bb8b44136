"""Tasks made of a module: against plain loops, and the closed forms of the program's own tasks against them."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import Tensor, nn
from torch.testing import assert_close

from lrscale.errors import Refusal
from lrscale.spec import Choice, Compute, Training
from lrscale.streams import generator
from lrscale.tasks.models import Model, classifier, linear_regression
from lrscale.tasks.module import module_task
from lrscale.tasks.registry import make_task
from lrscale.tasks.task import Arrays, Task
from lrscale.training.engine import train, trials_in_memory
from lrscale.training.minibatches import batch_order
from lrscale.training.reference_loop import make_module
from tests.configs import make

SEEDS, TRIALS, EXAMPLES = 2, 3, 7
ROUNDING = 1e-10  # float64; sums are taken in another order

cross_entropy = partial(nn.functional.cross_entropy, reduction="none")


def half_square(out: Tensor, y: Tensor) -> Tensor:
    return (out.squeeze(-1) - y).square() / 2


def missed(out: Tensor, y: Tensor) -> Tensor:
    return (out.argmax(-1) != y).to(out.dtype)


def draw(inputs: int, classes: int | None) -> Arrays:
    stream = torch.Generator().manual_seed(1)
    x = torch.randn(SEEDS * EXAMPLES, inputs, generator=stream, dtype=torch.float64)
    y = torch.randn(len(x), generator=stream, dtype=torch.float64)
    if classes is not None:
        y = torch.randint(0, classes, (len(x),), generator=stream)
    return Arrays(x, y, x, y)


FAST: dict[str, tuple[Model, Task]] = {
    "least squares": (
        linear_regression(3, bias=True),
        module_task(lambda: nn.Linear(4, 1, bias=False), half_square, draw(4, None)),
    ),
    "softmax": (classifier(5, 4, None), module_task(lambda: nn.Linear(5, 4), cross_entropy, draw(5, 4), missed)),
    "mlp": (
        classifier(5, 4, 6),
        module_task(lambda: nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4)), cross_entropy, draw(5, 4), missed),
    ),
}


WEIGHTS = [0.5, *(torch.rand(*shape).double() for shape in [(1, 1, EXAMPLES), (SEEDS, 1, EXAMPLES), (1, TRIALS, 1)])]


@pytest.mark.parametrize("beta", [0, 1])
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("name", FAST)
def test_closed_forms_are_what_autograd_finds(name: str, weights: float | Tensor, beta: int) -> None:
    fast, task = FAST[name]
    x, y = (tensor.view(SEEDS, EXAMPLES, *tensor.shape[1:]) for tensor in task.data[:2])
    stream = torch.Generator().manual_seed(2)
    shapes = [weight.shape for weight in task.model.initial(stream)]
    slow = [torch.randn(SEEDS, TRIALS, *shape, generator=stream, dtype=torch.float64) for shape in shapes]
    quick = [parameter.squeeze(2) if name == "least squares" else parameter for parameter in slow]
    assert_close(fast.losses(quick, x, y), task.model.losses(slow, x, y))
    if fast.errors is not None and task.model.errors is not None:
        assert_array_equal(fast.errors(quick, x, y), task.model.errors(slow, x, y))
    ours, theirs = ([torch.full_like(p, 3.0 if beta else torch.nan) for p in of] for of in (quick, slow))
    losses = fast.gradients(quick, x, y, weights, ours, beta)
    assert_close(losses(), fast.losses(quick, x, y), rtol=0, atol=0)
    task.model.gradients(slow, x, y, weights, theirs, beta)
    for one, other in zip(ours, theirs, strict=True):
        assert_close(one, other.view_as(one))


@pytest.mark.parametrize("name", FAST)
def test_gradients_added_to_the_parameters_are_those_before_the_step(name: str) -> None:
    fast, task = FAST[name]
    x, y = (tensor.view(SEEDS, EXAMPLES, *tensor.shape[1:]) for tensor in task.data[:2])
    stream = torch.Generator().manual_seed(2)
    start = [w.expand(SEEDS, TRIALS, *w.shape).clone() for w in fast.initial(stream)]
    gradients = [torch.empty_like(w) for w in start]
    fast.gradients(start, x, y, -0.1, gradients, 0)
    expected = [w + g for w, g in zip(start, gradients, strict=True)]
    fast.gradients(start, x, y, -0.1, start, 1)
    for one, other in zip(start, expected, strict=True):
        assert_close(one, other)


@pytest.mark.parametrize("task", ["d2l", "softmax", "mlp"])
def test_training_a_module_gives_the_curves_of_the_fast_path(task: str) -> None:
    changes: dict[str, Any] = {} if task == "d2l" else {"task": "digits", "task__model": task}
    made = make(**changes, dtype="float64", batch_size=30, seeds=[0, 3], optimizer__lr=[0.01, 0.03], budget__epochs=2)
    fast = make_task(made)
    loss, wrong = (half_square, None) if task == "d2l" else (cross_entropy, missed)
    slow = module_task(lambda: make_module(fast, 0), loss, fast.data, wrong)

    def initial(stream: torch.Generator) -> list[Tensor]:
        weights = fast.model.initial(stream)
        return [weights[0].unsqueeze(0)] if task == "d2l" else weights

    slow = slow._replace(model=slow.model._replace(initial=initial))
    ours, theirs = train(made, fast), train(made, slow)
    for line in ("train_loss", "minibatch_loss", "grad_norm", "valid_loss", "valid_error"):
        assert_allclose(getattr(ours, line), getattr(theirs, line), rtol=ROUNDING)


class Pictures(nn.Module):
    """Not one of the program's own models: a convolution, shared and frozen weights, a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel, self.head = nn.Conv2d(1, 3, 3, padding=1), nn.Linear(3 * 16, 4)
        self.gain = nn.Parameter(torch.tensor(0.5), requires_grad=False)
        self.register_buffer("shift", torch.tensor(0.1))

    def forward(self, x: Tensor) -> Tensor:
        out = self.kernel(x).relu() + self.shift
        return self.head(self.gain * (out + self.kernel(x).tanh()).flatten(-3))


def pictures() -> tuple[Training, Task]:
    stream = torch.Generator().manual_seed(5)
    x = torch.randn(24, 1, 4, 4, generator=stream, dtype=torch.float64)
    y = torch.randint(0, 4, (24,), generator=stream)
    made = make(
        objective="train_loss", batch_size=5, seeds=[1, 2], optimizer__lr=[0.05, 0.1, 0.2], budget__epochs=2, reduction="sum"
    )
    made = replace(made, task=Choice("pictures", {}), examples=24)
    return made, module_task(Pictures, cross_entropy, Arrays(x, y, x, y), missed)


def test_any_module_equals_a_plain_loop() -> None:
    made, task = pictures()
    curves = train(made, task)
    for column, (trial, seed) in enumerate((t, s) for t in range(3) for s in range(2)):
        torch.manual_seed(generator("init", made.seeds[seed]).initial_seed())
        module = Pictures().double()
        optimizer = torch.optim.SGD(module.parameters(), lr=made.optimizer.options["lr"][trial])
        losses = [cross_entropy(module(task.data.x), task.data.y).mean().item()]
        for epoch in range(2):
            for places in batch_order(made.seeds[seed], epoch, 24).split(5):
                optimizer.zero_grad()
                cross_entropy(module(task.data.x[places]), task.data.y[places]).sum().backward()
                optimizer.step()
                losses.append(cross_entropy(module(task.data.x), task.data.y).mean().item())
        assert_allclose(curves.train_loss[:, column], np.array(losses)[curves.steps], rtol=ROUNDING)
        error = float(missed(module(task.data.x), task.data.y).mean())
        assert curves.valid_error[column] == pytest.approx(error)


def test_terms_weigh_examples() -> None:
    made, task = pictures()
    whole = train(made, task).train_loss
    ones = train(made, task._replace(terms=torch.ones(24, dtype=torch.float64))).train_loss
    assert_allclose(ones, whole, rtol=ROUNDING)
    none = train(made, task._replace(terms=torch.zeros(24, dtype=torch.float64))).train_loss
    assert_array_equal(none, np.broadcast_to(none[0], none.shape))


def test_making_modules_leaves_torchs_generator_alone() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    made, task = pictures()
    train(made, task)
    assert_array_equal(torch.get_rng_state(), before)


def test_randomness_and_batch_statistics_are_refused_by_torch() -> None:
    made, task = pictures()
    dropout, norm = (lambda: nn.Sequential(Pictures(), nn.Dropout())), (lambda: nn.Sequential(nn.BatchNorm2d(1), Pictures()))
    for module, message in ((dropout, "random operation"), (norm, "running_mean")):
        with pytest.raises(RuntimeError, match=message):
            train(made, module_task(module, cross_entropy, task.data))


def test_a_training_of_other_data_is_refused() -> None:
    made, task = pictures()
    with pytest.raises(Refusal, match="must have the 25 training examples that the training names, got 24"):
        train(replace(made, examples=25), task)


def test_memory_is_counted() -> None:
    made, task = pictures()
    kept = 2 * 3 * 16 + 3 * 16  # relu and tanh, and what the head sees
    assert kept <= task.model.width <= 10 * kept
    assert trials_in_memory(made, task, 1) < trials_in_memory(made, task, Compute().memory_mb)
