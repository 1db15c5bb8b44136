"""Measures the edges of stability of SGD on least squares: of the mean over runs, of single runs, and with momentum.

An edge of stability is the largest lr at which errors still shrink. The error e = w - w* of SGD without noise obeys
e' = (I - lr H) e, where H = X^T X/B is the Hessian of a fresh batch. The measurement uses no closed form: H is drawn at
random, and momentum is trained. Theory gives only the expected values.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq
from torch import Tensor

from lrscale.errors import Refusal
from lrscale.estimate.intervals import Interval, jackknife
from lrscale.law import least_squares as theory
from lrscale.law import stability as edges
from lrscale.law.moments import NO_MOMENTUM, Momentum, velocity_map
from lrscale.probes import PROBES, Probe
from lrscale.rules import FRACTION, integer
from lrscale.spec import Choice, Option, Training
from lrscale.streams import generator
from lrscale.tasks.built_in import BuiltInTask, Population
from lrscale.tasks.least_squares import draw_examples
from lrscale.tasks.registry import TASKS
from lrscale.training.engine import train
from lrscale.training.quantity import Quantity
from lrscale.training.reduction import step_gradient_scale

Array = NDArray[np.float64]
"""An array of float64."""
PARTS = 20
"""The number of independent parts of a simulation. Their spread gives its interval."""
CHAIN_STEPS = 200
"""The number of steps of each long run. The first half of them is left out of the mean."""
FACTORS = np.geomspace(0.8, 4, 33)
"""The lrs of the long runs, as multiples of the mean-square edge."""


def measure(training: Training, task: BuiltInTask) -> list[Quantity]:
    """Measures the largest stable lr of SGD with the training's momentum. Lrs are in the training's reduction.

    - `mean_square_edge`: the lr at which E|e|^2 stops shrinking, measured in one step on fresh batches.
    - `almost_sure_edge`: the lr at which a typical run stops shrinking, measured in long runs of plain SGD. It is left out
      with momentum, and where it lies outside the lrs that are tried.
    - `edge_ratio`: almost_sure_edge / mean_square_edge.
    - `momentum_edge`: the edge of training with the probe's `momentum`. It is measured where a step takes the whole data.

    Source:
      `law.least_squares` and `law.stability` for the expected values; `tests/probes/test_stability.py`.
    """
    source, size = task.population, training.step_examples
    assert source is not None and training.probe is not None
    c = step_gradient_scale(training)
    examples = training.probe.options["examples"]
    momentum = _momentum(training)
    mean_square = simulated_mean_square_edge(source, size, examples, momentum)
    expected = _expected_mean_square(source, size, momentum)
    quantities = [_quantity("mean_square_edge", mean_square, expected, c)]
    almost_sure = None if momentum.beta else simulated_almost_sure_edge(source, size, examples, mean_square.value)
    if almost_sure is not None:
        expected_almost_sure = _expected_almost_sure(source, size)
        expected_ratio = expected_almost_sure and expected_almost_sure / expected
        quantities.append(_quantity("almost_sure_edge", almost_sure, expected_almost_sure, c))
        quantities.append(_quantity("edge_ratio", _ratio(almost_sure, mean_square), expected_ratio, 1.0))
    if size == training.examples and task.optimum is not None:
        beta = training.probe.options["momentum"]
        largest = float(torch.linalg.eigvalsh(task.optimum.gram)[-1])
        edge = simulated_momentum_edge(training, task, beta, mean_square.value / c)
        quantities.append(_quantity("momentum_edge", edge, edges.momentum_edge(largest, beta) / c, 1.0))
    return quantities


def _momentum(training: Training) -> Momentum:
    """Returns the momentum of the training's optimizer; none where this is not SGD."""
    options = training.optimizer.options
    return Momentum(options["momentum"], options["nesterov"]) if training.optimizer.name == "sgd" else NO_MOMENTUM


def _quantity(name: str, edge: Interval, expected: float | None, c: float) -> Quantity:
    """Returns the quantity of an edge under mean, converted to a reduction of gradient scale c."""
    return Quantity(name, edge.value / c, edge.low / c, edge.high / c, None if expected is None else expected / c)


def _ratio(numerator: Interval, denominator: Interval) -> Interval:
    """Returns a ratio with its interval; the relative errors are added in quadrature."""
    value = numerator.value / denominator.value
    margin = math.hypot(*((i.high - i.low) / 2 / i.value for i in (numerator, denominator))) * value
    return Interval(value, value - margin, value + margin)


def _expected_mean_square(source: Population, size: int, momentum: Momentum) -> float:
    """Returns the mean-square edge of theory under mean: the closed form of heavy ball where there is one."""
    spectrum = source.spectrum.numpy()
    features, largest = len(spectrum), float(spectrum.max())
    if momentum.beta == 0 or momentum.nesterov or float(spectrum.min()) != largest or (source.bias and largest != 1):
        return theory.mean_square_edge(spectrum, source.bias, size, momentum)
    kappa = theory.fourth_moment(features) if source.bias else features + 2
    return edges.heavy_ball_edge(size, momentum.beta, kappa) / largest


def _expected_almost_sure(source: Population, size: int) -> float | None:
    """Returns the almost-sure edge of theory under mean; None where the eigenvalues of the features are not all equal."""
    if float(source.spectrum.min()) != float(source.spectrum.max()):
        return None
    return edges.almost_sure_edge(len(source.spectrum), source.bias, size, np.random.default_rng(0), chains=4000) / float(
        source.spectrum[0]
    )


