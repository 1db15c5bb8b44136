"""Experiments of the book "Dive into Deep Learning" (d2l) on summed losses.

They show what summing the loss does to gradients, and why the book's `sgd` divides by the batch size.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lrscale.spec import Choice, Training
from lrscale.streams import generator
from lrscale.tasks.built_in import Arrays
from lrscale.training.minibatches import batch_order

BATCH_SIZE, LR, EPOCHS, SEED = 10, 0.03, 3, 0
"""The settings of the book's recipe, and the seed of all runs here."""


class Sums(NamedTuple):
    """Two gradients, [parameter] each: `of_sum` of the summed loss, and `sum_of`, the sum of the gradients of its examples."""

    of_sum: Tensor
    sum_of: Tensor


def recipe() -> Training:
    """Returns the training of the book's recipe: batch size 10, lr 0.03, 3 epochs, the sum divided by the batch size."""
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
        examples=1000,
    )


def squared_loss(w: Tensor, b: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Returns the book's loss of each example, (y^ - y)^2 / 2."""
    return (x @ w + b - y) ** 2 / 2


def gradients_by_sample(x: Tensor, y: Tensor) -> Tensor:
    """Returns the gradient of each example's loss at w = 0, b = 0, computed by torch.func, [example, parameter]."""
    gradients = torch.func.vmap(torch.func.grad(squared_loss, argnums=(0, 1)), in_dims=(None, None, 0, 0))
    by_w, by_b = gradients(torch.zeros(2, dtype=x.dtype), torch.zeros((), dtype=x.dtype), x, y)
    return torch.cat([by_w, by_b.unsqueeze(1)], 1)


def sum_of_gradients(x: Tensor, y: Tensor) -> Sums:
    """Returns the gradient of the summed loss, computed by `backward`, and the sum of the examples' gradients."""
    w = torch.zeros(2, dtype=x.dtype, requires_grad=True)
    b = torch.zeros((), dtype=x.dtype, requires_grad=True)
    squared_loss(w, b, x, y).sum().backward()
    assert w.grad is not None and b.grad is not None
    return Sums(torch.cat([w.grad, b.grad.view(1)]), gradients_by_sample(x, y).sum(0))


def accumulated() -> list[float]:
    """Returns the gradient of w after each of three backward passes: 10, 30, 5.

    The passes are over the sum of w * ones(10), w * ones(20) and w * ones(5). The gradient is set to zero before the third.
    """
    w = torch.ones(1, requires_grad=True)
    gradients = []
    for count in (10, 20, 5):
        if count == 5 and w.grad is not None:
            w.grad.zero_()
        (w * torch.ones(count)).sum().backward()
        assert w.grad is not None
        gradients.append(w.grad.item())
    return gradients


def norms_by_batch_size(data: Arrays, sizes: tuple[int, ...]) -> list[tuple[int, float, float]]:
    """Returns the norm of the gradient at w = 0 for each batch size, averaged over the minibatches of the data.

    Args:
      data: the data of the task d2l.
      sizes: batch sizes.

    Returns:
      One row per batch size: the batch size, the norm under sum, and the norm under mean.
    """
    gradients = gradients_by_sample(data.x[:, :2], data.y)
    norms = [float(torch.stack([part.sum(0).norm() for part in gradients.split(size)]).mean()) for size in sizes]
    return [(size, norm, norm / size) for size, norm in zip(sizes, norms, strict=True)]


def sgd(parameters: list[Tensor], lr: float, batch_size: int) -> None:
    """Takes the book's hand-written step: divides the summed gradient by the batch size, and sets it to zero afterwards."""
    with torch.no_grad():
        for parameter in parameters:
            assert parameter.grad is not None
            parameter -= lr * parameter.grad / batch_size
            parameter.grad.zero_()


def train_by_hand(data: Arrays) -> list[float]:
    """Trains with the book's hand-written loop; returns the mean loss over the data after each epoch."""
    return _loop(data, None, LR, "sum")


def train_with_torch(data: Arrays, lr: float, reduction: str) -> list[float]:
    """Trains with torch.optim.SGD on a `mean` or `sum` loss; returns the mean loss over the data after each epoch."""
    return _loop(data, torch.optim.SGD, lr, reduction)


def _loop(data: Arrays, optimizer: type[torch.optim.SGD] | None, lr: float, reduction: str) -> list[float]:
    """Trains for the epochs of the recipe. Without an optimizer class, `sgd` takes the steps."""
    x, y = data.x[:, :2], data.y
    w = (0.01 * torch.randn(2, generator=generator("init", SEED), dtype=x.dtype)).requires_grad_()
    b = torch.zeros((), dtype=x.dtype, requires_grad=True)
    torch_sgd = optimizer([w, b], lr=lr) if optimizer is not None else None
    losses = []
    for epoch in range(EPOCHS):
        for indices in batch_order(SEED, epoch, len(x)).split(BATCH_SIZE):
            loss = squared_loss(w, b, x[indices], y[indices])
            if torch_sgd is not None:
                torch_sgd.zero_grad()
            (loss.sum() if reduction == "sum" else loss.mean()).backward()
            if torch_sgd is not None:
                torch_sgd.step()
            else:
                sgd([w, b], lr, BATCH_SIZE)
        losses.append(squared_loss(w, b, x, y).mean().item())
    return losses
