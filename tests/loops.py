"""The reference: one model, torch.optim, one backward a micro-batch; the loop everybody writes, over whole budgets."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from lrscale.spec import Training
from lrscale.tasks.built_in import BuiltInTask
from lrscale.training.minibatches import batch_order
from lrscale.training.reference_loop import make_module
from lrscale.training.reference_loop import per_example_losses as each_loss
from lrscale.training.schedules import lr_factor

CLASSES = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
    "adadelta": torch.optim.Adadelta,
    "adamax": torch.optim.Adamax,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "asgd": torch.optim.ASGD,
    "rprop": torch.optim.Rprop,
    "adafactor": torch.optim.Adafactor,
    "muon": torch.optim.Muon,
}


@contextmanager
def numbers_of_optimizers_in_float64() -> Iterator[None]:
    """NAdam and ASGD keep a number of their own in torch's default dtype, whatever dtype the weights have."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def train_plainly(
    training: Training,
    task: BuiltInTask,
    seed: int,
    trial: int = 0,
    points: frozenset[int] | None = None,
    make: Callable[..., torch.optim.Optimizer] | None = None,
) -> tuple[list[float], list[float]]:
    """Returns the whole-data loss and the gradient norm at each of the points, or at every step if none are given.

    `make` makes an optimizer that is not torch's from the parameters and the lr.
    """
    module = make_module(task, seed)
    options = {k: v[trial] if isinstance(v, tuple) else v for k, v in training.optimizer.options.items()}
    if make is not None:
        optimizer = make(module.parameters(), lr=options["lr"])
    else:
        optimizer = CLASSES[training.optimizer.name](module.parameters(), **options)
    factor = lr_factor(training)
    schedule = None if factor is None else torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: factor(k + 1))
    data, size = task.data_of(training.seeds.index(seed)), training.batch_size

    def whole() -> float:
        with torch.no_grad():
            return each_loss(module(data.x), data.y).mean().item()

    losses, norms = [whole()], []
    epoch = step = 0
    while True:
        order = batch_order(seed, epoch, training.examples)
        for places in order.split(training.step_examples):
            if training.drop_last and len(places) < training.step_examples:
                continue
            optimizer.zero_grad()
            for micro in places.split(size):
                each = each_loss(module(data.x[micro]), data.y[micro])
                reduced = {"mean": each.mean(), "sum": each.sum(), "sum_over_nominal": each.sum() / size}
                reduced[training.reduction].backward()
            step += 1
            if points is None or step in points:
                norms.append(sum(float(p.grad.square().sum()) for p in module.parameters()) ** 0.5)
            with numbers_of_optimizers_in_float64():
                optimizer.step()
            if schedule is not None:
                schedule.step()
            if points is None or step in points:
                losses.append(whole())
            if step == training.steps:
                return losses, norms
        epoch += 1