def simulated_mean_square_edge(source: Population, batch_size: int, examples: int, momentum: Momentum = NO_MOMENTUM) -> Interval:
    """Returns the lr under mean at which the measured one-step map of the second moments stops contracting.

    If e has length 1 along axis j, one step gives E e_i'^2 = delta_ij (1 - 2 lr E H_jj) + lr^2 E H_ij^2 along axis i. So the
    map A(lr) has the eigenvalue 1 at lr = 2 / (top eigenvalue of E[H_ij^2] / E[H_ii]). With momentum the map is `velocity_map`
    with these measured moments, and the lr is found where its largest eigenvalue is 1.

    Args:
      source: the population that features are drawn from.
      batch_size: number of examples in a step.
      examples: number of examples that are drawn, in all steps together.
      momentum: the momentum of SGD.
    """
    count = max(1, examples // (PARTS * batch_size))
    moments = []
    for part in range(PARTS):
        x = draw_examples(source, count * batch_size, "stability", "one step", batch_size, part)[0].view(count, batch_size, -1)
        hessians = x.mT @ x / batch_size
        moments.append(torch.cat([hessians.mean(0).diagonal().unsqueeze(0), hessians.square().mean(0)]).numpy())

    def edge(mean: Array) -> float:
        first, second = mean[0], mean[1:]
        if momentum.beta:
            return _edge_with_momentum(second, first, momentum)
        return 2 / float(np.abs(np.linalg.eigvals(second / first[:, None])).max())

    return jackknife(edge, np.array(moments))


def _edge_with_momentum(second: Array, first: Array, momentum: Momentum) -> float:
    """Returns the lr under mean at which the largest eigenvalue of the map with momentum is 1.

    Args:
      second: E H_ij^2, [moment, moment].
      first: E H_ii, [moment].
      momentum: the momentum of SGD.
    """

    def growth(lr: float) -> float:
        return float(np.abs(np.linalg.eigvals(velocity_map(second, first, lr, momentum))).max()) - 1

    high = 2.1 * (1 + momentum.beta) / float(first.max())
    return float(brentq(growth, high * 1e-6, high, rtol=1e-9))


def simulated_almost_sure_edge(source: Population, batch_size: int, examples: int, mean_square: float) -> Interval | None:
    """Returns the lr under mean at which long runs stop shrinking: there the mean growth of log |e| per step is 0.

    Args:
      source: the population that features are drawn from.
      batch_size: number of examples in a step.
      examples: number of examples that are drawn, in all steps and runs together.
      mean_square: the mean-square edge; the lrs that are tried are multiples of it.

    Returns:
      The edge, interpolated between the two lrs around it; None where it lies outside the lrs that are tried.
    """
    chains = PARTS * max(1, examples // (PARTS * CHAIN_STEPS * batch_size))
    lrs = mean_square * FACTORS
    growth = _growth(source, batch_size, chains, torch.from_numpy(lrs))

    def edge(mean: Array) -> float:
        first = int(np.argmax(mean > 0))
        if mean[first] <= 0 or first == 0:
            return math.nan
        fraction = -mean[first - 1] / (mean[first] - mean[first - 1])
        return float(math.exp((1 - fraction) * math.log(lrs[first - 1]) + fraction * math.log(lrs[first])))

    interval = jackknife(edge, growth.reshape(PARTS, -1, len(lrs)).mean(1))
    return interval if all(math.isfinite(end) for end in interval) else None


def _growth(source: Population, batch_size: int, chains: int, lrs: Tensor) -> Array:
    """Returns the mean growth of log |e| per step, [chain, lr], over the second half of the steps."""
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
    """Yields the features of fresh batches for all chains, [chain, example, feature], once per step."""
    for step in range(CHAIN_STEPS):
        yield draw_examples(source, chains * batch_size, "stability", "long", batch_size, step)[0].view(chains, batch_size, -1)


def simulated_momentum_edge(training: Training, task: BuiltInTask, momentum: float, near: float) -> Interval:
    """Returns the smallest lr at which training with momentum does not end at a smaller loss than it started.

    Each step takes the whole data. The lr is in the training's reduction.

    Args:
      training: a training whose step takes the whole data.
      task: the training's task.
      momentum: the momentum beta.
      near: an lr. The edge is searched from a tenth of it to a hundred times it.

    Returns:
      The last bracket of the search, and its geometric mean. The ends of the bracket differ by about one in a thousand.
    """
    options = {"momentum": momentum, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False}
    low, high = near / 10, near * 100
    for _ in range(2):
        lrs = np.geomspace(low, high, 81)
        optimizer = Choice("sgd", {"lr": tuple(lrs.tolist()), **options})
        budget = Choice("steps", {"steps": 2000})
        variant = replace(training, optimizer=optimizer, budget=budget, seeds=training.seeds[:1], points=2)
        excess = train(variant, task).excess_risk
        unstable = ~(excess[-1] < excess[0])
        first = int(np.argmax(unstable)) if unstable.any() else len(lrs) - 1
        low, high = float(lrs[max(first - 1, 0)]), float(lrs[first])
    return Interval(math.sqrt(low * high), low, high)


def _check(training: Training) -> None:
    """Raises Refusal unless the task is least squares."""
    if not TASKS[training.task.name].is_least_squares:
        known = ", ".join(name for name in TASKS.names() if TASKS[name].is_least_squares)
        raise Refusal(f"`probe` stability needs least squares ({known}), got task {training.task.name}. Take task=linear.")


PROBES.declare(
    "stability",
    Probe(
        about="What is the largest stable lr of SGD on least squares, by simulation? Needs task=linear or d2l.",
        options={
            "examples": Option(300000, integer(1000, 10**9), "number of fresh examples drawn for each edge"),
            "momentum": Option(0.9, FRACTION, "momentum of momentum_edge, which is measured where a step takes the whole data"),
        },
        check=_check,
        measure=measure,
    ),
)
