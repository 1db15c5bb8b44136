"""Measures a user's own optimizer: its homogeneity p, and whether the runs of a trial can be updated as stacked tensors.

Its updates are looked at for random weights and gradients, with the shapes of a task's parameters, from an empty state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lrscale.errors import Refusal
from lrscale.spec import Choice, Training
from lrscale.streams import generator
from lrscale.tasks.built_in import BuiltInTask
from lrscale.tasks.own import Task
from lrscale.training.own_updates import Factors, OwnUpdates

RATIOS = (0.25, 1.0, 4.0)
"""By what the gradients are multiplied."""
SIZES = (1.0, 1e-3, 1e3, 1.0, 1e-6, 1.0)
"""The sizes of the gradients in the steps that must be the same bit for bit. With several sizes, thresholds of a rule show."""
STEPS = 5
"""The number of steps in which p is measured."""
SMALL_LR = 1e-6
"""The lr at which p is measured: the weights then stay nearly the same, as a rule may depend on them."""
TOLERANCE = 1e-3
"""How far updates may be from a power of the gradients' size that counts as one, relative to their norm."""


def measured(training: Training, task: BuiltInTask | Task) -> dict[str, Any]:
    """Returns the measured facts about the optimizer of a training, by their names; see `OPTIMIZER_FACTS`.

    p is the slope of the log of the updates' norm over the log of the gradients' size, without weight decay. `p_error` is the
    largest deviation of a parameter's updates from this power. `is_exact` says whether the steps at lr x r^-p are the same,
    bit for bit, with all options as they are given.

    Args:
      training: the description of the runs; the values of tuned options do not matter, apart from 0.
      task: its task.

    Raises:
      Refusal: the class cannot be made or takes no steps, or its steps are not finite.
    """
    shapes = _shapes(task)
    factors = task.factors if isinstance(task, Task) else None
    with torch.random.fork_rng(devices=[]):
        try:
            p, error = _power(training, shapes, factors)
            is_exact = p == round(p) and error < TOLERANCE and _is_exact(training, shapes, factors, p)
        except Refusal:
            raise
        except Exception as problem:
            first = str(problem).partition("\n")[0]
            raise Refusal(
                f"`optimizer` {training.optimizer.name:.200} must take steps without a closure, "
                f"got {type(problem).__name__}: {first:.200}. Give its options other values, or make step() work alone."
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


def _trajectory(
    training: Training, shapes: Sequence[torch.Size], factors: Factors | None, way: str, sizes: Sequence[float]
) -> list[list[Tensor]]:
    """Returns the weights before and after each step, [step][parameter], each [seed, trial, *shape].

    Args:
      training: the description of the runs.
      shapes: the shapes of the parameters.
      factors: factors of some options for each parameter.
      way: how the runs are updated.
      sizes: the sizes of each step's gradients.
    """
    seeds, dtype = 2 if len(training.optimizer.options["lr"]) > 1 else 1, getattr(torch, training.dtype)
    training = replace(training, seeds=tuple(range(seeds)))
    draw = generator("response")
    lead = (seeds, training.trials)
    parameters = [torch.randn(*lead, *shape, generator=draw, dtype=torch.float64).to(dtype) for shape in shapes]
    updates = OwnUpdates(training, slice(None), parameters, factors, way)
    weights = [[parameter.clone() for parameter in parameters]]
    for step, size in enumerate(sizes, 1):
        gradients = [(size * torch.randn(*lead, *shape, generator=draw, dtype=torch.float64)).to(dtype) for shape in shapes]
        updates.update(parameters, gradients, step)
        weights.append([parameter.clone() for parameter in parameters])
    return weights


def _power(training: Training, shapes: Sequence[torch.Size], factors: Factors | None) -> tuple[float, float]:
    """Returns p, a multiple of 1/2 where it is one up to the tolerance, and the relative deviation from this power."""
    changes = {"lr": SMALL_LR, **({"weight_decay": 0.0} if "weight_decay" in training.optimizer.options else {})}
    still = _with(training, "float64", changes)
    updates = []
    for r in RATIOS:
        weights = _trajectory(still, shapes, factors, "apart", [r] * STEPS)
        updates.append([torch.stack(w).diff(dim=0) for w in zip(*weights, strict=True)])
    norms = [math.sqrt(sum(float(u.square().sum()) for u in part)) for part in updates]
    name = training.optimizer.name
    if not all(0 < norm < math.inf for norm in norms):
        raise Refusal(
            f"`optimizer` {name:.200} must take finite steps other than 0, got steps of norm {norms[1]:g} for random gradients."
        )
    slope = math.log(norms[-1] / norms[0]) / math.log(RATIOS[-1] / RATIOS[0])
    simple = round(2 * slope) / 2
    p = simple if abs(slope - simple) < TOLERANCE else round(slope, 4)
    return int(p) if p == int(p) else p, max(
        float((u - r**p * one).norm() / (r**p * one.norm()).clamp(min=1e-300))
        for r, part in zip(RATIOS, updates, strict=True)
        for u, one in zip(part, updates[1], strict=True)
    )


def _is_exact(training: Training, shapes: Sequence[torch.Size], factors: Factors | None, p: float) -> bool:
    """Returns whether the weights stay the same, bit for bit, for gradients that are r times as large with lr x r^-p."""
    lr = max(training.optimizer.options["lr"])
    first, *others = [
        _trajectory(_with(training, training.dtype, {"lr": lr * r**-p}), shapes, factors, "apart", [r * size for size in SIZES])
        for r in RATIOS
    ]
    return all(_are_equal(first, other) for other in others)


def _way(training: Training, shapes: Sequence[torch.Size], factors: Factors | None) -> str:
    """Returns `stacked` where the updates of stacked runs are those of the runs apart, bit for bit, and else `apart`."""
    training = _with(training, training.dtype, {}, trials=2)
    try:
        apart, stacked = (_trajectory(training, shapes, factors, way, SIZES * 2) for way in ("apart", "stacked"))
    except Exception:  # whatever the class says of shapes or options that it does not take
        return "apart"
    return "stacked" if _are_equal(apart, stacked) else "apart"


def _are_equal(weights: Sequence[Sequence[Tensor]], others: Sequence[Sequence[Tensor]]) -> bool:
    """Returns whether two trajectories are the same, bit for bit. Weights that are not finite are equal to none."""
    pairs = zip(weights, others, strict=True)
    return all(torch.equal(a, b) for ours, theirs in pairs for a, b in zip(ours, theirs, strict=True))
