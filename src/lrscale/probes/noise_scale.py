"""The gradient noise scale along training, and the best lr of a single step against batch size."""

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
from lrscale.probes import PROBES, Probe
from lrscale.rules import Rule, integer, is_number
from lrscale.spec import Option, Training
from lrscale.streams import generator
from lrscale.tasks.least_squares import draw_examples
from lrscale.tasks.models import Parameters
from lrscale.tasks.task import Task
from lrscale.training.engine import full_data_mean, weights_after
from lrscale.training.minibatches import BLOCK_BYTES
from lrscale.training.quantity import Quantity
from lrscale.training.reduction import step_gradient_scale

Array = NDArray[np.float64]
JUDGED = 2000
"""Number of training examples on which the loss after a network's step is measured."""
OCTAVES = np.arange(-10.0, 6)
"""Lrs that are tried first for a step, as powers of two; lrs an eighth of an octave apart around the best follow."""


def measure(training: Training, task: Task) -> list[Quantity]:
    """Measures `b_simple` = tr(Sigma)/|G|^2 after a `fraction` of training, and at its start `one_step_lr`.

    Each seed is trained by itself; the draws of all seeds are pooled. `one_step_lr` is the lr, in the training's
    reduction, with which one step on a batch lowers the loss most, on average over batches. Quantities that are not
    finite are left out: an interval, where the pairs do not tell |G|^2 from 0.

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
        quantities.append(Quantity("one_step_lr", best.value / c, best.low / c, best.high / c, expected and expected / c))
    return quantities


def _b_simple(training: Training, task: Task, weights: Parameters) -> list[Quantity]:
    assert training.probe is not None
    options = training.probe.options
    norms = []
    for place, seed in enumerate(training.seeds):
        of_seed = [w[place] for w in weights]
        norms.append([gradient_norms(task, of_seed, options["pairs"], options[b], b, seed) for b in ("small", "big")])
    small, big = np.concatenate(norms, 1)
    b_simple = forms.noise_scale(small, big, options["small"], options["big"])
    if not math.isfinite(b_simple.value):
        return []
    low, high = (b_simple.low, b_simple.high) if math.isfinite(b_simple.high) else (None, None)
    return [Quantity("b_simple", b_simple.value, low, high, _expected_b_simple(task, weights))]


def fresh(task: Task, examples: int, *name: str | int) -> tuple[Tensor, Tensor]:
    """Draws fresh examples: from the population for least squares, else from the training data with replacement."""
    if task.population is not None:
        x, y = draw_examples(task.population, examples, "noise_scale", *name)
        return x.to(task.data.x.dtype), y.to(task.data.y.dtype)
    places = torch.randint(len(task.data.x), (examples,), generator=generator("noise_scale", *name))
    return task.data.x[places], task.data.y[places]


def gradient_norms(task: Task, weights: Parameters, count: int, size: int, *name: str | int) -> Array:
    """Norms of the gradients of the mean loss over fresh batches at one point, [batch].

    Args:
      task: model and data.
      weights: of one run, [1, *shape] each.
      count: number of batches.
      size: examples in each.
      name: of the stream they are drawn from.
    """
    x, y = fresh(task, count * size, *name)
    piece = _batches_in_memory(task, weights, size)
    norms = []
    for part, target in zip(x.view(count, size, -1).split(piece), y.view(count, size).split(piece), strict=True):
        gradients = batch_gradients(task, weights, part, target)
        norms.append(torch.stack([g.flatten(1).double().square().sum(1) for g in gradients]).sum(0).sqrt())
    return np.asarray(torch.cat(norms).numpy())


def batch_gradients(task: Task, weights: Parameters, x: Tensor, y: Tensor) -> list[Tensor]:
    """Gradients of the mean loss over each batch at one point, [batch, 1, *shape] each."""
    parameters = [w.expand(len(x), *w.shape) for w in weights]
    out = [torch.empty_like(parameter) for parameter in parameters]
    task.model.gradients(parameters, x, y, 1 / x.shape[1], out, 0)
    return out


def _batches_in_memory(task: Task, weights: Parameters, size: int) -> int:
    numbers = 2 * sum(w.numel() for w in weights) + size * task.model.width
    return max(1, BLOCK_BYTES // (numbers * task.data.x.element_size()))


def one_step_lr(task: Task, weights: Parameters, size: int, steps: int, seeds: tuple[int, ...]) -> Interval:
    """Mean-reduction lr with which one step lowers the loss most, averaged over batches and seeds.

    Args:
      task: model and data.
      weights: where the step starts, [seed, 1, *shape] each.
      size: examples in a batch.
      steps: batches for each seed.
      seeds: one for each start.
    """
    coarse = 2.0**OCTAVES
    losses = _losses_after_one_step(task, weights, size, steps, seeds, coarse)
    centre = int(np.argmin(losses.mean(1)))
    fine = coarse[centre] * 2.0 ** (np.arange(-8, 9) / 8)
    best = best_lr(fine, _losses_after_one_step(task, weights, size, steps, seeds, fine))
    assert best is not None
    return best.interval


def _losses_after_one_step(task: Task, weights: Parameters, size: int, steps: int, seeds: tuple[int, ...], lrs: Array) -> Array:
    """Returns the loss after one step with each lr, [lr, seed x step]; for least squares the excess risk."""
    rates, losses = torch.from_numpy(lrs).to(task.data.x.dtype), []
    for place, seed in enumerate(seeds):
        start = [w[place] for w in weights]
        x, y = fresh(task, steps * size, "one step", seed)
        for part, target in zip(x.view(steps, 1, size, -1), y.view(steps, 1, size), strict=True):
            gradients = batch_gradients(task, start, part, target)
            after = [w - rates.view(-1, *[1] * (w.ndim - 1)) * g[0] for w, g in zip(start, gradients, strict=True)]
            losses.append(_loss(task, after))
    return np.array(losses).T


def _loss(task: Task, weights: Parameters) -> Array:
    """Returns the loss of runs [run, *shape]: the excess risk for least squares, else the mean over JUDGED examples."""
    source = task.population
    if source is not None:
        off = weights[0].double() - source.weights
        return np.asarray((off.square() @ _eigenvalues(task) / 2).numpy())
    x, y = task.data.x[:JUDGED], task.data.y[:JUDGED]
    return np.asarray(full_data_mean(task.model.losses, [w.unsqueeze(0) for w in weights], x, y, task.model.width)[0].numpy())


def _eigenvalues(task: Task) -> Tensor:
    assert task.population is not None
    return torch.cat([task.population.spectrum, torch.ones(int(task.population.bias), dtype=torch.float64)])


def _scales(task: Task, weights: Parameters) -> list[tuple[float, theory.NoiseScales]]:
    """Returns squared gradient and noise scales at each seed's weights; an empty list where theory has none."""
    source = task.population
    if source is None:
        return []
    errors = (weights[0][:, 0].double() - source.weights).numpy()
    squares = ((errors * _eigenvalues(task).numpy()) ** 2).sum(1)
    return [
        (float(square), theory.noise_scales(source.spectrum.numpy(), source.bias, error, source.noise))
        for square, error in zip(squares, errors, strict=True)
    ]


