"""Edges of stability of SGD on least squares, by simulation: of the mean over runs, of single runs, and with momentum.

Errors e = w - w* of noise-free SGD obey e' = (I - lr H) e, H = X^T X/B the Hessian of a fresh batch. Nothing here uses
a closed form: H is drawn, and momentum is trained. Theory is only the expected value beside it.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lrscale.errors import Refusal
from lrscale.estimate.intervals import Interval, jackknife
from lrscale.law import least_squares as theory
from lrscale.law import stability as edges
from lrscale.probes import PROBES, Probe
from lrscale.rules import FRACTION, integer
from lrscale.spec import Choice, Option, Training
from lrscale.streams import generator
from lrscale.tasks.least_squares import draw_examples
from lrscale.tasks.registry import TASKS
from lrscale.tasks.task import Population, Task
from lrscale.training.engine import train
from lrscale.training.quantity import Quantity
from lrscale.training.reduction import step_gradient_scale

Array = NDArray[np.float64]
PARTS = 20
"""Independent parts of a simulation, for its interval."""
CHAIN_STEPS = 200
"""Steps of each long run, the first half of which is left out."""
FACTORS = np.geomspace(0.8, 4, 33)
"""Lrs of the long runs, as multiples of the mean-square edge."""


def measure(training: Training, task: Task) -> list[Quantity]:
    """Measures the largest stable lr of plain SGD in the training's own reduction, and of momentum with the whole data.

    `mean_square_edge`: where E|e|^2 stops shrinking, from one step on fresh batches. `almost_sure_edge`: where a
    typical run stops, from long ones. `edge_ratio`: the latter over the former. `momentum_edge`, where the batch is the
    whole data: the edge of training with the probe's `momentum`.

    Source:
      `theory` for what is expected; `tests/probes/test_stability.py`.
    """
    source, size = task.population, training.step_examples
    assert source is not None and training.probe is not None
    c = step_gradient_scale(training)
    spectrum, examples = source.spectrum.numpy(), training.probe.options["examples"]
    mean_square = simulated_mean_square_edge(source, size, examples)
    expected = theory.mean_square_edge(spectrum, source.bias, size)
    quantities = [_quantity("mean_square_edge", mean_square, expected, c)]
    almost_sure = simulated_almost_sure_edge(source, size, examples, mean_square.value)
    typical = _expected_almost_sure(source, size)
    if almost_sure is not None:
        quantities.append(_quantity("almost_sure_edge", almost_sure, typical, c))
        quantities.append(_quantity("edge_ratio", _over(almost_sure, mean_square), typical and typical / expected, 1.0))
    if size == training.examples and task.optimum is not None:
        momentum = training.probe.options["momentum"]
        largest = float(torch.linalg.eigvalsh(task.optimum.gram)[-1])
        edge = simulated_momentum_edge(training, task, momentum, mean_square.value / c)
        quantities.append(_quantity("momentum_edge", edge, edges.momentum_edge(largest, momentum) / c, 1.0))
    return quantities


def _quantity(name: str, edge: Interval, expected: float | None, c: float) -> Quantity:
    """Returns the quantity of an edge under mean, converted to a reduction of gradient scale c."""
    return Quantity(name, edge.value / c, edge.low / c, edge.high / c, None if expected is None else expected / c)


def _over(above: Interval, below: Interval) -> Interval:
    """Returns a ratio with its interval; the relative errors are added in quadrature."""
    value = above.value / below.value
    margin = math.hypot(*((i.high - i.low) / 2 / i.value for i in (above, below))) * value
    return Interval(value, value - margin, value + margin)


def _expected_almost_sure(source: Population, size: int) -> float | None:
    if float(source.spectrum.min()) != float(source.spectrum.max()):
        return None
    return edges.almost_sure_edge(len(source.spectrum), source.bias, size, np.random.default_rng(0), chains=4000) / float(
        source.spectrum[0]
    )


def simulated_mean_square_edge(source: Population, batch_size: int, examples: int) -> Interval:
    """Mean-reduction lr at which the measured one-step map of the second moments stops contracting.

    From e along axis j one step leaves E e_i'^2 = delta_ij (1 - 2 lr E H_jj) + lr^2 E H_ij^2 along axis i, so that
    the map A(lr) has the eigenvalue 1 where lr = 2 / (top eigenvalue of E[H_ij^2] / E[H_ii]).

    Args:
      source: what features are drawn from.
      batch_size: examples per step.
      examples: how many are drawn, in all.
    """
    count = max(1, examples // (PARTS * batch_size))
    moments = []
    for part in range(PARTS):
        x = draw_examples(source, count * batch_size, "stability", "one step", batch_size, part)[0].view(count, batch_size, -1)
        hessians = x.mT @ x / batch_size
        moments.append(torch.cat([hessians.mean(0).diagonal().unsqueeze(0), hessians.square().mean(0)]).numpy())

    def edge(mean: Array) -> float:
        return 2 / float(np.abs(np.linalg.eigvals(mean[1:] / mean[0][:, None])).max())

    return jackknife(edge, np.array(moments))


def simulated_almost_sure_edge(source: Population, batch_size: int, examples: int, mean_square: float) -> Interval | None:
    """Mean-reduction lr at which long runs stop shrinking: their mean growth of log |e| a step is 0.

    Args:
      source: what features are drawn from.
      batch_size: examples per step.
      examples: how many are drawn, in all.
      mean_square: the other edge, near which this one is looked for.

    Returns:
      The edge, from a line between the lrs tried around it; None where it lies beyond them.
    """
    chains = PARTS * max(1, examples // (PARTS * CHAIN_STEPS * batch_size))
    lrs = mean_square * FACTORS
    growth = _growth(source, batch_size, chains, torch.from_numpy(lrs))

    def edge(mean: Array) -> float:
        above = int(np.argmax(mean > 0))
        if mean[above] <= 0 or above == 0:
            return math.nan
        share = -mean[above - 1] / (mean[above] - mean[above - 1])
        return float(math.exp((1 - share) * math.log(lrs[above - 1]) + share * math.log(lrs[above])))

    interval = jackknife(edge, growth.reshape(PARTS, -1, len(lrs)).mean(1))
    return interval if all(math.isfinite(end) for end in interval) else None


def _growth(source: Population, batch_size: int, chains: int, lrs: Tensor) -> Array:
    """Mean growth of log |e| a step, [chain, lr], over the second half of the steps."""
    weights = len(source.spectrum) + source.bias
    errors = torch.randn(chains, weights, 1, generator=generator("stability", "start"), dtype=torch.float64)
    errors = errors.expand(chains, weights, len(lrs)).contiguous()
    total = torch.zeros(chains, len(lrs), dtype=torch.float64)
    for step, x in enumerate(_batches(source, batch_size, chains)):
        errors = errors - x.mT @ (x @ errors) * (lrs / batch_size)
        size = errors.norm(dim=1, keepdim=True).clamp(min=1e-300)
        errors = errors / size
        if step >= CHAIN_STEPS // 2:
            total += size.squeeze(1).log()
    return np.asarray((total / (CHAIN_STEPS - CHAIN_STEPS // 2)).numpy())


def _batches(source: Population, batch_size: int, chains: int) -> Iterator[Tensor]:
    for step in range(CHAIN_STEPS):
        yield draw_examples(source, chains * batch_size, "stability", "long", batch_size, step)[0].view(chains, batch_size, -1)


def simulated_momentum_edge(training: Training, task: Task, momentum: float, near: float) -> Interval:
    """Lr at which training on the whole data at once, with momentum, stops ending below where it started.

    Args:
      training: its batch is the whole data; the lr is under its reduction.
      task: the training's task.
      momentum: beta.
      near: the lr is looked for from a tenth to a hundred times this one.

    Returns:
      The last bracket of the search, its ends a part in a thousand from each other.
    """
    options = {"momentum": momentum, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False}
    low, high = near / 10, near * 100
    for _ in range(2):
        lrs = np.geomspace(low, high, 81)
        chosen = Choice("sgd", {"lr": tuple(lrs.tolist()), **options})
        run = replace(training, optimizer=chosen, budget=Choice("steps", {"steps": 2000}), seeds=training.seeds[:1], points=2)
        excess = train(run, task).excess_risk
        unstable = ~(excess[-1] < excess[0])
        first = int(np.argmax(unstable)) if unstable.any() else len(lrs) - 1
        low, high = float(lrs[max(first - 1, 0)]), float(lrs[first])
    return Interval(math.sqrt(low * high), low, high)


def _check(training: Training) -> None:
    if not TASKS[training.task.name].is_least_squares:
        known = ", ".join(name for name in TASKS.names() if TASKS[name].is_least_squares)
        raise Refusal(f"`probe` stability needs least squares ({known}), got task {training.task.name}. Take task=linear.")


PROBES.declare(
    "stability",
    Probe(
        about="Edges of stability of SGD on least squares, by simulation; goes with task=linear or d2l.",
        options={
            "examples": Option(300000, integer(1000, 10**9), "fresh examples drawn for each edge"),
            "momentum": Option(0.9, FRACTION, "of the edge with momentum, measured where the batch is the whole data"),
        },
        check=_check,
        measure=measure,
    ),
)
