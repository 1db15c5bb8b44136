"""Measures how training time grows with runs, features and examples, and whether memory stays within its budget.

python -m tests.benchmarks.growth [FIGURE.png]
"""

import resource
import subprocess
import sys
import time

import numpy as np
import torch

from lrscale.spec import Compute
from lrscale.tasks.registry import make_task
from lrscale.training.engine import train
from tests.configs import make

AXES: dict[str, list[int]] = {
    "runs": [1, 8, 64, 512, 4096],
    "features": [1, 4, 16, 64, 256],
    "examples": [256, 1024, 4096, 16384],
}


def seconds(runs: int = 64, features: int = 32, examples: int = 1024, memory_mb: int | None = None) -> float:
    made = make(
        task="linear",
        task__features=features,
        task__examples=examples,
        batch_size=16,
        budget__epochs=1,
        optimizer__lr=np.geomspace(1e-4, 1e-2, runs).tolist(),
    )
    task = make_task(made)
    started = time.perf_counter()
    train(made, task, Compute(memory_mb=memory_mb))
    return time.perf_counter() - started


def memory() -> None:
    """Prints the peak memory of 100,000 runs. It must run in a new process, because peak memory never falls."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    spent = seconds(runs=100_000, memory_mb=512)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"100,000 runs under compute.memory_mb=512: {spent:.1f} s, peak memory {after - before:+.0f} MB")


def main() -> None:
    torch.set_num_threads(1)
    if sys.argv[1:] == ["memory"]:
        memory()
        return
    seconds()
    measured = {axis: [min(seconds(**{axis: value}) for _ in range(9)) for value in values] for axis, values in AXES.items()}
    print("least squares, B = 16, one epoch; 64 runs, 32 features, 1024 examples where not varied; best of 9")
    for axis, values in AXES.items():
        print(f"{axis:9s}" + "".join(f"{value:>12d}" for value in values))
        print(f"{'ms':9s}" + "".join(f"{1e3 * spent:12.2f}" for spent in measured[axis]))
    subprocess.run([sys.executable, "-m", "tests.benchmarks.growth", "memory"], check=True)
    if len(sys.argv) > 1:
        draw(measured, sys.argv[1])


def draw(measured: dict[str, list[float]], path: str) -> None:
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    figure = Figure(figsize=(10, 3.4), layout="constrained")
    for axes, (axis, values) in zip(figure.subplots(1, 3, sharey=True), AXES.items(), strict=True):
        axes.loglog(values, [1e3 * s for s in measured[axis]], "o-", color="#0072b2")
        axes.set(xlabel=axis, title=f"against {axis}")
        axes.grid(True, color="#e6e6e6")
        axes.set_xticks(values, map(str, values))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    figure.axes[0].set_ylabel("milliseconds an epoch")
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
