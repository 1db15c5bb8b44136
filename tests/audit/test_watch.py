"""`lrscale.watch`: the audit of a loop through its loader, after which the training goes on as if nothing had been."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import lrscale

Loop = Callable[[Callable[[Iterable[Any], nn.Module], Iterable[Any]]], list[Tensor]]


def trained(watched: Callable[[Iterable[Any], nn.Module], Iterable[Any]], k: int = 2, tokens: bool = False) -> list[Tensor]:
    """Trains 24 batches with all that a loop keeps: batch norm, dropout, AdamW, a schedule, an average of weights, a history."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(5, 8), nn.Identity() if tokens else nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 4)
    )
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50)
    average = {name: p.detach().clone() for name, p in net.named_parameters()}
    x, y = (torch.randn(96, 6, 5), torch.randint(4, (96, 6))) if tokens else (torch.randn(96, 5), torch.randint(4, (96,)))
    if tokens:
        for i in range(96):
            y[i, 1 + i % 6 :] = -100
    loader = watched(DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True), net)
    history = []
    for _ in range(2):
        for i, (a, b) in enumerate(loader):
            loss = F.cross_entropy(net(a).flatten(0, -2), b.flatten())
            (loss / k).backward()
            history.append(loss.detach())
            if (i + 1) % k == 0:
                nn.utils.clip_grad_norm_(net.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
                with torch.no_grad():
                    for name, p in net.named_parameters():
                        average[name].mul_(0.9).add_(p, alpha=0.1)
    buffers = [buffer.clone() for buffer in net.buffers()]
    return [*net.parameters(), *buffers, *average.values(), torch.stack(history), torch.tensor(schedule.last_epoch)]


@pytest.mark.parametrize("tokens", [False, True])
def test_a_watched_training_ends_with_the_same_bits(tokens: bool) -> None:
    audits: list[lrscale.Audit] = []
    plain = trained(lambda loader, net: loader, tokens=tokens)
    watched = trained(lambda loader, net: lrscale.watch(loader, net, show=audits.append), tokens=tokens)
    assert all(torch.equal(a, b) for a, b in zip(plain, watched, strict=True)) and len(plain) == len(watched)
    assert len(audits) == 1
    assert audits[0].ok is False  # batch norm, or a mean of token means, over two micro-batches
    assert ("mean of means" if tokens else "batch norm") in audits[0].kinds
    assert "clip" in audits[0].kinds


def linear_loop(loss: Callable[[Tensor, Tensor], Tensor], **options: Any) -> lrscale.Audit:
    """Trains a linear model in a loop that is watched."""
    torch.manual_seed(0)
    net, x, y = nn.Linear(3, 1), torch.randn(24, 3), torch.randn(24, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    audits: list[lrscale.Audit] = []
    for a, b in lrscale.watch(
        [(x[i : i + 8], y[i : i + 8]) for i in (0, 8, 16)], net.parameters(), show=audits.append, **options
    ):
        optimizer.zero_grad()
        loss(net(a), b).backward()
        optimizer.step()
    return audits[0]


def test_a_loop_that_sums_is_told_from_one_that_averages() -> None:
    assert linear_loop(F.mse_loss).ok is True
    assert linear_loop(lambda out, y: F.mse_loss(out, y, reduction="sum")).kinds == {"sum"}


def leaves_a_for(loader: Iterable[Tensor], net: nn.Module) -> None:
    for count, x in enumerate(loader):
        if count == 5:
            break
        net(x).square().mean().backward()
        step(net, 0.1)


def leaves_a_next(loader: Iterable[Tensor], net: nn.Module) -> None:
    batches = iter(loader)
    for _ in range(5):
        net(next(batches)).square().mean().backward()
        step(net, 0.1)


@pytest.mark.parametrize("leaves", [leaves_a_for, leaves_a_next])
def test_a_loop_that_is_left_during_the_audit_puts_all_back(
    leaves: Callable[[Iterable[Tensor], nn.Module], None], capsys: pytest.CaptureFixture[str]
) -> None:
    net = nn.Linear(3, 1)
    before = [p.detach().clone() for p in net.parameters()]
    leaves(lrscale.watch([torch.randn(8, 3)], net), net)
    assert all(torch.equal(p, old) for p, old in zip(net.parameters(), before, strict=True))
    assert "The loop was left during the audit" in capsys.readouterr().out


STEP = 0


def peeks(loader: Any, net: nn.Module) -> None:
    """Looks at one batch, keeps the iterator, and trains."""
    batches = iter(loader)
    assert len(next(batches)[0]) == 8
    trains(loader, net)


def breaks(loader: Any, net: nn.Module) -> None:
    """Leaves after the first batch, and trains."""
    for batch in loader:
        update(net, batch)
        break
    trains(loader, net)


def counts_in_its_module(loader: Any, net: nn.Module) -> None:
    """Warms the lr up by a variable of the module."""
    global STEP
    STEP = 0
    for batch in loader:
        update(net, batch, 0.1 * min(1, (STEP + 1) / 10))
        STEP += 1


def counts_from_0(loader: Any, net: nn.Module) -> None:
    """Makes an update of the batches 0, then 1 to 3, then 4 to 6, and so on, by `enumerate`."""
    for i, batch in enumerate(loader):
        loss_of(net, batch).backward()
        if i % 3 == 0:
            step(net, 0.1)


def leaves_out(loader: Any, net: nn.Module) -> None:
    """Leaves out batches of another size."""
    for batch in loader:
        if len(batch[0]) == 8:
            update(net, batch)


def trains(loader: Any, net: nn.Module) -> None:
    """Trains three epochs."""
    for _ in range(3):
        for batch in loader:
            update(net, batch)


def loss_of(net: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(net(batch[0]), batch[1])


def step(net: nn.Module, lr: float) -> None:
    torch.optim.SGD(net.parameters(), lr=lr).step()
    net.zero_grad()


def update(net: nn.Module, batch: Any, lr: float = 0.1) -> None:
    loss_of(net, batch).backward()
    step(net, lr)


@pytest.mark.parametrize(
    ("loop", "is_audited", "said"),
    [
        (peeks, True, ""),
        (breaks, True, ""),
        (counts_in_its_module, True, ""),
        (counts_from_0, False, "The first update came after 1 batch, and later ones at other places"),
        (leaves_out, False, "The first update came after 1 batch, and later ones at other places"),
    ],
)
def test_a_loop_trains_as_without_it(
    loop: Callable[[Any, nn.Module], None], is_audited: bool, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = []
    for is_watched in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.1), nn.Linear(8, 3))
        loader: Any = DataLoader(TensorDataset(torch.randn(96, 5), torch.randint(3, (96,))), batch_size=8, shuffle=True)
        loader = lrscale.watch(loader, net, show=lambda _: None) if is_watched else loader
        loop(loader, net)
        ends.append([*net.parameters(), torch.get_rng_state()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
    assert (loader.audit is not None) == is_audited
    assert said in capsys.readouterr().out


def test_of_two_loops_at_a_time_one_is_audited(capsys: pytest.CaptureFixture[str]) -> None:
    nets = [nn.Linear(3, 1), nn.Linear(3, 1)]
    loaders = [lrscale.watch([torch.randn(8, 3) for _ in range(100)], net, show=lambda _: None) for net in nets]
    for batches in zip(*loaders, strict=False):
        for net, x in zip(nets, batches, strict=True):
            net(x).square().mean().backward()
            step(net, 0.1)
    assert [loader.audit is None for loader in loaders] == [False, True]
    assert "Another loop is audited now" in capsys.readouterr().out


def test_the_rounding_of_autocast_is_no_finding() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    loader = lrscale.watch([(torch.randn(8, 5), torch.randint(3, (8,)))], net, show=lambda _: None)
    for batch in loader:
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(net, batch)
        loss.backward()
        step(net, 0.1)
    assert loader.audit is not None and loader.audit.ok is True


def test_the_books_loop_by_hand_averages(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    w, b = torch.zeros(2, 1, requires_grad=True), torch.zeros(1, requires_grad=True)
    x, y = torch.randn(40, 2), torch.randn(40, 1)
    for a, target in lrscale.watch([(x[i : i + 10], y[i : i + 10]) for i in range(0, 40, 10)], [w, b]):
        ((a @ w + b - target) ** 2 / 2).sum().backward()
        with torch.no_grad():
            for parameter in (w, b):
                assert parameter.grad is not None
                parameter -= 0.03 * parameter.grad / len(a)
                parameter.grad.zero_()
    assert "invariant to how its examples are grouped" in capsys.readouterr().out


def test_a_loader_keeps_its_length_and_attributes() -> None:
    loader = DataLoader(TensorDataset(torch.zeros(8, 1)), batch_size=4)
    watched = lrscale.watch(loader, nn.Linear(1, 1))
    assert len(watched) == 2 and watched.batch_size == 4
    with pytest.raises(TypeError, match=r"has no len\(\)"):
        len(lrscale.watch((batch for batch in loader), nn.Linear(1, 1)))
