"""Measures a user's own optimizer: its homogeneity p, and whether the runs of a trial can be updated as stacked tensors.

Its updates are looked at for random weights and gradients, with the shapes of a task's parameters, from an empty state.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lrscale.errors import Refusal, said
from lrscale.spec import Choice, Training
from lrscale.streams import generator
from lrscale.tasks.built_in import BuiltInTask
from lrscale.tasks.own import Task
from lrscale.training.fit import check_fit
from lrscale.training.named_optimizer import POWER_TOLERANCE
from lrscale.training.own_updates import Factors, OwnUpdates

RATIOS = (0.25, 1.0, 4.0)
"""By what the gradients are multiplied."""
SIZES = (1.0, 1e-3, 1e3, 1e-8, 1e6, 1.0)
"""The sizes of the gradients in the steps that must be the same bit for bit. With several sizes, thresholds of a rule show."""
STEPS = 5
"""The number of steps in which p is measured."""
SMALL_LR = 1e-6
"""The lr at which p is measured: the weights then stay nearly the same, as a rule may depend on them."""


def measured(training: Training, task: BuiltInTask | Task) -> dict[str, Any]:
    """Returns the measured facts about the optimizer of a training, by their names; see `OPTIMIZER_FACTS`.

    p is the slope of the log of the updates' norm over the log of the gradients' size, without weight decay. `p_error` is the
    largest deviation of a parameter's updates from this power. `is_exact` says whether the steps at lr x r^-p are the same,
    bit for bit, with all options as they are given. A threshold of the rule outside `SIZES` is not found.

    Args:
      training: the description of the runs; the values of tuned options do not matter, apart from 0.
      task: its task.

    Raises:
      Refusal: the class cannot be made or takes no steps, or its steps are not finite.
    """
    check_fit(training, task)
    shapes = _shapes(task)
    factors = task.factors if isinstance(task, Task) else None
    with torch.random.fork_rng(devices=[]):
        try:
            p, error = _power(training, shapes, factors)
            is_exact = p == round(p) and _is_exact(training, shapes, factors, p)
        except Refusal:
            raise
        except Exception as problem:
            raise Refusal(
                f"`optimizer` {training.optimizer.name:.200} must take steps without a closure, "
                f"got {said(problem)}. Give its options other values, or make step() work alone."
            ) from problem
        return {"p": p, "p_error": error, "is_exact": is_exact, "way": _way(training, shapes, factors)}


def _shapes(task: BuiltInTask | Task) -> list[torch.Size]:
    """Returns the shapes of a task's parameters."""
    if isinstance(task, Task):
        return [parameter.shape for parameter in task.module.parameters() if parameter.requires_grad]
    return [weights.shape for weights in task.model.initial(generator("init", 0))]


def _with(training: Training, dtype: str, options: Mapping[str, float], trials: int = 1) -> Training:
    """Returns a training with other options of the optimizer. Each trial has halves of the tunable options of the one before."""
    values = {**training.optimizer.options, **options}
    for key in values["tunable"]:
        value = max(values[key]) if isinstance(values[key], tuple) else values[key]
        values[key] = tuple(value / 2**k for k in range(trials))
    return replace(training, optimizer=Choice(training.optimizer.name, values), dtype=dtype)


def _weights(
    training: Training, shapes: Sequence[torch.Size], factors: Factors | None, way: str, sizes: Sequence[float]
) -> Iterator[list[Tensor]]:
    """Yields the weights before the first step and after each step, [seed, trial, *shape] each. They change in place.

    Args:
      training: the description of the runs.
      shapes: the shapes of the parameters.
      factors: factors of some options for each parameter.
      way: how the runs are updated.
      sizes: the sizes of each step's gradients.
    """
    seeds, dtype = min(2, training.trials), getattr(torch, training.dtype)
    training = replace(training, seeds=tuple(range(seeds)))
    draw = generator("response")

    def random() -> list[Tensor]:
        return [torch.randn(seeds, training.trials, *shape, generator=draw, dtype=torch.float64) for shape in shapes]

    parameters = [weights.to(dtype) for weights in random()]
    updates = OwnUpdates(training, slice(None), parameters, factors, way)
    yield parameters
    for step, size in enumerate(sizes, 1):
        updates.update(parameters, [(size * gradient).to(dtype) for gradient in random()], step)
        yield parameters


