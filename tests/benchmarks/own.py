"""How much faster many runs of a user's model are trained at once than one after another by a plain loop.

    python -m tests.benchmarks.own

A run is one lr of one seed; half of the runs have the other seed. Each row takes the same steps of SGD with momentum, in
float32 on one thread, in rounds that alternate: by the form that lrscale chooses, and by a plain loop over one module.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F

from lrscale.spec import Training
from lrscale.streams import generator
from lrscale.tasks.own import Task
from lrscale.training.engine import use_threads
from lrscale.training.minibatches import batch_order
from lrscale.training.own_runs import OwnRuns, choose_form, own_minibatches
from tests.configs import ROOT, make

STEPS, ROUNDS, EXAMPLES = 12, 5, 1024


def images(batch_norm: bool) -> Task:
    x = torch.randn(EXAMPLES, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    y = torch.arange(EXAMPLES) % 10

    def net() -> nn.Module:
        layers = [nn.Conv2d(1, 8, 3, 2, 1), nn.BatchNorm2d(8) if batch_norm else nn.Identity(), nn.ReLU()]
        layers += [nn.Conv2d(8, 16, 3, 2, 1), nn.BatchNorm2d(16) if batch_norm else nn.Identity(), nn.ReLU()]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(784, 10))

    return Task(net, F.cross_entropy, (x, y), (x[:8], y[:8]))


def mlp() -> Task:
    x, y = torch.randn(EXAMPLES, 784, generator=torch.Generator().manual_seed(0)), torch.arange(EXAMPLES) % 10
    return Task(lambda: nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10)), F.cross_entropy, (x, y), (x[:8], y[:8]))


def characters() -> Task:
    import runpy

    task: Task = runpy.run_path(str(ROOT / "sweeps" / "chars.py"))["transformer"](examples=EXAMPLES)
    return task


TASKS_TO_TIME: dict[str, Callable[[], Task]] = {
    "MLP 784-64-10": mlp,
    "CNN": lambda: images(batch_norm=False),
    "CNN with batch norm": lambda: images(batch_norm=True),
    "character transformer": characters,
}


def plain_steps(training: Training, task: Task) -> Iterator[None]:
    """Takes the steps of one run as everybody writes them."""
    module = task.fresh(generator("init", 0))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)
    x, y = task.train.x, task.train.y
    for indices in batch_order(0, 0, EXAMPLES).split(training.batch_size):
        optimizer.zero_grad()
        losses, weights = task.terms_of(module(x[indices]), y[indices])
        (losses.sum() / weights.sum()).backward()
        optimizer.step()
        yield


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    _ = action()
    return time.perf_counter() - start


def main() -> None:
    use_threads(1)
    print("model                    B   runs  form          ms a run and step   plain loop   times as fast (from - to)")
    for name, make_it in TASKS_TO_TIME.items():
        task = make_it()
        for size in (8, 64):
            for runs in (8, 32):
                lrs = [0.001 * k for k in range(1, runs // 2 + 1)]
                made = make(batch_size=size, seeds=2, optimizer__lr=lrs, optimizer__momentum=0.9, dtype="float32", budget="steps")
                made = replace(made, examples=EXAMPLES)
                form, _ = choose_form(made, task)
                state, batches, plain = (
                    OwnRuns(made, task, slice(None), form),
                    own_minibatches(made, task),
                    plain_steps(made, task),
                )
                steps = 1 if size == 64 else STEPS

                def many(state: OwnRuns = state, batches: Iterator = batches, steps: int = steps) -> None:
                    for step in range(1, steps + 1):
                        state.step_unrecorded(next(batches), step)

                def one(plain: Iterator[None] = plain, steps: int = steps) -> None:
                    for _ in range(steps):
                        next(plain)

                many()
                one()
                pairs = [(seconds(many) / runs / steps, seconds(one) / steps) for _ in range(ROUNDS)]
                ratios = sorted(loop / ours for ours, loop in pairs)
                ours, loop = (1e3 * statistics.median(column) for column in zip(*pairs, strict=True))
                spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} - {ratios[-1]:.2f})"
                print(f"{name:22s} {size:4d} {runs:5d}   {form:13s} {ours:12.3f} {loop:14.3f}   {spread}", flush=True)


if __name__ == "__main__":
    main()
