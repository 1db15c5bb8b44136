"""`lrscale demo`: shows four facts from the book "Dive into Deep Learning" (d2l), with numbers from a new run."""

import argparse
from collections.abc import Iterable

from lrscale.commands import Command


def _add(parser: argparse.ArgumentParser) -> None:
    """Adds no arguments."""


def _run(options: argparse.Namespace) -> None:
    from rich.console import Console

    from lrscale.tasks.registry import make_built_in
    from lrscale.training import book

    console = Console(highlight=False)
    data = make_built_in(book.recipe()).data
    sums = book.sum_of_gradients(data.x[: book.BATCH_SIZE, :2], data.y[: book.BATCH_SIZE])
    console.print("[bold]1. The gradient of a sum is the sum of the per-sample gradients[/bold]")
    console.print(f"   l.sum().backward()      {_row(sums.of_sum)}")
    console.print(f"   sum of 10 gradients     {_row(sums.sum_of)}")
    console.print(f"   largest difference      {float((sums.of_sum - sums.sum_of).abs().max()):.1e}\n")
    first, second, third = book.accumulated()
    console.print("[bold]2. backward adds to the gradients until they are set to zero[/bold]")
    console.print(f"   (w * ones(10)).sum()    w.grad = {first:g}")
    console.print(f"   (w * ones(20)).sum()    w.grad = {second:g}   the 10 is still in it")
    console.print(f"   zero_(), then ones(5)   w.grad = {third:g}\n")
    console.print("[bold]3. Under sum the gradient grows with the batch size, under mean it does not[/bold]")
    console.print("   batch size     sum    mean")
    for size, by_sum, by_mean in book.norms_by_batch_size(data, (1, 10, 100, 1000)):
        console.print(f"   {size:10d} {by_sum:7.1f} {by_mean:7.2f}")
    console.print("   So the same step needs an lr that falls as 1/B: the book's sgd divides by B.\n")
    console.print(f"[bold]4. The book's sgd is torch.optim.SGD[/bold] (B = {book.BATCH_SIZE})")
    console.print(f"   {'mean loss after epoch':28s}" + "".join(f"{epoch:14d}" for epoch in range(1, book.EPOCHS + 1)))
    rows = [
        (f"by hand, sum / {book.BATCH_SIZE}, lr {book.LR}", book.train_by_hand(data)),
        (f"SGD, mean, lr {book.LR}", book.train_with_torch(data, book.LR, "mean")),
        (f"SGD, sum,  lr {book.LR / book.BATCH_SIZE:g}", book.train_with_torch(data, book.LR / book.BATCH_SIZE, "sum")),
        (f"SGD, sum,  lr {book.LR}", book.train_with_torch(data, book.LR, "sum")),
    ]
    for name, losses in rows:
        console.print(f"   {name:28s}" + "".join(f"{loss:14.6g}" for loss in losses))
    console.print("   The first three have the same trajectory. The steps of the last are 10 times as long.")


def _row(values: Iterable[float]) -> str:
    """Returns numbers as one line of text."""
    return "  ".join(f"{float(v):10.5f}" for v in values)


COMMAND = Command(10, "show why d2l's sgd divides by the batch size, with numbers", _add, _run)
