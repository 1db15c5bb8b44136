"""Measures which share of this machine's float32 matrix rate a training step of a network reaches.

It also measures the ratio of the plain loop's time to the engine's time.

python -m tests.benchmarks.networks
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from lrscale.tasks.built_in import BuiltInTask
from lrscale.tasks.registry import make_task
from lrscale.training.engine import weights_after
from tests.configs import make
from tests.loops import train_plainly

CASES: dict[str, tuple[dict[str, Any], list[tuple[int, int]], int, int]] = {  # changes, layers, runs, steps to time
    "digits mlp 64-64-10, B = 32, 64 runs": (
        {"task": "digits", "task__model": "mlp", "batch_size": 32},
        [(64, 64), (64, 10)],
        64,
        1000,
    ),
    "Fashion-MNIST softmax, B = 256, 64 runs": ({"task": "fashion_mnist", "batch_size": 256}, [(784, 10)], 64, 300),
    "Fashion-MNIST mlp, B = 256, 16 runs": (
        {"task": "fashion_mnist", "task__model": "mlp", "batch_size": 256},
        [(784, 256), (256, 10)],
        16,
        120,
    ),
}


def best(action: Callable[[], object], times: int = 3) -> float:
    spent = []
    for _ in range(times):
        started = time.perf_counter()
        action()
        spent.append(time.perf_counter() - started)
    return min(spent)


def matrix_rate() -> float:
    """Returns the floating-point operations per second, 2 for each multiply-add, of a float32 product of 1024 x 1024 matrices."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    return 2 * 1024**3 / best(lambda: a @ b, 20)


def step_seconds(train_for: Callable[[int], object], steps: int) -> float:
    """Returns the seconds per step.

    It takes the difference of a long and a short training, so the time before and after the steps does not count.
    """
    return (best(partial(train_for, steps + 10)) - best(partial(train_for, 10))) / steps


def main() -> None:
    for threads in (1, 2):
        torch.set_num_threads(threads)
        rate = matrix_rate()
        print(f"{threads} threads: {rate / 1e9:.0f} GFLOP/s in a product of 1024 x 1024 matrices")
        for name, (changes, layers, runs, steps) in CASES.items():
            made = make(**changes, points=2, budget="steps")
            task = make_task(made)
            ours = step_seconds(partial(_at_once, task, changes, runs), steps)
            plain = step_seconds(partial(_plain, task, changes), steps)
            passes = [2 if i == 0 else 3 for i in range(len(layers))]  # forward, gradient of weights, gradient of inputs
            products = runs * changes["batch_size"] * sum(2 * p * i * o for p, (i, o) in zip(passes, layers, strict=True))
            shares = f"{products / ours / rate:4.0%} of it, plain loop {products / (plain * runs) / rate:4.0%}"
            print(f"  {name:42s} {1e3 * ours:7.2f} ms a step  {shares}   ratio {plain * runs / ours:.1f}")


def _at_once(task: BuiltInTask, changes: dict[str, Any], runs: int, steps: int) -> None:
    lrs = np.geomspace(0.01, 0.2, runs).tolist()
    weights_after(make(**changes, optimizer__lr=lrs, budget="steps", budget__steps=steps), task, steps)


def _plain(task: BuiltInTask, changes: dict[str, Any], steps: int) -> None:
    made = make(**changes, optimizer__lr=0.05, budget="steps", budget__steps=steps)
    train_plainly(made, task, 0, points=frozenset())


if __name__ == "__main__":
    main()
