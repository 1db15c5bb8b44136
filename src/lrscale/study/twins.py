"""Twins: cells whose steps take the same examples, so that only the scale of their gradients differs.

At lr x c^p, with weight decay, eps and the like scaled too, twins take the same steps. So a study gives them the same
points to try: the interval and the knobs that a user gives are those of the reference, and the others' are translated.
The reference is the twin with the smallest gradient scale c: mean reduction, where it takes part.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from lrscale.spec import Training
from lrscale.study.config import identity
from lrscale.study.plan import Cell, Twin, with_values
from lrscale.study.script import homogeneity
from lrscale.training.named_optimizer import optimizer_of
from lrscale.training.reduction import step_gradient_scale

LR_KEY = "optimizer.lr"
STEP_AXES = ("reduction", "batch_size", "accumulation")
"""The axes that say which examples a step takes and how their gradients are added."""
COMPANIONS = ("scaled", "as_given")
"""What `hydra.sweeper.companions` can be."""


def scaled_companions(cells: Sequence[Cell], tuned: Iterable[str]) -> tuple[Cell, ...]:
    """Returns the cells with their weight decay, eps and the like scaled, which are given for the references.

    Args:
      cells: the cells as they are given.
      tuned: dotted keys of the tuned hyperparameters; these are not set.
    """
    tuned, scaled = tuple(tuned), []
    for cell, reference, r in _with_references(cells):
        knobs = {key: value for key, value in _wanted(cell, reference, r).items() if key not in tuned}
        config = with_values(cell.config, knobs)
        scaled.append(replace(cell, config=config, id=identity(config, tuned), values={**cell.values, **knobs}))
    return tuple(scaled)


def with_twins(cells: Sequence[Cell], tuned: Iterable[str], companions: str) -> tuple[Cell, ...]:
    """Returns the cells with their `twin` set.

    Args:
      cells: the cells as they are trained.
      tuned: dotted keys of the tuned hyperparameters; where the lr is not one of them, or p is not known, no cell has a twin.
      companions: `scaled` where tuned companions of the lr, such as a weight decay, are to be scaled too.
    """
    tuned = tuple(tuned)
    if LR_KEY not in tuned or any(cell.config.get("probe") is not None or homogeneity(cell.training) is None for cell in cells):
        return tuple(cells)
    return tuple(
        cell if cell is reference else replace(cell, twin=_twin(cell, reference, r, tuned, companions))
        for cell, reference, r in _with_references(cells)
    )


def knobs_scaled(cells: Sequence[Cell]) -> dict[str, float]:
    """Returns the power of r by which each knob of the cells was scaled against the cell's reference, by its dotted key."""
    return {key: power for key, power, is_scaled in _knobs(cells) if is_scaled}


def knobs_left(cells: Sequence[Cell]) -> list[str]:
    """Returns the dotted keys of the knobs that were not scaled in some cell, though the same steps need it."""
    return list(dict.fromkeys(key for key, _, is_scaled in _knobs(cells) if not is_scaled))


def shared_axes(cell: Cell, but: Sequence[str] = ("reduction", "batch_size")) -> dict[str, Any]:
    """Returns the axis values that a cell shares with the other cells of its family, by the name of the axis."""
    return {axis: value for axis, value in cell.scientific.items() if axis not in but}


def _with_references(cells: Sequence[Cell]) -> list[tuple[Cell, Cell, float]]:
    """Returns each cell with its reference, and with r: its gradient scale divided by that of the reference.

    Args:
      cells: the cells of a study; equal in all that is not one of their axes.
    """
    keys = [f"{cell.training.step_examples} {sorted(shared_axes(cell, STEP_AXES).items())!r}" for cell in cells]
    scales = [step_gradient_scale(cell.training) for cell in cells]
    twins: dict[str, list[tuple[float, int]]] = {}
    for i, (key, c) in enumerate(zip(keys, scales, strict=True)):
        twins.setdefault(key, []).append((c, i))
    found = [min(twins[key]) for key in keys]  # of equal scales, the first cell
    return [(cell, cells[k], c / least) for cell, c, (least, k) in zip(cells, scales, found, strict=True)]


def _knobs(cells: Sequence[Cell]) -> Iterator[tuple[str, float, bool]]:
    """Yields each knob of each twin that must be scaled for the same steps: its key, its power of r, and whether it was."""
    by_id = {cell.id: cell for cell in cells}
    for cell in cells:
        if cell.twin is None or cell.twin.r == 1:
            continue
        wanted = _wanted(cell, by_id[cell.twin.of], cell.twin.r)
        for key, power in _powers(cell).items():
            if key in cell.twin.factors:
                yield key, power, cell.twin.factors[key] != 1
            elif key in wanted:
                yield key, power, _option(cell, key) == wanted[key]


def _powers(cell: Cell) -> dict[str, float]:
    """Returns the power of r for each companion of the lr, by its dotted key. Those of a script are not known."""
    if cell.training.is_script:
        return {}
    optimizer = cell.training.optimizer
    powers = optimizer_of(optimizer).powers(optimizer.options)
    return {f"optimizer.{name}": power for name, power in powers.items() if power}


def _option(cell: Cell, key: str) -> Any:
    """Returns an option of a cell's optimizer, by its dotted key."""
    return cell.config["optimizer"][key.removeprefix("optimizer.")]


def _wanted(cell: Cell, reference: Cell, r: float) -> dict[str, Any]:
    """Returns the companions of the lr, by their dotted keys, that make a cell's steps those of its reference."""
    return {key: _option(reference, key) * r**power for key, power in _powers(cell).items() if r != 1 and _option(reference, key)}


def _twin(cell: Cell, reference: Cell, r: float, tuned: Sequence[str], companions: str) -> Twin:
    """Returns how a cell goes with its reference; see `with_twins`."""
    powers = _powers(cell) if companions == "scaled" else {}
    powers = {**powers, LR_KEY: -(homogeneity(cell.training) or 0.0)}
    wanted = _wanted(cell, reference, r)
    is_one_optimizer = all(
        key in powers if key in tuned else _option(cell, key) == wanted.get(key, _option(reference, key)) for key in _powers(cell)
    )
    can_be_same = not cell.training.is_script and optimizer_of(cell.training.optimizer).is_exact
    is_one_run = can_be_same and is_one_optimizer and not has_uneven_steps(cell.training)
    is_same_run = is_one_run and math.log2(r).is_integer()
    return Twin(reference.id, r, {key: r ** powers.get(key, 0.0) for key in tuned}, is_same_run)


def has_uneven_steps(training: Training) -> bool:
    """Whether a training takes steps of fewer examples or terms than others: there, the reductions weight them differently."""
    if not training.task.options.get("is_even", True):
        return True
    return training.steps_per_epoch * training.step_examples > training.examples
