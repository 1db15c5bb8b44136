"""Measures the gradient noise scale during training, and the best lr of a single step, which depends on the batch size."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lrscale.errors import Refusal
from lrscale.estimate import fits as forms
from lrscale.estimate.best_lr import best_lr
from lrscale.estimate.intervals import Interval
from lrscale.law import least_squares as theory
from lrscale.probes import FRACTION_DONE, PROBES, Probe
from lrscale.rules import integer
from lrscale.spec import Option, Training
from lrscale.streams import generator
from lrscale.tasks.built_in import BuiltInTask
from lrscale.tasks.least_squares import draw_examples
from lrscale.tasks.models import Parameters
from lrscale.training.built_in_runs import batch_gradients, batches_in_memory, full_data_mean
from lrscale.training.engine import weights_after
from lrscale.training.quantity import Quantity
from lrscale.training.reduction import step_gradient_scale

Array = NDArray[np.float64]
"""An array of float64."""
JUDGED = 2000
"""The number of training examples on which the loss after a step of a network is measured."""
OCTAVES = np.arange(-10.0, 6)
"""The logs to base 2 of the lrs that are tried first for a step. Lrs an eighth of an octave apart around the best follow."""


def measure(training: Training, task: BuiltInTask) -> list[Quantity]:
    """Measures the noise scale after a `fraction` of training, and the best lr of one step if this is the start.

    - `b_simple`: tr(Sigma)/|G|^2, where G is the gradient of the mean loss and Sigma the covariance of the examples'
      gradients.
    - `one_step_lr`: the lr with which one step on a batch lowers the loss most, on average over batches. It is an lr in the
      training's reduction. It is measured for fraction 0 only.

    Each seed is trained by itself, and the draws of all seeds are pooled. Numbers that are not finite are left out. For
    example, `b_simple` has no interval where the pairs of batches cannot tell |G|^2 from 0.

    Source:
      McCandlish et al. 2018, arXiv 1812.06162: two batch sizes (appendix A.1), eps_max/(1 + B_noise/B) (section 2.2).
    """
    assert training.probe is not None
    options = training.probe.options
    weights = weights_after(training, task, round(options["fraction"] * training.steps))
    quantities = _b_simple(training, task, weights)
    if options["fraction"] == 0:
        size = training.step_examples
        c = step_gradient_scale(training)
        best, expected = one_step_lr(task, weights, size, options["steps"], training.seeds), _greedy_lr(task, weights, size)
        low, high = (best.low / c, best.high / c) if math.isfinite(best.high) else (None, None)  # no interval at an edge
        quantities.append(Quantity("one_step_lr", best.value / c, low, high, expected and expected / c))
    return quantities


def _b_simple(training: Training, task: BuiltInTask, weights: Parameters) -> list[Quantity]:
    """Returns the quantity `b_simple` at the weights [seed, 1, *shape]; an empty list where it is not finite."""
    assert training.probe is not None
    options = training.probe.options
    norms = []
    for index, seed in enumerate(training.seeds):
        seed_weights = [w[index] for w in weights]
        norms.append([gradient_norms(task, seed_weights, options["pairs"], options[b], b, seed) for b in ("small", "big")])
    small, big = np.concatenate(norms, 1)
    b_simple = forms.noise_scale(small, big, options["small"], options["big"])
    if not math.isfinite(b_simple.value):
        return []
    low, high = (b_simple.low, b_simple.high) if math.isfinite(b_simple.high) else (None, None)
    return [Quantity("b_simple", b_simple.value, low, high, _expected_b_simple(task, weights))]


def fresh(task: BuiltInTask, examples: int, *name: str | int) -> tuple[Tensor, Tensor]:
    """Draws fresh examples: from the population for least squares, else from the training data with replacement.

    Args:
      task: the task that the examples are for.
      examples: the number of examples.
      *name: the name of the random stream.

    Returns:
      Features, [example, ...], and targets, [example].
    """
    if task.population is not None:
        x, y = draw_examples(task.population, examples, "noise_scale", *name)
        return x.to(task.data.x.dtype), y.to(task.data.y.dtype)
    indices = torch.randint(len(task.data.x), (examples,), generator=generator("noise_scale", *name))
    return task.data.x[indices], task.data.y[indices]


def gradient_norms(task: BuiltInTask, weights: Parameters, count: int, size: int, *name: str | int) -> Array:
    """Returns the norms of the gradients of the mean loss over fresh batches, all at the same weights, [batch].

    Args:
      task: its model and its data.
      weights: the weights of one run, [1, *shape] each.
      count: number of batches.
      size: number of examples in each batch.
      *name: the name of the random stream that draws the examples.
    """
    x, y = fresh(task, count * size, *name)
    batches = batches_in_memory(task, weights, size)
    norms = []
    for features, targets in zip(x.view(count, size, -1).split(batches), y.view(count, size).split(batches), strict=True):
        gradients = batch_gradients(task, weights, features, targets)
        norms.append(torch.stack([g.flatten(1).double().square().sum(1) for g in gradients]).sum(0).sqrt())
    return np.asarray(torch.cat(norms).numpy())


def one_step_lr(task: BuiltInTask, weights: Parameters, size: int, steps: int, seeds: tuple[int, ...]) -> Interval:
    """Returns the lr under mean with which one step lowers the loss most, averaged over batches and seeds.

    Args:
      task: its model and its data.
      weights: the weights before the step, [seed, 1, *shape] each.
      size: number of examples in a batch.
      steps: number of steps for each seed, each from the same weights on its own batch.
      seeds: the seeds, in the order of the weights.
    """
    coarse_lrs = 2.0**OCTAVES
    losses = _losses_after_one_step(task, weights, size, steps, seeds, coarse_lrs)
    centre = int(np.argmin(losses.mean(1)))
    fine_lrs = coarse_lrs[centre] * 2.0 ** (np.arange(-8, 9) / 8)
    best = best_lr(fine_lrs, _losses_after_one_step(task, weights, size, steps, seeds, fine_lrs))
    assert best is not None
    return best.interval or Interval(best.lr, 0.0, math.inf)


def _losses_after_one_step(
    task: BuiltInTask, weights: Parameters, size: int, steps: int, seeds: tuple[int, ...], lrs: Array
) -> Array:
    """Returns the loss after one step with each lr, [lr, seed x step]; for least squares the excess risk."""
    factors, losses = torch.from_numpy(lrs).to(task.data.x.dtype), []
    for index, seed in enumerate(seeds):
        start = [w[index] for w in weights]
        x, y = fresh(task, steps * size, "one step", seed)
        for features, targets in zip(x.view(steps, 1, size, -1), y.view(steps, 1, size), strict=True):
            gradients = batch_gradients(task, start, features, targets)
            after = [w - factors.view(-1, *[1] * (w.ndim - 1)) * g[0] for w, g in zip(start, gradients, strict=True)]
            losses.append(_loss(task, after))
    return np.array(losses).T


def _loss(task: BuiltInTask, weights: Parameters) -> Array:
    """Returns the loss at the weights [run, *shape], [run].

    For least squares it is the excess risk. For other tasks it is the mean over the first JUDGED training examples.
    """
    source = task.population
    if source is not None:
        return np.asarray(source.excess([weights[0].unsqueeze(0)])[0].numpy())
    x, y = task.data.x[:JUDGED].unsqueeze(0), task.data.y[:JUDGED].unsqueeze(0)
    return np.asarray(full_data_mean(task.model.losses, [w.unsqueeze(0) for w in weights], x, y, task.model.width)[0].numpy())


def _scales(task: BuiltInTask, weights: Parameters) -> list[tuple[float, theory.NoiseScales]]:
    """Returns |G|^2 and the noise scales of theory at each seed's weights; an empty list where theory has none."""
    source = task.population
    if source is None:
        return []
    errors = (weights[0][:, 0].double() - source.weights).numpy()
    squares = ((errors * source.eigenvalues.numpy()) ** 2).sum(1)
    return [
        (float(square), theory.noise_scales(source.spectrum.numpy(), source.bias, error, source.noise))
        for square, error in zip(squares, errors, strict=True)
    ]


