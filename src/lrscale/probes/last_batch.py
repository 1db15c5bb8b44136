"""Short last batches: how much mean at lr, and sum over the nominal batch size, differ from sum at lr / B."""

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from lrscale.errors import Refusal
from lrscale.estimate.best_lr import best_lr
from lrscale.estimate.intervals import seed_draws
from lrscale.law.least_squares import moment_map
from lrscale.probes import PROBES, Probe
from lrscale.rules import POSITIVE
from lrscale.spec import Choice, Option, Training
from lrscale.tasks.registry import TASKS
from lrscale.tasks.task import Population, Task
from lrscale.training.engine import train
from lrscale.training.quantity import Quantity

Array = NDArray[np.float64]
GRID = 2 ** (np.arange(-8, 13) / 4)
"""Lrs that are tried, as multiples of the probe's."""
INIT = 1e-4
"""Variance of initial weights."""


def measure(training: Training, task: Task) -> list[Quantity]:
    """Trains with the same seeds under mean at lr, sum at lr / B and sum_over_nominal at lr, short last batches kept.

    Quantities: `ln loss ratio`, of the seed-mean excess risk under mean over that under sum; `nominal difference`, the
    largest relative difference of a run's excess risk between sum_over_nominal and sum; `ln lr ratio`, of the best lr
    under mean over B times that under sum. Expected is the second-moment recursion for fresh samples: an epoch is
    floor(N/B) whole steps and one of N mod B examples, which sum takes at lr (N mod B)/B and mean at lr.
    """
    assert training.probe is not None and task.population is not None
    size, lr = training.batch_size, float(training.probe.options["lr"])
    lrs = lr * GRID
    by_mean, by_sum, nominal = (
        _excess(training, task, how, rates) for how, rates in (("mean", lrs), ("sum", lrs / size), ("sum_over_nominal", lrs))
    )
    at, draws = int(np.argmin(np.abs(np.log(GRID)))), seed_draws(len(training.seeds))
    drawn = np.log(by_mean[at][draws].mean(1) / by_sum[at][draws].mean(1))
    low, high = np.quantile(drawn, [0.025, 0.975])
    out = [
        Quantity(
            "ln loss ratio",
            math.log(by_mean[at].mean() / by_sum[at].mean()),
            float(low),
            float(high),
            math.log(expected(training, task.population, lr, True) / expected(training, task.population, lr, False)),
        ),
        Quantity("nominal difference", float(np.abs(nominal[at] / by_sum[at] - 1).max()), expected=0.0),
    ]
    best = best_lr(lrs, by_mean), best_lr(lrs, by_sum)
    if best[0] is not None and best[1] is not None and not (best[0].at_edge or best[1].at_edge):
        low, high = np.quantile(best[0].drawn - best[1].drawn, [0.025, 0.975])
        fine = lr * np.geomspace(GRID[0], GRID[-1], 400)
        least = [fine[np.argmin([expected(training, task.population, x, mean) for x in fine])] for mean in (True, False)]
        ratio = best[0].log_lr - best[1].log_lr
        out.append(Quantity("ln lr ratio", ratio, float(low), float(high), math.log(least[0] / least[1])))
    return out


def _excess(training: Training, task: Task, reduction: str, lrs: Array) -> Array:
    """Returns the excess risk at the end, [lr, seed]."""
    options = {**training.optimizer.options, "lr": tuple(lrs.tolist())}
    made = dataclasses.replace(training, reduction=reduction, drop_last=False, optimizer=Choice(training.optimizer.name, options))
    ends: Array = train(made, task).excess_risk[-1]
    return ends.reshape(len(lrs), -1)


def expected(training: Training, source: Population, lr: float, mean: bool) -> float:
    """Returns the expected excess risk after epochs of fresh samples. `mean`: the short last batch is weighted as under mean."""
    spectrum = source.spectrum.numpy()
    whole, rest = divmod(training.examples, training.batch_size)
    steps = [(training.batch_size, lr)] * whole
    steps += [(rest, lr if mean else lr * rest / training.batch_size)] if rest else []
    moments = source.weights.numpy() ** 2 + INIT
    if source.bias:
        moments[-1] -= INIT
    maps = {step: moment_map(spectrum, source.bias, *step) for step in set(steps)}
    for step in steps * (training.steps // training.steps_per_epoch):
        a, v = maps[step]
        moments = a @ moments + source.noise**2 * v
    lam = np.append(spectrum, 1.0) if source.bias else spectrum
    return float(lam @ moments / 2)


def _check(training: Training) -> None:
    name, options = training.optimizer.name, training.optimizer.options
    is_plain_sgd = (name, options.get("momentum"), options.get("weight_decay"), training.accumulation) == ("sgd", 0, 0, 1)
    if not TASKS[training.task.name].is_least_squares or not is_plain_sgd:
        raise Refusal(
            "`probe` last_batch needs least squares and plain SGD, no momentum, decay or accumulation, "
            f"got task {training.task.name}, optimizer {name}. Take task=linear optimizer=sgd."
        )


PROBES.declare(
    "last_batch",
    Probe(
        about="How far do reductions part where the epoch's last batch is short? Needs least squares and plain SGD.",
        options={"lr": Option(0.2, POSITIVE, "under mean; sum takes it over batch_size")},
        check=_check,
        measure=measure,
    ),
)
