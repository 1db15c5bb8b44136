"""Twins: cells whose steps take the same examples, so that only the scale of their gradients differs.

At lr x c^p, with weight decay, eps and the like scaled too, twins take the same steps. So a study gives them the same
points to try: the interval and the knobs that a user gives are those of the reference, and the others' are translated.
The reference is the twin with the smallest gradient scale c: mean reduction, where it takes part.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lrscale.spec import Training
from lrscale.study.config import identity
from lrscale.study.plan import Cell, Twin, with_values
from lrscale.training.optimizers import OPTIMIZERS
from lrscale.training.reduction import step_gradient_scale

LR_KEY = "optimizer.lr"
STEP_AXES = ("reduction", "batch_size", "accumulation")
"""The axes that say which examples a step takes and how their gradients are added."""
COMPANIONS = ("scaled", "as_given")
"""What `hydra.sweeper.companions` can be."""


def references(cells: Sequence[Cell]) -> list[Cell]:
    """Returns the reference of each cell, [cell]: the first of its twins with the smallest gradient scale.

    Args:
      cells: the cells of a study; equal in all that is not one of their axes.
    """
    twins: dict[str, list[tuple[float, int]]] = {}
    keys = [_examples_of_a_step(cell) for cell in cells]
    for i, (cell, key) in enumerate(zip(cells, keys, strict=True)):
        twins.setdefault(key, []).append((step_gradient_scale(cell.training), i))
    return [cells[min(twins[key])[1]] for key in keys]


def scaled_companions(cells: Sequence[Cell], tuned: Iterable[str]) -> tuple[Cell, ...]:
    """Returns the cells with their weight decay, eps and the like scaled, which are given for the references.

    Args:
      cells: the cells as they are given.
      tuned: dotted keys of the tuned hyperparameters; these are not set.
    """
    tuned, scaled = tuple(tuned), []
    for cell, reference in zip(cells, references(cells), strict=True):
        knobs = {key: value for key, value in _translated(cell, reference).items() if key not in tuned}
        config = with_values(cell.config, knobs)
        scaled.append(replace(cell, config=config, id=identity(config, tuned), values={**cell.values, **knobs}))
    return tuple(scaled)


def with_twins(cells: Sequence[Cell], tuned: Iterable[str], companions: str) -> tuple[Cell, ...]:
    """Returns the cells with their `twin` set.

    Args:
      cells: the cells as they are trained.
      tuned: dotted keys of the tuned hyperparameters; where the lr is not one of them, no cell has a twin.
      companions: `scaled` where tuned companions of the lr, such as a weight decay, are to be scaled too.
    """
    tuned = tuple(tuned)
    if LR_KEY not in tuned or any(cell.config.get("probe") is not None for cell in cells):
        return tuple(cells)
    return tuple(
        cell if cell is reference else replace(cell, twin=_twin(cell, reference, tuned, companions))
        for cell, reference in zip(cells, references(cells), strict=True)
    )


def knobs_scaled(cells: Sequence[Cell]) -> dict[str, float]:
    """Returns the power of r by which each knob of the cells was scaled against the cell's reference, by its dotted key."""
    by_id = {cell.id: cell for cell in cells}
    powers: dict[str, float] = {}
    for cell in cells:
        if cell.twin is not None and cell.twin.r != 1:
            powers |= {key: power for key, power in _powers(cell).items() if _differs(cell, by_id[cell.twin.of], key)}
    return powers


def knobs_left(cells: Sequence[Cell]) -> list[str]:
    """Returns the dotted keys of the knobs that were not scaled in some cell, though the same steps need it."""
    by_id = {cell.id: cell for cell in cells}
    left: dict[str, None] = {}
    for cell in cells:
        if cell.twin is not None:
            wanted = _translated(cell, by_id[cell.twin.of]).items()
            left |= dict.fromkeys(
                key for key, v in wanted if key not in cell.twin.factors and cell.config["optimizer"][key.partition(".")[2]] != v
            )
    return list(left)


def _differs(cell: Cell, reference: Cell, key: str) -> bool:
    group, _, name = key.partition(".")
    return bool(key in (cell.twin.factors if cell.twin else ())) or cell.config[group][name] != reference.config[group][name]


def shared_axes(cell: Cell, but: Sequence[str] = ("reduction", "batch_size")) -> dict[str, Any]:
    """Returns the axis values that a cell shares with the other cells of its family, by the name of the axis."""
    return {axis: value for axis, value in cell.scientific.items() if axis not in but}


def _examples_of_a_step(cell: Cell) -> str:
    """Returns a key that cells share whose steps take the same examples."""
    return f"{cell.training.step_examples} {sorted(shared_axes(cell, STEP_AXES).items())!r}"


def _powers(cell: Cell) -> dict[str, float]:
    """Returns the power of r for each companion of the lr, by its dotted key."""
    companions = OPTIMIZERS[cell.training.optimizer.name].companions
    return {f"optimizer.{name}": power for name, power in companions.items() if power}


def _translated(cell: Cell, reference: Cell) -> dict[str, Any]:
    """Returns the companions of the lr, by their dotted keys, that make a cell's steps those of its reference."""
    r = step_gradient_scale(cell.training) / step_gradient_scale(reference.training)
    given = reference.config["optimizer"]
    values = {key: (given[key.partition(".")[2]], power) for key, power in _powers(cell).items()}
    return {key: value * r**power for key, (value, power) in values.items() if value and r != 1}


def _twin(cell: Cell, reference: Cell, tuned: Sequence[str], companions: str) -> Twin:
    """Returns how a cell goes with its reference."""
    r = step_gradient_scale(cell.training) / step_gradient_scale(reference.training)
    powers = {LR_KEY: -OPTIMIZERS[cell.training.optimizer.name].homogeneity}
    powers |= _powers(cell) if companions == "scaled" else {}
    factors = {key: r ** powers.get(key, 0.0) for key in tuned}
    tuned_as_they_must = companions == "scaled" or not set(_powers(cell)) & set(tuned)
    same = (
        tuned_as_they_must
        and math.log2(r).is_integer()
        and not _has_short_step(cell.training)
        and _optimizer(cell, tuned) == {**_optimizer(reference, tuned), **_without_group(_translated(cell, reference), tuned)}
    )
    return Twin(reference.id, r, factors, same)


def _optimizer(cell: Cell, tuned: Sequence[str]) -> dict[str, Any]:
    """Returns the options of a cell's optimizer that are not tuned."""
    return {name: value for name, value in cell.config["optimizer"].items() if f"optimizer.{name}" not in tuned}


def _without_group(values: Mapping[str, Any], tuned: Sequence[str]) -> dict[str, Any]:
    return {key.partition(".")[2]: value for key, value in values.items() if key not in tuned}


def _has_short_step(training: Training) -> bool:
    """Whether a training takes steps of fewer examples than a full step: there, the reductions weight examples differently."""
    return training.steps_per_epoch * training.step_examples > training.examples
