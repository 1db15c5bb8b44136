"""Says before a study starts which of its claims its cells and trials cannot answer, each with the number that would do."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lrscale.estimate.best_lr import grid_error
from lrscale.study.claims import AGAINST, selects
from lrscale.study.families import batch_ranges
from lrscale.study.plan import Cell, Plan, in_words
from lrscale.study.theory import theory_of
from lrscale.study.twins import LR_KEY, shared_axes
from lrscale.study.verdict import NO_STEPS
from lrscale.training.reduction import step_gradient_scale

FINEST = math.log(2) / 8
"""The distance between neighbouring lrs of the ladder at its finest, in ln lr."""
MOST_FORESEEN = 64
"""The largest number of trials that is looked at, to find one that would do."""
SIZES_NEEDED = {"slope": 2, "steps_slope": 2, "b_c": 3, "form_residual": 3, "b_crit": 3, "trade_off_residual": 3}
"""How many batch sizes each measure needs."""
OF_STEPS = ("steps_slope", "b_crit", "trade_off_residual")
"""The measures that count steps to a target."""


def foresight_of_claims(plan: Plan) -> list[str]:
    """Returns a line for each claim that a plan cannot answer, with what would do. Claims of which this says nothing may fail.

    Args:
      plan: the plan, whose claims are checked.
    """
    lacking: dict[str, dict[str, None]] = {}
    for claim in plan.claims:
        for of, text in _lacks(plan, claim):
            lacking.setdefault(text, {})[f"'{claim['name']}'{f' ({of})' if of else ''}"] = None
    return [f"{_claims(list(names))}: {text}" for text, names in lacking.items()]


def _claims(names: Sequence[str]) -> str:
    """Returns claims by their names, or, where they are many, by their number."""
    if len(names) > 2:
        return f"{len(names)} claims, {names[0]} among them"
    return f"claim{'s' if len(names) > 1 else ''} {' and '.join(names)}"


def _lacks(plan: Plan, claim: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields what a claim lacks, with the name of the family of cells in which it does."""
    where = claim.get("where") or {}
    unvaried = [key for key in where if key not in plan.cells[0].scientific]
    if unvaried:
        names = ", ".join(unvaried)
        yield "", f"`where` selects by {names}, which this study does not vary: leave the override of {names} out."
        return
    cells = [cell for cell in plan.cells if selects(claim, cell.scientific)]
    if not cells:
        there = "; ".join(f"{key}={','.join(_values(plan.cells, key))}" for key in where)
        yield "", f"`where` selects no cell; the study has {there}."
    elif plan.is_probed:
        if claim["measure"] in AGAINST and (text := _lacks_points(cells, claim)):
            yield "", text
    elif LR_KEY in plan.intervals:
        families: dict[str, list[Cell]] = {}
        for cell in cells:
            families.setdefault(", ".join(in_words(shared_axes(cell))), []).append(cell)
        for name, family in families.items():
            if text := _lacks_cells(plan, claim, family) or _lacks_trials(plan, claim, family):
                yield name if len(families) > 1 else "", text


def _values(cells: Sequence[Cell], axis: str) -> list[str]:
    """Returns the values that cells have on an axis, each once."""
    return list(dict.fromkeys(str(cell.scientific.get(axis)) for cell in cells))


def _lacks_points(cells: Sequence[Cell], claim: Mapping[str, Any]) -> str:
    """Returns what a claim of a probe on a slope or a form lacks; empty where nothing."""
    against = str(claim["against"])
    if any(against not in cell.scientific for cell in cells):
        return f"`against` is {against}, which this study does not vary: sweep {against}."
    along: dict[str, set[str]] = {}
    for cell in cells:
        others = repr(sorted((key, str(value)) for key, value in cell.scientific.items() if key != against))
        along.setdefault(others, set()).add(str(cell.scientific[against]))
    most, points = max(map(len, along.values())), sum(map(len, along.values()))
    if claim["measure"] == "form_residual":
        return "" if most >= 3 else f"3 values of {against} are needed, got {most}."
    is_enough = most >= 2 and points - len(along) - 1 >= 1
    return "" if is_enough else f"a slope with an interval needs 3 values of {against}, got {most}."


