"""Tasks without a file: their hash says what they are, and they are known as long as the program keeps them."""

import gc
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import lrscale
from lrscale.errors import Refusal
from lrscale.tasks.held import fingerprint, held, hold

X = torch.linspace(-1, 1, 64).unsqueeze(1)


def line(slope: float = 2.0, hidden: int = 4) -> lrscale.Task:
    def net() -> nn.Module:
        return nn.Sequential(nn.Linear(1, hidden), nn.Tanh(), nn.Linear(hidden, 1))

    return lrscale.Task(net, F.mse_loss, (X, slope * X), (X / 2, slope * X / 2))


def test_what_a_task_is_decides_its_hash() -> None:
    def other_loss(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (out - y).abs().flatten(1)

    def net() -> nn.Module:
        return nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1))

    data = (X, 2 * X), (X / 2, X)
    others = [line(3.0), line(hidden=5), lrscale.Task(net, other_loss, *data), lrscale.Task(net, F.mse_loss, *data)]
    hashes = [fingerprint(task) for task in (line(), line(), *others)]
    assert hashes[0] == hashes[1] == hashes[-1]
    assert len(set(hashes)) == len(others)
    float64 = line()
    for rows in (float64.train, float64.valid):
        rows.to(torch.float64)  # as a training in float64 leaves them
    assert fingerprint(float64) == hashes[0]


class Net(nn.Module):
    """A network whose last layer begins at 0, so that its losses tell nothing of the layers before."""

    def __init__(self, act: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.hidden, self.out, self.act = nn.Linear(1, 8), nn.Linear(8, 4), act
        nn.init.zeros_(self.out.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.out(self.act(self.hidden(x)))
        return out


def test_what_the_first_losses_do_not_show_decides_the_hash_too() -> None:
    data = (X, torch.arange(64) % 4)

    def task(act: Callable[[torch.Tensor], torch.Tensor], wrong: Callable[..., torch.Tensor] = lrscale.top1) -> lrscale.Task:
        return lrscale.Task(lambda: Net(act), F.cross_entropy, data, data, wrong)

    def right(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return 1 - lrscale.top1(out, y)

    others = [task(torch.relu), task(lambda x: torch.relu(x) + (x - x.detach())), task(torch.relu, right)]
    tanh = [task(torch.tanh), task(torch.tanh)]
    hashes = [fingerprint(made) for made in (*tanh, *others)]
    assert hashes[0] == hashes[1] and len(set(hashes)) == 4


def test_the_hash_is_the_same_in_another_process() -> None:
    code = "from tests.tasks.test_held import fingerprint, line; print(fingerprint(line()))"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout
    assert said.strip() == fingerprint(line())


def test_a_task_is_held_only_as_long_as_the_program_keeps_it() -> None:
    task = line(5.0)
    values = hold(task)
    assert held(**values) is task and values["name"] == "notebook:net"
    del task
    gc.collect()
    with pytest.raises(Refusal, match="no file holds its code"):
        held(**values)


def test_tokens_and_datasets_have_a_hash_too() -> None:
    ids = torch.arange(24).reshape(6, 4) % 5

    def lm(kept: int = 3) -> lrscale.Task:
        targets = ids.where(torch.arange(4) < kept, -100)
        rows = torch.utils.data.TensorDataset(ids, targets)
        return lrscale.Task(
            lambda: nn.Sequential(nn.Embedding(5, 3), nn.Dropout(0.5), nn.Linear(3, 5)),
            lambda out, y: (F.cross_entropy(out.transpose(1, 2), y, reduction="none"), y != -100),
            rows,
            rows,
        )

    assert fingerprint(lm()) == fingerprint(lm()) != fingerprint(lm(2))
    before = torch.get_rng_state()
    fingerprint(lm())
    assert torch.equal(before, torch.get_rng_state())
