"""Measures the effect of short last batches: how much mean at lr, and sum_over_nominal at lr, differ from sum at lr / B."""

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from lrscale.errors import Refusal
from lrscale.estimate.best_lr import best_lr
from lrscale.estimate.intervals import seed_draws
from lrscale.law.moments import moment_map
from lrscale.probes import PROBES, Probe
from lrscale.rules import POSITIVE
from lrscale.spec import Choice, Option, Training
from lrscale.tasks.built_in import BuiltInTask, Population
from lrscale.tasks.registry import TASKS
from lrscale.training.engine import train
from lrscale.training.quantity import Quantity

Array = NDArray[np.float64]
"""An array of float64."""
GRID = 2 ** (np.arange(-8, 13) / 4)
"""The lrs that are tried, as multiples of the probe's lr."""
INIT = 1e-4
"""The variance of the initial weights."""


def measure(training: Training, task: BuiltInTask) -> list[Quantity]:
    """Trains with the same seeds under mean at lr, sum at lr / B and sum_over_nominal at lr. Short last batches are kept.

    - `ln loss ratio`: ln of the ratio of excess risks, averaged over seeds: under mean over under sum.
    - `nominal difference`: the largest relative difference between a run's excess risks under sum_over_nominal and sum.
    - `ln lr ratio`: ln of the best lr under mean over B x the best lr under sum. It is left out where one of them lies at an
      edge of the lrs that are tried.

    The expected values come from the second-moment recursion for fresh samples. There an epoch has floor(N/B) full steps and
    one step of N mod B examples. Sum takes that last step at lr (N mod B)/B, and mean takes it at lr.
    """
    assert training.probe is not None and task.population is not None
    size, lr = training.batch_size, float(training.probe.options["lr"])
    lrs = lr * GRID
    by_mean, by_sum, by_nominal = (
        _excess_risks(training, task, reduction, reduction_lrs)
        for reduction, reduction_lrs in (("mean", lrs), ("sum", lrs / size), ("sum_over_nominal", lrs))
    )
    at_lr, draws = int(np.argmin(np.abs(np.log(GRID)))), seed_draws(len(training.seeds))
    log_ratios = np.log(by_mean[at_lr][draws].mean(1) / by_sum[at_lr][draws].mean(1))
    low, high = np.quantile(log_ratios, [0.025, 0.975])
    quantities = [
        Quantity(
            "ln loss ratio",
            math.log(by_mean[at_lr].mean() / by_sum[at_lr].mean()),
            float(low),
            float(high),
            math.log(expected(training, task.population, lr, True) / expected(training, task.population, lr, False)),
        ),
        Quantity("nominal difference", float(np.abs(by_nominal[at_lr] / by_sum[at_lr] - 1).max()), expected=0.0),
    ]
    best = best_lr(lrs, by_mean), best_lr(lrs, by_sum)
    if best[0] is not None and best[1] is not None and not (best[0].at_edge or best[1].at_edge):
        low, high = np.quantile(best[0].draws - best[1].draws, [0.025, 0.975])
        fine_lrs = lr * np.geomspace(GRID[0], GRID[-1], 400)
        optima = [fine_lrs[np.argmin([expected(training, task.population, x, mean) for x in fine_lrs])] for mean in (True, False)]
        ratio = best[0].log_lr - best[1].log_lr
        quantities.append(Quantity("ln lr ratio", ratio, float(low), float(high), math.log(optima[0] / optima[1])))
    return quantities


def _excess_risks(training: Training, task: BuiltInTask, reduction: str, lrs: Array) -> Array:
    """Trains under a reduction with each lr, and returns the excess risks at the end, [lr, seed]."""
    options = {**training.optimizer.options, "lr": tuple(lrs.tolist())}
    variant = dataclasses.replace(
        training, reduction=reduction, drop_last=False, optimizer=Choice(training.optimizer.name, options)
    )
    risks: Array = train(variant, task).excess_risk[-1]
    return risks.reshape(len(lrs), -1)


def expected(training: Training, source: Population, lr: float, mean: bool) -> float:
    """Returns the expected excess risk after the training's epochs, if every sample is fresh.

    Args:
      training: it gives batch size, number of training examples, and number of steps.
      source: the population that samples are drawn from.
      lr: the lr under mean.
      mean: whether the short last batch is weighted as under mean; False weights it as under sum.
    """
    spectrum = source.spectrum.numpy()
    full_steps, rest = divmod(training.examples, training.batch_size)
    steps = [(training.batch_size, lr)] * full_steps
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
    """Raises Refusal unless the training is least squares with plain SGD and no accumulation."""
    name, options = training.optimizer.name, training.optimizer.options
    is_plain_sgd = (name, options.get("momentum"), options.get("weight_decay"), training.accumulation) == ("sgd", 0, 0, 1)
    if not TASKS[training.task.name].is_least_squares or not is_plain_sgd:
        raise Refusal(
            "`probe` last_batch needs least squares and plain SGD without momentum, weight decay or accumulation, "
            f"got task {training.task.name}, optimizer {name}. Take task=linear optimizer=sgd."
        )


PROBES.declare(
    "last_batch",
    Probe(
        about="How much do reductions differ where the last batch of an epoch is short? Needs least squares and plain SGD.",
        options={"lr": Option(0.2, POSITIVE, "lr under mean; sum uses lr / batch_size")},
        check=_check,
        measure=measure,
    ),
)
