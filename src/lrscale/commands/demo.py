"""The book's own points, with numbers: what summing the loss does to gradients, and why d2l's sgd divides by the batch size."""

from typing import NamedTuple

import torch
from rich.console import Console
from torch import Tensor

from lrscale.spec import Choice, Training
from lrscale.streams import generator
from lrscale.tasks.task import Arrays, make_task
from lrscale.training.minibatches import batch_order

BATCH_SIZE, LR, EPOCHS, SEED = 10, 0.03, 3, 0


class Sums(NamedTuple):
    """Gradients [parameter] of a summed loss, and the sum of those of its samples."""

    of_sum: Tensor
    sum_of: Tensor


def book() -> Training:
    """The book's recipe: batch size 10, lr 0.03, 3 epochs, the sum divided by the batch size."""
    options = {"lr": (LR,), "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False}
    return Training(
        task=Choice("d2l", {}),
        optimizer=Choice("sgd", options),
        probe=None,
        budget=Choice("epochs", {"epochs": EPOCHS}),
        seeds=(SEED,),
        reduction="sum_over_nominal",
        batch_size=BATCH_SIZE,
        accumulation=1,
        drop_last=False,
        objective="excess_risk",
        dtype="float64",
        points=2,
        threads=1,
        memory_mb=64,
    )


def squared_loss(w: Tensor, b: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The book's loss of each example, (y^ - y)^2 / 2."""
    return (x @ w + b - y) ** 2 / 2


def gradients_by_sample(x: Tensor, y: Tensor) -> Tensor:
    """Gradient of each sample's loss at w = 0, b = 0, by torch.func, [sample, parameter]."""
    each = torch.func.vmap(torch.func.grad(squared_loss, argnums=(0, 1)), in_dims=(None, None, 0, 0))
    by_w, by_b = each(torch.zeros(2, dtype=x.dtype), torch.zeros((), dtype=x.dtype), x, y)
    return torch.cat([by_w, by_b.unsqueeze(1)], 1)


def sum_of_gradients(x: Tensor, y: Tensor) -> Sums:
    """The gradient of a summed loss, by `backward`, and the sum of the samples' gradients."""
    w = torch.zeros(2, dtype=x.dtype, requires_grad=True)
    b = torch.zeros((), dtype=x.dtype, requires_grad=True)
    squared_loss(w, b, x, y).sum().backward()
    assert w.grad is not None and b.grad is not None
    return Sums(torch.cat([w.grad, b.grad.view(1)]), gradients_by_sample(x, y).sum(0))


def accumulated() -> list[float]:
    """Gradients of w after backward on w * ones(10), after another on 20 ones, and after zeroing and 5: 10, 30, 5."""
    w = torch.ones(1, requires_grad=True)
    seen = []
    for count in (10, 20, 5):
        if count == 5 and w.grad is not None:
            w.grad.zero_()
        (w * torch.ones(count)).sum().backward()
        assert w.grad is not None
        seen.append(w.grad.item())
    return seen


def gradient_norms(data: Arrays, sizes: tuple[int, ...]) -> list[tuple[int, float, float]]:
    """Batch size, norm of the gradient at w = 0 under sum, and under mean, averaged over the data's minibatches."""
    by_sample = gradients_by_sample(data.x[:, :2], data.y)
    norms = [float(torch.stack([part.sum(0).norm() for part in by_sample.split(size)]).mean()) for size in sizes]
    return [(size, norm, norm / size) for size, norm in zip(sizes, norms, strict=True)]


def sgd(parameters: list[Tensor], lr: float, batch_size: int) -> None:
    """The book's hand-written step: a summed gradient divided by the batch size, then zeroed."""
    with torch.no_grad():
        for parameter in parameters:
            assert parameter.grad is not None
            parameter -= lr * parameter.grad / batch_size
            parameter.grad.zero_()


def train_by_hand(data: Arrays) -> list[float]:
    """The book's loop; the mean loss over the data after each epoch."""
    return _loop(data, None, LR, "sum")


def train_with_torch(data: Arrays, lr: float, reduction: str) -> list[float]:
    """The same by torch.optim.SGD on a mean or summed loss."""
    return _loop(data, torch.optim.SGD, lr, reduction)


def _loop(data: Arrays, optimizer: type[torch.optim.SGD] | None, lr: float, reduction: str) -> list[float]:
    x, y = data.x[:, :2], data.y
    w = (0.01 * torch.randn(2, generator=generator("init", SEED), dtype=x.dtype)).requires_grad_()
    b = torch.zeros((), dtype=x.dtype, requires_grad=True)
    chosen = optimizer([w, b], lr=lr) if optimizer is not None else None
    losses = []
    for epoch in range(EPOCHS):
        for places in batch_order(SEED, epoch, len(x)).split(BATCH_SIZE):
            loss = squared_loss(w, b, x[places], y[places])
            if chosen is not None:
                chosen.zero_grad()
            (loss.sum() if reduction == "sum" else loss.mean()).backward()
            if chosen is not None:
                chosen.step()
            else:
                sgd([w, b], lr, BATCH_SIZE)
        losses.append(squared_loss(w, b, x, y).mean().item())
    return losses


def main() -> None:
    """Prints the four demonstrations."""
    console = Console(highlight=False)
    data = make_task(book()).data
    sums = sum_of_gradients(data.x[:BATCH_SIZE, :2], data.y[:BATCH_SIZE])
    console.print("[bold]1. The gradient of a sum is the sum of the per-sample gradients[/bold]")
    console.print(f"   l.sum().backward()      {_row(sums.of_sum)}")
    console.print(f"   sum of 10 gradients     {_row(sums.sum_of)}")
    console.print(f"   largest difference      {float((sums.of_sum - sums.sum_of).abs().max()):.1e}\n")
    first, second, third = accumulated()
    console.print("[bold]2. backward accumulates until gradients are zeroed[/bold]")
    console.print(f"   (w * ones(10)).sum()    w.grad = {first:g}")
    console.print(f"   (w * ones(20)).sum()    w.grad = {second:g}   the 10 are still there")
    console.print(f"   zero_(), then ones(5)   w.grad = {third:g}\n")
    console.print("[bold]3. Under sum the gradient grows with the batch size, under mean it does not[/bold]")
    console.print("   batch size     sum    mean")
    for size, by_sum, by_mean in gradient_norms(data, (1, 10, 100, 1000)):
        console.print(f"   {size:10d} {by_sum:7.1f} {by_mean:7.2f}")
    console.print("   so for the same step lr has to fall as 1/B: the book's sgd divides by B.\n")
    console.print(f"[bold]4. The book's sgd is torch.optim.SGD[/bold] (B = {BATCH_SIZE})")
    console.print(f"   {'mean loss after epoch':28s}" + "".join(f"{epoch:14d}" for epoch in range(1, EPOCHS + 1)))
    rows = [
        (f"by hand, sum / {BATCH_SIZE}, lr {LR}", train_by_hand(data)),
        (f"SGD, mean, lr {LR}", train_with_torch(data, LR, "mean")),
        (f"SGD, sum,  lr {LR / BATCH_SIZE:g}", train_with_torch(data, LR / BATCH_SIZE, "sum")),
        (f"SGD, sum,  lr {LR}", train_with_torch(data, LR, "sum")),
    ]
    for name, losses in rows:
        console.print(f"   {name:28s}" + "".join(f"{loss:14.6g}" for loss in losses))
    console.print("   The first three are one trajectory. The last takes a step 10 times as long.")


def _row(values: Tensor) -> str:
    return "  ".join(f"{float(v):10.5f}" for v in values)
