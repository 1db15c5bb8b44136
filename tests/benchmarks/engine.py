"""Compares the time of training many runs at once with the time of the plain loop.

All train with the recipe of d2l and record at the same points. The runs at once are timed twice: with the gradients
in closed form, and with the model as a torch module.

python -m tests.benchmarks.engine
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from lrscale.tasks.own import Task
from lrscale.tasks.registry import make_task
from lrscale.training.engine import recording_steps, train
from tests.configs import make
from tests.loops import train_plainly

RUNS = 512
ROUNDS = 7


def seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def half_square(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (out.squeeze(-1) - y).square() / 2


def main() -> None:
    torch.set_num_threads(1)
    made = make(batch_size=10, budget__epochs=3, optimizer__lr=np.geomspace(1e-3, 0.3, RUNS).tolist())
    task, points = make_task(made), frozenset(recording_steps(made))
    data = task.data

    def linear() -> nn.Module:
        return nn.Linear(data.x.shape[1], 1, bias=False)

    generic = Task(linear, half_square, (data.x, data.y), (data.x_valid, data.y_valid))
    actions = {
        "plain loop": lambda: train_plainly(made, task, seed=0, trial=256, points=points),
        f"{RUNS} runs at once": lambda: train(made, task),
        f"{RUNS} runs of a module at once": lambda: train(made, generic),
    }
    for action in actions.values():
        action()
    rounds = [[seconds(action) for action in actions.values()] for _ in range(ROUNDS)]
    print(f"d2l's recipe, 1000 examples, B = 10, 3 epochs, float64, one thread; medians of {ROUNDS} rounds")
    for i, name in enumerate(actions):
        runs = 1 if i == 0 else RUNS
        ratios = sorted(runs * spent[0] / spent[i] for spent in rounds)
        ms = 1e3 * statistics.median(spent[i] for spent in rounds) / runs
        gain = f"   {statistics.median(ratios):.0f} times, from {ratios[0]:.0f} to {ratios[-1]:.0f}" if runs > 1 else ""
        print(f"{name:28s} {ms:9.3f} ms a run{gain}")


if __name__ == "__main__":
    main()
