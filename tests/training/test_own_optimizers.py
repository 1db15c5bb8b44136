"""A user's own optimizer class: the runs equal plain loops with that class, and its answer to larger gradients is measured."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lrscale.errors import Refusal
from lrscale.spec import Training
from lrscale.streams import generator
from lrscale.study.config import identity, make_training
from lrscale.study.own_code import own_facts
from lrscale.study.plan import with_values
from lrscale.tasks.own import Task, called
from lrscale.tasks.registry import make_built_in, make_task
from lrscale.tasks.source import load, trust
from lrscale.training.engine import train
from lrscale.training.minibatches import batch_order
from lrscale.training.named_optimizer import optimizer_of
from lrscale.training.own_updates import OwnUpdates
from lrscale.training.schedules import lr_factor
from tests.configs import config
from tests.loops import train_plainly

CLOSE = {"rtol": 1e-12, "atol": 1e-14}
"""Sums of float64 in another order."""
OPTIMIZERS = '''
import torch

class Rule(torch.optim.Optimizer):
    """Calls `change` for each parameter."""
    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                self.change(p, p.grad, self.state[p], group)

class Lion(Rule):
    """Lion. It changes its gradients, which nobody else must see."""
    def __init__(self, params, lr: float = 0.001, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.01):
        super().__init__(params, dict(lr=lr, betas=betas, weight_decay=weight_decay))
    def change(self, p, g, state, group):
        m = state.setdefault("m", torch.zeros_like(p))
        p.mul_(1 - group["lr"] * group["weight_decay"])
        p.add_((group["betas"][0] * m).add_(g, alpha=1 - group["betas"][0]).sign_(), alpha=-group["lr"])
        m.mul_(group["betas"][1]).add_(g.mul_(1 - group["betas"][1]))

class Momentum(Rule):
    """SGD with momentum. It puts a new tensor in the place of the weights."""
    def __init__(self, params, lr=0.01, momentum=0.9, weight_decay=0):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))
    def change(self, p, g, state, group):
        m = state.setdefault("m", torch.zeros_like(p))
        m.mul_(group["momentum"]).add_(g + group["weight_decay"] * p)
        p.data = p.data - group["lr"] * m

class Lars(Rule):
    """Steps as large as a share of the weights' norm."""
    def __init__(self, params, lr: float = 0.01):
        super().__init__(params, dict(lr=lr))
    def change(self, p, g, state, group):
        p.sub_(group["lr"] * (p.norm() + 0.1) / g.norm() * g)

class Clipped(Rule):
    """SGD whose gradients are clipped by the norm of all of them: no power of their size."""
    def __init__(self, params, lr: float = 0.1):
        super().__init__(params, dict(lr=lr))
    def step(self, closure=None):
        gradients = [p.grad for group in self.param_groups for p in group["params"]]
        self.factor = min(1.0, 2 / float(torch.cat([g.flatten() for g in gradients]).norm()))
        return super().step()
    def change(self, p, g, state, group):
        p.sub_(group["lr"] * self.factor * g)

class Blind(Rule):
    """Takes its lr from the first call only."""
    def __init__(self, params, lr: float = 0.1):
        super().__init__(params, dict(lr=lr))
        self.lr = lr
    def change(self, p, g, state, group):
        p.sub_(self.lr * g.sign())

class Noisy(Rule):
    """Adds noise to the gradients."""
    def __init__(self, params, lr: float = 0.01):
        super().__init__(params, dict(lr=lr))
    def change(self, p, g, state, group):
        p.sub_(group["lr"] * (g + torch.randn_like(g)))

class Adamlike(Rule):
    """Adam without moments."""
    def __init__(self, params, lr: float = 0.01, eps: float = 1e-8):
        super().__init__(params, dict(lr=lr, eps=eps))
    def change(self, p, g, state, group):
        p.sub_(group["lr"] * g / (g.abs() + group["eps"]))

class Root(Rule):
    def __init__(self, params, lr: float = 0.01):
        super().__init__(params, dict(lr=lr))
    def change(self, p, g, state, group):
        p.sub_(group["lr"] * g.sign() * g.abs().sqrt())

class Closure(Rule):
    def __init__(self, params, lr: float = 0.01):
        super().__init__(params, dict(lr=lr))
    def step(self, closure):
        return closure()

class Still(Rule):
    def __init__(self, params, lr: float = 0.01):
        super().__init__(params, dict(lr=lr))
    def change(self, p, g, state, group):
        pass