def _lacks_cells(plan: Plan, claim: Mapping[str, Any], family: Sequence[Cell]) -> str:
    """Returns which cells a claim on the lr lacks in a family, and what would do; empty where it has all that it needs."""
    measure = claim["measure"]
    reductions = {cell.training.reduction for cell in family}
    needed = {"ratio_slope": ("sum", "mean"), "slope": (claim.get("reduction"),)}.get(measure, ())
    needed = ("sum",) if measure in ("b_c", "form_residual") else needed
    if absent := [name for name in needed if name not in reductions]:
        others = sorted({*reductions, *map(str, needed)}, reverse=True)
        return f"no cell has the reduction {absent[0]}: take reduction={','.join(others)}."
    if measure == "ratio_slope" and max(cell.training.step_examples for cell in family) == 1:
        return "at batch size 1 sum and mean are the same: add a batch size above 1."
    if measure in OF_STEPS and family[0].training.objective != "steps_to_target":
        return f"{NO_STEPS.reason.replace('were', 'are')}: {NO_STEPS.way_out}."
    within = _within(plan, claim, family)
    if measure == "theory":
        stated = [theory_of(cell.training, step_gradient_scale(cell.training)) for cell in within[:1]]
        return "" if not stated or stated[0].best_lr is not None else f"theory makes no statement: {stated[0].note}"
    sizes = {cell.training.step_examples for cell in within if not needed or cell.training.reduction in needed}
    if (wanted := SIZES_NEEDED.get(measure, 0)) > len(sizes):
        name = claim.get("range", "all")
        have = f"{'is' if len(sizes) == 1 else 'are'} {len(sizes) or 'none'}"
        inside = f" in the range {name}, {plan.ranges[name][0]:g} to {plan.ranges[name][1]:g}" if name in plan.ranges else ""
        return f"{wanted} batch sizes are needed{inside}, and there {have}: add {wanted - len(sizes)}."
    return ""


def _within(plan: Plan, claim: Mapping[str, Any], family: Sequence[Cell]) -> list[Cell]:
    """Returns the cells of a family that lie in the range of a claim."""
    low, high = batch_ranges(plan)[claim.get("range", "all")]
    return [cell for cell in family if low <= cell.training.step_examples <= high]


def _lacks_trials(plan: Plan, claim: Mapping[str, Any], family: Sequence[Cell]) -> str:
    """Returns how many trials a claim lacks whose tolerance is finer than what the grid of lrs leaves open; empty if none.

    A slope over ln B has the error of the grid divided by the spread of ln B. Only the ladder's grid is known before.
    """
    tolerance, interval = claim.get("tolerance"), plan.intervals[LR_KEY]
    if claim["measure"] not in ("theory", "slope") or tolerance is None or not interval.log or plan.sampler["name"] != "ladder":
        return ""
    spread = 1.0
    if claim["measure"] == "slope":
        of_reduction = [cell for cell in _within(plan, claim, family) if cell.training.reduction == claim["reduction"]]
        logs = [math.log(cell.training.step_examples) for cell in of_reduction]
        spread = math.sqrt(sum((x - sum(logs) / len(logs)) ** 2 for x in logs))
    octaves = math.log2(interval.high / interval.low)
    if (open_now := grid_error(finest_spacing(octaves, plan.n_trials)) / spread) <= tolerance:
        return ""
    enough = [n for n in range(plan.n_trials, MOST_FORESEEN) if grid_error(finest_spacing(octaves, n)) / spread <= tolerance]
    way_out = f"take hydra.sweeper.n_trials={enough[0]} or more" if enough else "state a wider tolerance"
    return (
        f"the tolerance of {tolerance:g} is finer than the {open_now:.2g} that {plan.n_trials} trials on {octaves:.3g} octaves "
        f"of lr leave open at best: {way_out}."
    )


def finest_spacing(octaves: float, trials: int) -> float:
    """Returns the smallest distance, in ln lr, that the ladder can reach around the best lr.

    It first covers the interval; at best, each further trial then halves the distance.

    Example:
      >>> [round(finest_spacing(12, n) / math.log(2), 3) for n in (6, 8, 16)]
      [2.0, 0.5, 0.125]
      >>> finest_spacing(12, 100_000) == FINEST
      True
    """
    count = min(trials, max(1, math.ceil(octaves / 2), trials // 2))
    return max(FINEST, octaves / count * math.log(2) * 2.0 ** (count - trials))
