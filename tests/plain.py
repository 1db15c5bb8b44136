"""The reference: one model, torch.optim, one backward a micro-batch; the loop everybody writes."""

import torch
from torch import nn

from lrscale.minibatches import batch_order
from lrscale.spec import Training
from lrscale.streams import generator
from lrscale.tasks import Task

CLASSES = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
}


def make_module(task: Task, seed: int) -> nn.Module:
    """A module with the initial weights of a seed."""
    weights = task.model.initial(generator("init", seed))
    inputs = task.data.x.shape[1]
    if len(weights) == 1:
        module: nn.Module = nn.Linear(inputs, 1, bias=False)
        weights = [weights[0].unsqueeze(0)]
    elif len(weights) == 2:
        module = nn.Linear(inputs, 10)
    else:
        module = nn.Sequential(nn.Linear(inputs, len(weights[1])), nn.ReLU(), nn.Linear(len(weights[1]), 10))
    module.to(task.data.x.dtype)
    with torch.no_grad():
        for parameter, weight in zip(module.parameters(), weights, strict=True):
            parameter.copy_(weight)
    return module


def loss_of(module: nn.Module, x: torch.Tensor, y: torch.Tensor, reduction: str) -> torch.Tensor:
    if y.is_floating_point():
        return nn.functional.mse_loss(module(x).squeeze(1), y, reduction=reduction) / 2
    return nn.functional.cross_entropy(module(x), y, reduction=reduction)


def train_plainly(
    training: Training, task: Task, seed: int, trial: int = 0, points: frozenset[int] | None = None
) -> tuple[list[float], list[float]]:
    """Returns the whole-data loss and the gradient norm at each of the points, or at every step if none are given."""
    module = make_module(task, seed)
    options = {k: v[trial] if isinstance(v, tuple) else v for k, v in training.optimizer.options.items()}
    optimizer = CLASSES[training.optimizer.name](module.parameters(), **options)
    data, size = task.data, training.batch_size

    def whole() -> float:
        with torch.no_grad():
            return loss_of(module, data.x, data.y, "mean").item()

    losses, norms = [whole()], []
    epoch = step = 0
    while True:
        order = batch_order(seed, epoch, training.examples)
        for places in order.split(training.step_examples):
            if training.drop_last and len(places) < training.step_examples:
                continue
            optimizer.zero_grad()
            for micro in places.split(size):
                reduction = "mean" if training.reduction == "mean" else "sum"
                loss = loss_of(module, data.x[micro], data.y[micro], reduction)
                (loss / size if training.reduction == "sum_over_nominal" else loss).backward()
            step += 1
            if points is None or step in points:
                norms.append(sum(float(p.grad.square().sum()) for p in module.parameters()) ** 0.5)
            optimizer.step()
            if points is None or step in points:
                losses.append(whole())
            if step == training.steps:
                return losses, norms
        epoch += 1
