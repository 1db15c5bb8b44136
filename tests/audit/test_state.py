"""An audit changes nothing: everything that a step reaches is put back, bit for bit."""

import random
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import lrscale
from lrscale.audit.state import State

COUNTS = {"updates": 0}


class Trainer:
    """A step with every kind of state that users keep."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.2), nn.Linear(6, 2))
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=0.01)
        self.schedule = torch.optim.lr_scheduler.StepLR(self.optimizer, 3)
        self.average = torch.optim.swa_utils.AveragedModel(self.net)
        self.scaler = torch.amp.GradScaler("cpu", growth_interval=2)
        self.noise = torch.Generator().manual_seed(5)
        self.array, self.recent, self.seen = np.zeros(3), deque([0.0], maxlen=4), {"best": 1e9}
        self.x, self.y = torch.randn(8, 4), torch.randint(2, (8,))

    def __call__(self, micros: list[Any]) -> None:
        self.optimizer.zero_grad()
        for x, y in micros:
            x = x + 0.01 * torch.randn(x.shape, generator=self.noise, dtype=x.dtype)
            loss = F.cross_entropy(self.net(x), y) / len(micros)
            self.scaler.scale(loss).backward()
            self.recent.append(loss.item())
            self.seen["best"] = min(self.seen["best"], loss.item())
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        self.average.update_parameters(self.net)
        self.array += random.random() + np.random.rand()
        COUNTS["updates"] += 1

    def state(self) -> list[Any]:
        tensors = [*self.net.state_dict().values(), *self.average.state_dict().values()]
        memory = [v for s in self.optimizer.state.values() for v in s.values()]
        return [*tensors, *memory, torch.tensor(self.array), self.noise.get_state(), torch.get_rng_state()]

    def plain(self) -> list[Any]:
        return [list(self.recent), dict(self.seen), self.schedule.last_epoch, self.scaler.get_scale(), self.net.training]


def train(audited: bool) -> tuple[list[Tensor], list[Any]]:
    """Trains 20 steps, and makes an audit after the tenth."""
    COUNTS["updates"] = 0
    trainer = Trainer()
    random.seed(0)
    np.random.seed(0)
    for k in range(20):
        if audited and k == 10:
            lrscale.audit(trainer, (trainer.x, trainer.y), trainer.net, accumulation=2)
        trainer([(trainer.x[k % 4 : k % 4 + 4], trainer.y[k % 4 : k % 4 + 4])])
    return trainer.state(), [*trainer.plain(), dict(COUNTS), random.random(), np.random.rand()]


def test_twenty_steps_end_with_the_same_bits_with_and_without_an_audit() -> None:
    (plain, values), (audited, others) = train(False), train(True)
    assert len(plain) == len(audited) and all(torch.equal(a, b) for a, b in zip(plain, audited, strict=True))
    assert values == others


@pytest.mark.parametrize("make", [dict, OrderedDict])
def test_a_dict_is_put_back_in_place_and_in_order(make: Callable[..., Any]) -> None:
    content = make(b=1, a=[1, 2])
    state = State([content])
    inner = content["a"]
    content["a"].append(3)
    content.pop("b")
    content["c"] = 4
    state.restore()
    assert list(content.items()) == [("b", 1), ("a", [1, 2])] and content["a"] is inner


def test_gradients_dtypes_and_variables_of_a_closure_are_put_back() -> None:
    weight, count = torch.ones(2, requires_grad=True), 0
    weight.grad = torch.full((2,), 3.0)

    def step() -> None:
        nonlocal count
        count += 1
        weight.grad = None
        weight.data = weight.data.double() * 2

    state = State([step])
    step()
    state.restore()
    assert count == 0 and weight.dtype == torch.float32 and weight.tolist() == [1, 1]
    assert weight.grad is not None and weight.grad.tolist() == [3, 3]


def test_a_tensor_that_is_too_large_is_named_and_left() -> None:
    data = torch.zeros(2**26 + 1)  # above the memory for copies, in float32
    state = State([{"data": data}])
    assert state.left == [f"a tensor of shape [{2**26 + 1}]"]
