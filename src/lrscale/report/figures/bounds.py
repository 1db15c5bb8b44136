"""Draws into figures what claims allow: bounds of measured values, and of a batch size."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.path import Path

from lrscale.study.claims import claim_bound, selected, selects
from lrscale.study.families import Family, Measurement

BOUND_COLOUR = "#b00020"
"""Colour of the bounds of claims."""
LOOK: dict[str, Any] = {"color": BOUND_COLOUR, "ls": (0, (1, 1.2)), "lw": 1.8}
"""The line of a bound: dots, so that it differs from theory and from fits on grey paper too."""
DOTS: dict[str, Any] = {
    "marker": Path([(float(x), 0.0) for x in range(-7, 8, 2)], [Path.MOVETO, Path.LINETO] * 4), "ms": 22, "mew": LOOK["lw"]
}  # fmt: skip
"""The marker of a bound at a single x: a short line like that of the others."""
BAR_HEIGHT = 0.06
"""The height that a bar at the bottom of a figure takes, as a part of the axes."""


class Level(NamedTuple):
    """A value that a claim bounds a quantity with, in words too, and the measurements of which it speaks."""

    value: float
    words: str
    measurements: tuple[Measurement, ...]


def levels(claims: Iterable[Mapping[str, Any]], measurements: Sequence[Measurement]) -> list[Level]:
    """Returns the bounds of the values of one quantity. Equal bounds of several claims are one.

    A claim on a slope, a coverage or a ratio of quantities bounds no value. One on a deviation does where all the expected
    values are equal.

    Args:
      claims: the claims of a study that runs a probe.
      measurements: all measurements of the quantity.
    """
    found: dict[tuple[float, str], list[Measurement]] = {}
    for claim in claims:
        about = [m for m in selected(measurements, claim) if claim.get("over") is None]
        for value, words in _bounds(claim, about) if about else ():
            group = found.setdefault((value, words), [])
            group += [m for m in about if m not in group]
    return [Level(value, words, tuple(group)) for (value, words), group in found.items()]


def _bounds(claim: Mapping[str, Any], about: Sequence[Measurement]) -> list[tuple[float, str]]:
    """Returns the bounds of a claim on a probe, each a value and its words; none where it bounds no value."""
    bound = claim_bound(claim)
    if claim["measure"] == "deviation":
        centres, most = {m.quantity.expected for m in about}, bound.ends[1]
        centre = next(iter(centres))
        if len(centres) > 1 or centre is None or not 0 < most < math.inf:
            return []
        below = [(centre - most, f"≥ {centre - most:g}")] if min(m.quantity.value for m in about) < centre else []
        return [*below, (centre + most, f"≤ {centre + most:g}")]
    if claim["measure"] not in ("least", "largest"):
        return []
    if bound.expected is not None:
        return [(bound.expected, bound.words)]
    ends = (("least", "≥", bound.at_least), ("largest", "≤", bound.at_most))
    return [
        (end, f"{sign} {end:g}" if claim["measure"] == of_all or len(about) == 1 else f"{claim['measure']} {sign} {end:g}")
        for of_all, sign, end in ends
        if end is not None
    ]


def in_title(bounds: Sequence[Level]) -> str:
    """Returns the bounds that a panel shows, as a line of its title; empty for none."""
    return f"claim{'s' if len(bounds) > 1 else ''}: {', '.join(level.words for level in bounds)}" if bounds else ""


def draw_levels(axes: Axes, bounds: Sequence[Level], xs: Mapping[str, float]) -> list[Level]:
    """Draws bounds of the y axis over the cells of which they speak, and returns those that the panel shows.

    Args:
      axes: the axes of a panel.
      bounds: the bounds of its quantity.
      xs: the x of each cell of the panel, by the id of the cell.
    """
    shown = []
    for level in bounds:
        over = {xs[m.cell.id] for m in level.measurements if m.cell.id in xs}
        if over == set(xs.values()) and len(over) > 1:
            axes.axhline(level.value, **LOOK)
        elif over:
            axes.plot([min(over), max(over)], [level.value] * 2, **LOOK, **(DOTS if len(over) == 1 else {}))
        shown += [level] if over else []
    return shown


def draw_row_levels(axes: Axes, bounds: Sequence[Level], ys: Mapping[str, float], height: float) -> None:
    """Draws bounds of the x axis in the rows of which they speak.

    Args:
      axes: the axes of a panel.
      bounds: the bounds of its quantity.
      ys: the y of each cell, by the id of the cell.
      height: the height of a cell, on the scale of the y axis.
    """
    for level in bounds:
        for m in level.measurements:
            y = ys[m.cell.id]
            axes.plot([level.value] * 2, [y - height / 2, y + height / 2], **LOOK, zorder=4)


def legend_entry() -> Line2D:
    """Returns the entry of a legend for bounds."""
    return Line2D([], [], **LOOK, label="bound of a claim")


def draw_batch_size_claims(axes: Axes, claims: Iterable[Mapping[str, Any]], family: Family, measure: str, name: str) -> None:
    """Draws the batch sizes that claims allow for the half-value point of a fit, as bars at the bottom of a figure
    whose y axis is logarithmic.

    Args:
      axes: the axes, with batch size along the x axis.
      claims: the claims of the study.
      family: the family of cells that the figure shows.
      measure: the measure of the claims, `b_c` or `b_crit`.
      name: the name of the half-value point.
    """
    sizes = [cell.step_examples for cell in family.cells]
    bounds = [claim_bound(claim) for claim in claims if claim["measure"] == measure and selects(claim, family.of)]
    low, high = axes.get_ylim()
    axes.set_ylim(low * (low / high) ** (BAR_HEIGHT * len(bounds)), high)  # the bars hide no point
    for i, bound in enumerate(bounds):
        ends = [min(max(end, min(sizes)), max(sizes)) for end in bound.ends]
        is_range = bound.at_least is not None and bound.at_most is not None
        words = f"{bound.at_least:g} to {bound.at_most:g}" if is_range else bound.words.replace(">=", "≥").replace("<=", "≤")
        look = {**LOOK, "marker": "|", "ms": 11, "mew": LOOK["lw"], "label": f"claim: {name}\n{words}"}
        axes.plot(ends, [BAR_HEIGHT * (i + 0.6)] * 2, **look, transform=axes.get_xaxis_transform())
