"""Training many runs at once against the plain loop: d2l's recipe, both recording the same points.

python -m tests.benchmarks.engine
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from lrscale.tasks import make_task
from lrscale.train import recording_steps, train
from tests.configs import make
from tests.plain import train_plainly

RUNS = 512
PAIRS = 7


def seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def main() -> None:
    torch.set_num_threads(1)
    made = make(batch_size=10, budget__epochs=3, optimizer__lr=np.geomspace(1e-3, 0.3, RUNS).tolist())
    task, points = make_task(made), frozenset(recording_steps(made))
    actions = (lambda: train(made, task), lambda: train_plainly(made, task, seed=0, trial=256, points=points))
    for action in actions:
        action()
    pairs = [(seconds(actions[0]) / RUNS, seconds(actions[1])) for _ in range(PAIRS)]
    ratios = sorted(plain / ours for ours, plain in pairs)
    print(f"d2l's recipe, 1000 examples, B = 10, 3 epochs, float64, one thread; medians of {PAIRS} pairs")
    print(f"plain loop        {1e3 * statistics.median(p for _, p in pairs):9.3f} ms a run")
    print(f"{RUNS} runs at once  {1e3 * statistics.median(o for o, _ in pairs):9.3f} ms a run")
    print(f"ratio             {statistics.median(ratios):9.0f}     from {ratios[0]:.0f} to {ratios[-1]:.0f}")


if __name__ == "__main__":
    main()