def _expected_b_simple(task: Task, weights: Parameters) -> float | None:
    """Returns B_simple of all seeds pooled: the sum of tr(Sigma) over the sum of |G|^2."""
    scales = _scales(task, weights)
    return math.fsum(g * s.b_simple for g, s in scales) / math.fsum(g for g, _ in scales) if scales else None


def _greedy_lr(task: Task, weights: Parameters, size: int) -> float | None:
    """Returns the greedy lr of all seeds pooled: the sum of |G|^2 over the sum of G'HG (1 + B_noise/B)."""
    scales = _scales(task, weights)
    return math.fsum(g for g, _ in scales) / math.fsum(g / s.greedy_lr(size) for g, s in scales) if scales else None


def _check(training: Training) -> None:
    assert training.probe is not None
    small, big = training.probe.options["small"], training.probe.options["big"]
    if small >= big:
        raise Refusal(f"`probe.small` must be below probe.big = {big}, got {small}. Take 16 and 1024.")


PROBES.declare(
    "noise_scale",
    Probe(
        about="The gradient noise scale B_simple along training, and the best lr of one step at its start.",
        options={
            "fraction": Option(
                0.0,
                Rule("must be from 0 to 1", lambda v: is_number(v) and 0 <= v <= 1),
                "of training, after which it is measured",
            ),
            "small": Option(16, integer(1, 100_000), "examples in a small batch"),
            "big": Option(1024, integer(2, 1_000_000), "examples in a big one"),
            "pairs": Option(100, integer(2, 100_000), "pairs of batches for each seed"),
            "steps": Option(64, integer(1, 100_000), "single steps for each seed, each on a batch of its own"),
        },
        check=_check,
        measure=measure,
    ),
)
