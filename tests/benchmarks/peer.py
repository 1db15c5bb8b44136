"""Compares the training time of lrscale with that of JAX's jit(scan(vmap)) over the grid of the headline study.

Only training is timed. Both compute the same numbers, in float32 on one thread.

pip install -e '.[bench]' && python -m tests.benchmarks.peer
"""

import os

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from lrscale.spec import Training
from lrscale.streams import generator
from lrscale.tasks.built_in import BuiltInTask
from lrscale.tasks.registry import make_task
from lrscale.training.engine import recording_steps, train
from lrscale.training.minibatches import batch_order
from tests.configs import make

SIZES = [2**k for k in range(11)]
LRS = np.geomspace(1e-4, 2.0, 33)
AGREE = 1e-3
ROUNDS = 7


def describe(batch_size: int, reduction: str) -> Training:
    scale = batch_size if reduction == "sum" else 1
    lrs = (LRS / scale).tolist()
    common: dict[str, Any] = {"task": "linear", "budget__epochs": 10, "points": 90, "seeds": 8, "dtype": "float32"}
    return make(**common, batch_size=batch_size, reduction=reduction, optimizer__lr=lrs)


@jax.jit
@partial(jax.vmap, in_axes=(0, None, 0, None, None, None, None))  # seeds
def run(w: Any, lrs: Any, order: Any, points: Any, scale: Any, data: Any, optimum: Any) -> Any:
    """Trains all lrs of one seed, and returns the same values as lrscale records.

    Shapes: w [feature], lrs [lr], order [step, example]. The first value returned holds three curves: the excess risk
    after each step, the loss of its minibatch and the norm of its gradient. They are 0 at steps that are not recorded.
    The second is the validation loss at the end.
    """
    x, y, x_valid, y_valid = data
    best, gram = optimum

    def step(w: Any, at: Any) -> Any:
        places, seen = at
        residual = w @ x[places].T - y[places]
        gradient = scale * residual @ x[places]
        after = w - lrs[:, None] * gradient

        def look(after: Any) -> Any:
            off = after - best
            excess = 0.5 * ((off @ gram) * off).sum(1)
            return excess, 0.5 * (residual**2).mean(1), jnp.sqrt((gradient**2).sum(1))

        return after, jax.lax.cond(seen, look, lambda w: (jnp.zeros(len(lrs)),) * 3, after)

    w, lines = jax.lax.scan(step, jnp.broadcast_to(w, (len(lrs), *w.shape)), (order, points))
    return lines, 0.5 * ((w @ x_valid.T - y_valid) ** 2).mean(1)


def by_jax(made: Training, task: BuiltInTask) -> np.ndarray:
    assert task.optimum is not None
    count, steps = made.batch_size, made.steps
    orders = [
        torch.cat([batch_order(seed, epoch, 1024) for epoch in range(10)]).view(steps, count).numpy() for seed in made.seeds
    ]
    starts = np.stack([task.model.initial(generator("init", seed))[0].float().numpy() for seed in made.seeds])
    due = np.zeros(steps, bool)
    due[np.array(recording_steps(made)[1:]) - 1] = True
    scale = np.float32(1 if made.reduction == "sum" else 1 / count)
    lrs = np.array(made.optimizer.options["lr"], np.float32)
    optimum = (task.optimum.weights.float().numpy(), task.optimum.gram.float().numpy())
    lines, _ = jax.block_until_ready(run(starts, lrs, np.stack(orders), due, scale, tuple(map(np.asarray, task.data)), optimum))
    excess, *_ = (np.asarray(line)[:, due].transpose(1, 2, 0).reshape(int(due.sum()), -1) for line in lines)  # [point, run]
    return excess


def timed(action: Callable[[Training, BuiltInTask], object], grid: list[tuple[Training, BuiltInTask]]) -> list[float]:
    spent = []
    for made, task in grid:
        started = time.perf_counter()
        action(made, task)
        spent.append(time.perf_counter() - started)
    return spent


def difference(made: Training, task: BuiltInTask) -> float:
    """Returns the largest relative difference of the final losses, over the runs that do not diverge."""
    assert task.optimum is not None
    ours, theirs = train(made, task).train_loss, task.optimum.minimum + by_jax(made, task)
    calm = np.isfinite(ours[-1]) & (ours[-1] < ours[0])
    return float(np.abs(theirs[-1][calm] / ours[-1][calm] - 1).max())


def main() -> None:
    torch.set_num_threads(1)
    grid = [(made, make_task(made)) for made in (describe(size, kind) for size in SIZES for kind in ("mean", "sum"))]
    timed(train, grid)
    seconds = {"jax with compilation": timed(by_jax, grid)}
    for name, action in [("lrscale", train), ("jax", by_jax)] * ROUNDS:
        spent = timed(action, grid)
        seconds[name] = [min(pair) for pair in zip(seconds.get(name, spent), spent, strict=True)]
    runs = len(grid) * len(LRS) * 8
    print(f"{runs} trainings: d = 32, N = 1024, 10 epochs, about 100 points each; float32, one thread, best of {ROUNDS} a cell")
    for name, spent in seconds.items():
        share = sum(s for s, (made, _) in zip(spent, grid, strict=True) if made.batch_size == 1) / sum(spent)
        print(f"{name:22s} {sum(spent):6.2f} s   {runs / sum(spent):7.0f} trainings a second   B = 1 takes {share:.0%}")
    ours, compiled = sum(seconds["lrscale"]), sum(seconds["jax with compilation"])
    print(f"ratio to jax           {ours / sum(seconds['jax']):6.2f}, with its compilation {ours / compiled:.2f}")
    worst = max(difference(made, task) for made, task in grid)
    print(f"largest relative difference of the final loss {worst:.1e} (float32; at most {AGREE:g})")


if __name__ == "__main__":
    main()