def _expected_b_simple(task: BuiltInTask, weights: Parameters) -> float | None:
    """Returns B_simple of all seeds pooled: the sum of tr(Sigma) over the sum of |G|^2."""
    scales = _scales(task, weights)
    return math.fsum(g * s.b_simple for g, s in scales) / math.fsum(g for g, _ in scales) if scales else None


def _greedy_lr(task: BuiltInTask, weights: Parameters, size: int) -> float | None:
    """Returns the one-step lr that theory expects for all seeds pooled: the sum of |G|^2 over the sum of G'HG (1 + B_noise/B)."""
    scales = _scales(task, weights)
    return math.fsum(g for g, _ in scales) / math.fsum(g / s.greedy_lr(size) for g, s in scales) if scales else None


def _check(training: Training) -> None:
    """Raises Refusal unless the small batch is smaller than the big one."""
    assert training.probe is not None
    small, big = training.probe.options["small"], training.probe.options["big"]
    if small >= big:
        raise Refusal(f"`probe.small` must be below probe.big = {big}, got {small}. Take 16 and 1024.")


PROBES.declare(
    "noise_scale",
    Probe(
        about="What is the gradient noise scale B_simple during training, and the best lr of one step at its start?",
        options={
            "fraction": FRACTION_DONE,
            "small": Option(16, integer(1, 100_000), "examples in a small batch"),
            "big": Option(1024, integer(2, 1_000_000), "examples in a big batch"),
            "pairs": Option(100, integer(2, 100_000), "pairs of a small and a big batch, for each seed"),
            "steps": Option(64, integer(1, 100_000), "single steps for each seed, each on its own batch"),
        },
        check=_check,
        measure=measure,
    ),
)