def _changes(weights: Iterator[list[Tensor]]) -> Iterator[list[Tensor]]:
    """Yields how each step changes the weights, for each parameter."""
    before = [parameter.clone() for parameter in next(weights)]
    for parameters in weights:
        yield [after - earlier for after, earlier in zip(parameters, before, strict=True)]
        before = [parameter.clone() for parameter in parameters]


def _power(training: Training, shapes: Sequence[torch.Size], factors: Factors | None) -> tuple[float, float]:
    """Returns p, a multiple of 1/2 where it is one up to the tolerance, and the relative deviation from this power."""
    options = {"lr": SMALL_LR, **({"weight_decay": 0.0} if "weight_decay" in training.optimizer.options else {})}
    still = _with(training, "float64", options)

    def changes(r: float) -> Iterator[list[Tensor]]:
        return _changes(_weights(still, shapes, factors, "apart", [r] * STEPS))

    norms = [math.sqrt(sum(float(u.square().sum()) for step in changes(r) for u in step)) for r in RATIOS]
    if not all(0 < norm < math.inf for norm in norms):
        raise Refusal(
            f"`optimizer` {training.optimizer.name:.200} must take finite steps other than 0, "
            f"got steps of norm {norms[1]:g} for random gradients."
        )
    slope = math.log(norms[-1] / norms[0]) / math.log(RATIOS[-1] / RATIOS[0])
    simple = round(2 * slope) / 2
    p = simple if abs(slope - simple) < POWER_TOLERANCE else round(slope, 4)
    error = 0.0
    for r in RATIOS:
        off, whole = torch.zeros(2, len(shapes), dtype=torch.float64)
        for step, one in zip(changes(r), changes(1.0), strict=True):
            off += torch.stack([(u - r**p * v).square().sum() for u, v in zip(step, one, strict=True)])
            whole += torch.stack([(r**p * v).square().sum() for v in one])
        error = max(error, float((off / whole.clamp(min=1e-300)).sqrt().max()))
    return int(p) if p == int(p) else p, error


def _is_exact(training: Training, shapes: Sequence[torch.Size], factors: Factors | None, p: float) -> bool:
    """Returns whether the weights stay the same, bit for bit, for gradients that are r times as large with lr x r^-p."""
    lr = max(training.optimizer.options["lr"])
    trainings = [_with(training, training.dtype, {"lr": lr * r**-p}) for r in RATIOS]
    first, *others = (
        _weights(changed, shapes, factors, "apart", [r * size for size in SIZES])
        for r, changed in zip(RATIOS, trainings, strict=True)
    )
    return _are_equal(first, *others)


def _way(training: Training, shapes: Sequence[torch.Size], factors: Factors | None) -> str:
    """Returns `stacked` where the updates of stacked runs are those of the runs apart, bit for bit, and else `apart`."""
    training = _with(training, training.dtype, {}, trials=2)
    try:
        is_same = _are_equal(*(_weights(training, shapes, factors, way, SIZES * 2) for way in ("apart", "stacked")))
    except Exception:  # whatever the class says of shapes or options that it does not take
        return "apart"
    return "stacked" if is_same else "apart"


def _are_equal(first: Iterator[list[Tensor]], *others: Iterator[list[Tensor]]) -> bool:
    """Returns whether weights are the same after each step, bit for bit. Weights that are nan are equal to none."""
    return all(
        torch.equal(a, b)
        for ours, *theirs in zip(first, *others, strict=True)
        for other in theirs
        for a, b in zip(ours, other, strict=True)
    )