class NoClass:
    def __init__(self, params, lr: float = 0.01):
        pass

class Inherited(torch.optim.SGD):
    pass
'''
TASK = """
import torch
from torch import nn
import lrscale

def mlp(width: int = 5):
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(40, 4, generator=draw, dtype=torch.float64)
    y = x.sum(1, keepdim=True).tanh()
    groups = lambda name, p: {"lr": 0.5} if p.ndim < 2 else {}
    return lrscale.Task(lambda: nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 1)), nn.MSELoss(), (x, y), (x, y),
                        groups=groups)
"""


@pytest.fixture
def mine(folder: Path) -> Path:
    """A file with optimizers and a task, trusted, in the working folder."""
    file = folder / "mine.py"
    file.write_text(OPTIMIZERS + TASK)
    trust(file)
    return file


def made(optimizer: str, **changes: Any) -> Training:
    settings = {"dtype": "float64", "seeds": 3, "batch_size": 8, "points": 5, "budget": "steps", "budget__steps": 12, **changes}
    values = config(optimizer=f"mine.py:{optimizer}", **settings)
    return make_training(with_values(values, own_facts(values, 2)))


def class_of(training: Training) -> Any:
    return load("optimizer", training.optimizer.name, training.optimizer.options["sha256"])


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize(
    ("optimizer", "way"), [("Lion", "stacked"), ("Momentum", "stacked"), ("Lars", "apart"), ("Clipped", "apart")]
)
@pytest.mark.parametrize("task", ["linear", "digits_mlp"])
def test_runs_equal_plain_loops_with_the_class(mine: Path, task: str, optimizer: str, way: str, schedule: str) -> None:
    training = made(optimizer, task=task, schedule=schedule, optimizer__lr=[0.01, 0.03], drop_last=True)
    assert training.optimizer.options["way"] == way
    built_in = make_built_in(training)
    curves = train(training, built_in)
    for trial in range(2):
        for index, seed in enumerate(training.seeds):
            points = frozenset(int(step) for step in curves.steps)
            losses, norms = train_plainly(training, built_in, seed, trial, points, class_of(training))
            run = trial * len(training.seeds) + index
            np.testing.assert_allclose(curves.train_loss[:, run], losses, **CLOSE)
            np.testing.assert_allclose(curves.grad_norm[1:, run], norms, **CLOSE)


@pytest.mark.parametrize(("optimizer", "way"), [("Lion", "stacked"), ("Momentum", "stacked"), ("Lars", "apart")])
def test_runs_of_ones_own_task_equal_plain_loops_with_groups(mine: Path, optimizer: str, way: str) -> None:
    training = made(optimizer, task="mine.py:mlp", schedule="linear", optimizer__lr=[0.01, 0.02], reduction="sum")
    assert training.optimizer.options["way"] == way
    task = make_task(training)
    assert isinstance(task, Task)
    ends = train(training, task).valid_loss
    plain = [own_loop(training, task, seed, lr) for lr in training.optimizer.options["lr"] for seed in training.seeds]
    np.testing.assert_allclose(ends, plain, **CLOSE)


def own_loop(training: Training, task: Task, seed: int, lr: float) -> float:
    """The last loss of the loop that everybody writes, with half the lr for biases."""
    module, factor = task.fresh(generator("init", seed)).double(), lr_factor(training)
    assert factor is not None
    biases = [p for p in module.parameters() if p.ndim < 2]
    groups = [{"params": [p for p in module.parameters() if p.ndim > 1]}, {"params": biases, "lr": lr / 2}]
    optimizer = class_of(training)(groups, lr=lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: factor(k + 1))
    x, y = task.train.take(torch.arange(len(task.train)))
    step = epoch = 0
    while step < training.steps:
        for places in batch_order(seed, epoch, training.examples).split(training.batch_size)[: training.steps - step]:
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(called(module, x[places]), y[places], reduction="sum").backward()
            optimizer.step()
            schedule.step()
            step += 1
        epoch += 1
    return torch.nn.functional.mse_loss(module(x), y).item()


@pytest.mark.parametrize(
    ("optimizer", "p", "is_exact", "way"),
    [
        ("Lion", 0, True, "stacked"),
        ("Momentum", 1, True, "stacked"),
        ("Lars", 0, True, "apart"),
        ("Blind", 0, True, "apart"),
        ("Adamlike", 0, False, "stacked"),
        ("Root", 0.5, False, "stacked"),
    ],
)
def test_p_is_measured(mine: Path, optimizer: str, p: float, is_exact: bool, way: str) -> None:
    declared = optimizer_of((training := made(optimizer, task="digits_mlp")).optimizer)
    options = training.optimizer.options
    assert (declared.homogeneity, declared.is_exact, options["way"]) == (p, is_exact, way)
    assert options["p_error"] < 1e-3


def test_what_is_no_power_is_said_to_be_none(mine: Path) -> None:
    options = made("Clipped", task="linear").optimizer.options
    assert options["p_error"] > 1e-3 and not options["is_exact"]


def test_a_decay_that_does_not_go_with_the_lr_makes_twins_apart(mine: Path) -> None:
    assert made("Momentum").optimizer.options["is_exact"]
    assert not made("Momentum", optimizer__weight_decay=0.1).optimizer.options["is_exact"]  # coupled: c changes its share
    assert made("Lion", optimizer__weight_decay=0.1).optimizer.options["is_exact"]  # decoupled, and p = 0


def test_an_optimizer_that_draws_gives_the_same_numbers_again(mine: Path) -> None:
    training = made("Noisy", optimizer__lr=[0.01, 0.01])
    assert training.optimizer.options["way"] == "apart"
    first, again = (train(training, make_task(training)).train_loss for _ in range(2))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first[:, :3], first[:, 3:])  # all lrs of a seed have the same draws
    assert len(set(first[-1, :3])) == 3


def test_each_option_of_the_class_can_differ_from_trial_to_trial(mine: Path) -> None:
    lists = {"optimizer__lr": [0.01, 0.02], "optimizer__momentum": [0.5, 0.9]}
    both = train(training := made("Momentum", **lists), make_task(training)).train_loss
    for k, momentum in enumerate([0.5, 0.9]):
        one = made("Momentum", optimizer__lr=[0.01, 0.02][k], optimizer__momentum=momentum)
        np.testing.assert_allclose(both[:, 3 * k : 3 * k + 3], train(one, make_task(one)).train_loss, **CLOSE)


def test_stacked_and_apart_are_the_same_bit_for_bit_where_stacked_is_taken(mine: Path) -> None:
    training = made("Lion", optimizer__lr=[0.01, 0.02], dtype="float32")
    draw = torch.Generator().manual_seed(3)
    ways = [[torch.randn(3, 2, 4, 5, generator=generator("test"))] for _ in range(2)]
    updates = [OwnUpdates(training, slice(None), p, None, way) for p, way in zip(ways, ("stacked", "apart"), strict=True)]
    for step in range(1, 5):
        gradient = torch.randn(3, 2, 4, 5, generator=draw)
        for parameters, update in zip(ways, updates, strict=True):
            update.update(parameters, [gradient], step)
    assert torch.equal(ways[0][0], ways[1][0])


def test_the_id_of_a_cell_does_not_depend_on_what_is_measured(mine: Path) -> None:
    values = config(optimizer="mine.py:Lion")
    assert identity(values) != identity(config(optimizer="mine.py:Momentum"))
    known = with_values(values, own_facts(values))
    assert identity(values, ["optimizer.lr"]) == identity(known, ["optimizer.lr"])


@pytest.mark.parametrize(
    ("optimizer", "said"),
    [
        ("Closure", "without a closure"),
        ("Still", "finite steps other than 0"),
        ("NoClass", "made from torch.optim.Optimizer"),
        ("Inherited", "own __init__"),
        ("Nothing", "It defines"),
        ("mlp", "own __init__"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(mine: Path, optimizer: str, said: str) -> None:
    with pytest.raises(Refusal, match=said) as refused:
        made(optimizer)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [("p", math.nan), ("p", 1e308), ("is_exact", "yes"), ("way", "both"), ("tunable", "lr"), ("sha256", "x"), ("lr", -1.0),
     ("weight_decay", [-1.0]), ("lr", "code")],
)  # fmt: skip
def test_a_record_with_a_wrong_fact_is_refused(mine: Path, key: str, value: Any) -> None:
    values = config(optimizer="mine.py:Lion")
    known = with_values(values, own_facts(values))
    with pytest.raises(Refusal, match=f"optimizer.{key}"):
        make_training(with_values(known, {f"optimizer.{key}": value}))
