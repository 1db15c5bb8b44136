"""Draws the figure of a probe: each quantity against an axis of the study, measured as points and expected as lines."""

import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from lrscale.estimate.fits import form_fit
from lrscale.report.figures.bounds import BOUND_COLOUR, Level, draw_levels, draw_row_levels, in_title, legend_entry, levels
from lrscale.report.figures.curves import STYLE, show_lrs
from lrscale.report.figures.layout import MOST_LINES, Layout, Line, Panel, layout, values, words
from lrscale.report.figures.palette import shades
from lrscale.report.figures.scales import set_limits, set_scale, set_x_ticks
from lrscale.report.figures.titles import X_TITLES, title
from lrscale.rules import is_number
from lrscale.study.answer import Answer
from lrscale.study.families import Measurement
from lrscale.study.measures import value_and_ends

ACROSS, PANEL_WIDTH, PANEL_HEIGHT = 3, 3.1, 2.9
"""Largest number of panels in a row, and the size of a panel in inches. With these sizes the letters are readable on a page
that is 850 pixels wide."""
SIDE_SPACE = 0.08
"""Space at the left and at the right of a panel, in inches."""
LABEL_SIZE = 9.5
"""The size of the titles of axes, in points."""
LEAST_WIDTH, LEGEND_COLUMNS = 6.4, 5
"""Width of a narrow figure in inches, and the largest number of columns of the legend, which is below the panels."""
LEGEND_MARK, LEGEND_LETTER = 0.6, 0.085
"""Width of the mark of an entry of the legend, and of a letter, in inches."""
INK = "#444"
"""Colour of lines and points that belong to no value of an axis."""
MARKS = (("o", 5.0, True), ("s", 8.0, False), ("^", 11.0, False), ("D", 13.0, False))
"""Marker, size and whether it is filled. Each is larger than the one before, and all but the first are hollow, so that points
on top of each other are all visible."""
APART = 2.5
"""The distance between points of different lines at the same x, in points, where no expected values hold them in place."""
LRS = ("one_step_lr", "mean_square_edge", "almost_sure_edge", "momentum_edge")
"""The quantities that are lrs."""


def quantities(answer: Answer) -> Figure:
    """Returns the figure of a probe, with at least one panel for each quantity.

    Values are drawn along an x axis of the study. Where no quantity has one, or a panel would have too many lines, each
    combination of the study's axes has a row instead.
    """
    measurements = answer.measurements
    plan = layout(measurements, {c["quantity"]: c["against"] for c in answer.plan.claims if "against" in c and "quantity" in c})
    with matplotlib.rc_context(STYLE):
        by_name = {name: [m for m in measurements if m.quantity.name == name] for name in (m.quantity.name for m in measurements)}
        bounds = {name: levels(answer.plan.claims, of_quantity) for name, of_quantity in by_name.items()}
        if plan.most_lines > MOST_LINES or all(panel.axis is None for panel in plan.panels):
            return _as_rows(measurements, bounds)
        return _as_lines(plan, {c["quantity"] for c in answer.plan.claims if c["measure"] == "form_residual"}, bounds)


def _empty_panels(positions: Sequence[tuple[int, int]], height: float, share_y: bool) -> tuple[Figure, list[Axes]]:
    """Returns a figure, and the axes of its empty panels.

    Args:
      positions: row and column of each panel.
      height: height of a panel, in inches.
      share_y: whether the panels share their y axis.
    """
    down, across = (max(indices) + 1 for indices in zip(*positions, strict=True))
    figure = Figure(
        figsize=(max(LEAST_WIDTH, across * PANEL_WIDTH), down * height + 0.5), layout=ConstrainedLayoutEngine(w_pad=SIDE_SPACE)
    )
    grid = figure.subplots(down, across, sharey=share_y, squeeze=False)
    for unused in {(row, column) for row in range(down) for column in range(across)} - set(positions):
        grid[unused].remove()
    return figure, [grid[position] for position in positions]


def _positions(names: Sequence[str], new_rows: bool) -> list[tuple[int, int]]:
    """Returns row and column of each panel.

    Args:
      names: the quantity of each panel; the panels of one quantity follow each other.
      new_rows: whether the first panel of each quantity starts a new row.
    """
    positions: list[tuple[int, int]] = []
    for i, name in enumerate(names):
        row, column = positions[-1] if positions else (0, -1)
        starts_row = column == ACROSS - 1 or (new_rows and i > 0 and names[i - 1] != name)
        positions.append((row + 1, 0) if starts_row else (row, column + 1))
    return positions


def _as_lines(plan: Layout, fitted: Collection[str], bounds: Mapping[str, Sequence[Level]]) -> Figure:
    """Returns the figure in which quantities are drawn along an x axis of the study.

    Args:
      plan: the layout of the figure.
      fitted: the quantities whose fits of v_max/(1 + B_c/B) are drawn, because a claim speaks of them.
      bounds: what claims allow, by quantity.
    """
    names = [panel.quantity for panel in plan.panels]
    figure, all_axes = _empty_panels(_positions(names, new_rows=len(set(names)) < len(names)), PANEL_HEIGHT, share_y=False)
    paint = shades(plan.colours)
    by_name = {name: [m for panel in plan.panels if panel.quantity == name for m in panel.measurements] for name in names}
    joins = all(m.quantity.expected is None for panel in plan.panels for m in panel.measurements)
    for axes, panel in zip(all_axes, plan.panels, strict=True):
        _draw_lines(axes, panel, paint, plan.marks, joins)
        if panel.quantity in fitted:
            _draw_fits(axes, panel, paint)
        xs = {m.cell.id: x for line in panel.lines for m, x in zip(line.measurements, _x_values(panel, line), strict=True)}
        shown = draw_levels(axes, bounds[panel.quantity], xs)
        ends = [level.value for level in bounds[panel.quantity]]
        set_scale(axes, by_name[panel.quantity], "y", ends)
        if panel.part is not None:
            set_limits(axes, by_name[panel.quantity], ends)
        if panel.quantity in LRS and all(q.value > 0 for _, q in by_name[panel.quantity]):
            show_lrs(axes)
        axes.set_ylabel(_title(panel.measurements[0]), fontsize=LABEL_SIZE)
        _set_titles(axes, panel.part or "", in_title(shown))
    handles = [Line2D([], [], color=paint[v], lw=3, label=words(plan.colour or "", v)) for v in plan.colours]
    if len(plan.marks) > 1:
        labels = [", ".join(words(*pair) for pair in zip(plan.mark, marks, strict=True)) for marks in plan.marks]
        handles += [Line2D([], [], color=INK, ls="", label=label, **_mark(i, INK)) for i, label in enumerate(labels)]
    if fitted:
        handles.append(Line2D([], [], color=INK, ls="--", lw=1.1, label="fit of the claim"))
    _add_legend(figure, handles, plan.panels[0].measurements, "-", bounds)
    return figure


def _set_titles(axes: Axes, part: str, claims: str) -> None:
    """Writes above a panel which part of the study it shows, and below this what claims allow, where there is such a thing."""
    axes.set_title(part, fontsize=10.5, pad=20 if claims and part else None)
    axes.annotate(claims, (0.5, 1.0), (0, 6), "axes fraction", "offset points", ha="center", fontsize=9, color=BOUND_COLOUR)


def _title(m: Measurement) -> str:
    """Returns the title of the axis that shows the quantity of a measurement, in lines that a panel has room for."""
    return textwrap.fill(title((m.cell.config.get("probe") or {}).get("name", ""), m.quantity.name), 28)


def _mark(index: int, colour: str) -> dict[str, Any]:
    """Returns the matplotlib options of a mark, by its index in MARKS."""
    marker, size, is_filled = MARKS[index % len(MARKS)]
    return {"marker": marker, "ms": size, "mfc": colour if is_filled else "none"}


def _add_legend(
    figure: Figure,
    handles: list[Line2D],
    measurements: Sequence[Measurement],
    theory: str,
    bounds: Mapping[str, Sequence[Level]],
) -> None:
    """Adds a legend to the figure. Entries for measured and expected values follow the handles.

    Args:
      figure: the figure.
      handles: the entries for colours and marks.
      measurements: measurements that show whether there are intervals and expected values.
      theory: how expected values are drawn: `-` for a line, `|` for a tick.
      bounds: what claims allow, by quantity.
    """
    has_intervals = any(m.quantity.low is not None for m in measurements)
    handles.append(Line2D([], [], color=INK, marker="o", ms=5, ls="", label="measured" + (", 95 %" if has_intervals else "")))
    if any(m.quantity.expected is not None for m in measurements):
        marker, ls = (None, "-") if theory == "-" else ("|", "")
        handles.append(Line2D([], [], color=INK, label="expected", ls=ls, marker=marker, lw=1.3, ms=12, mew=2))
    handles += [legend_entry()] if any(bounds.values()) else []
    entry = LEGEND_MARK + LEGEND_LETTER * max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, min(LEGEND_COLUMNS, len(handles), int(figure.get_figwidth() / entry)))
    figure.legend(handles=handles, loc="outside lower center", ncol=columns)


def _draw_lines(axes: Axes, panel: Panel, paint: Mapping[Any, str], marks: Sequence[tuple[Any, ...]], joins: bool) -> None:
    """Draws the lines of a panel: measured values as points with intervals, and expected values as lines.

    Args:
      axes: the axes of the panel.
      panel: the panel.
      paint: the colours, by value on the axis that has colours.
      marks: the combinations of values that have marks, in the order of MARKS.
      joins: whether thin lines join the measured values of each line, because no expected values do.
    """
    for i, line in enumerate(panel.lines):
        colour = paint.get(line.colour, INK)
        shift = ScaledTranslation((i - (len(panel.lines) - 1) / 2) * APART / 72, 0, axes.figure.dpi_scale_trans)
        place: dict[str, Any] = {"transform": axes.transData + shift} if joins and panel.axis else {}
        xs = _x_values(panel, line)
        measured = [m.quantity.value for m in line.measurements]
        look: dict[str, Any] = {"ls": "-" if joins else "", "lw": 0.8, "elinewidth": 1.3, "capsize": 3, "color": colour, **place}
        axes.errorbar(xs, measured, _bars(line.measurements), **look, **_mark(marks.index(line.marks), colour))
        ends = [(x, v) for x, m in zip(xs, line.measurements, strict=True) for v in value_and_ends(m.quantity)]
        axes.update_datalim(ends)  # shifted points do not count themselves
        theory = [(x, m.quantity.expected) for x, m in zip(xs, line.measurements, strict=True) if m.quantity.expected is not None]
        if theory:
            axes.plot(*zip(*theory, strict=True), "-", color=colour, lw=1.3, alpha=0.6)
    if panel.axis is not None:
        axes.set_xlabel(X_TITLES.get(panel.axis, panel.axis.rpartition(".")[2]), fontsize=LABEL_SIZE)
        set_x_ticks(axes, sorted({x for line in panel.lines for x in _x_values(panel, line)}))
    else:
        axes.set_xticks([])


def _draw_fits(axes: Axes, panel: Panel, paint: Mapping[Any, str]) -> None:
    """Draws the fit of v = v_max/(1 + B_c/B) through each line of a panel that has three batch sizes B."""
    for line in panel.lines:
        xs = np.array(_x_values(panel, line))
        fit = form_fit(xs, np.array([m.quantity.value for m in line.measurements]))
        if fit is not None:
            fine = np.geomspace(xs.min(), xs.max(), 100)
            axes.plot(fine, fit.v_max / (1 + fit.b_c / fine), "--", color=paint.get(line.colour, INK), lw=1.1)


def _x_values(panel: Panel, line: Line) -> list[float]:
    """Returns the x of each measurement of a line; 0 where the panel has no x axis."""
    return [float(m.cell.scientific[panel.axis]) if panel.axis else 0.0 for m in line.measurements]


def _bars(measurements: Sequence[Measurement]) -> list[list[float]]:
    """Returns the lengths of the error bars, below and above each measured value; 0 where there is no interval."""
    below = [max(0.0, q.value - (q.value if q.low is None else q.low)) for _, q in measurements]
    return [below, [max(0.0, (q.value if q.high is None else q.high) - q.value) for _, q in measurements]]


def _as_rows(measurements: Sequence[Measurement], bounds: Mapping[str, Sequence[Level]]) -> Figure:
    """Returns the figure with a panel for each quantity and a row for each combination of the axes.

    If the study has several axes, its longest numeric axis has colours, and no rows of its own. `bounds` holds what claims
    allow, by quantity.
    """
    differing = values(measurements)
    numeric = [axis for axis, axis_values in differing.items() if all(map(is_number, axis_values))]
    colour_axis = max(numeric, key=lambda axis: len(differing[axis]), default=None) if len(differing) > 1 else None
    colour_values = differing[colour_axis] if colour_axis else [None]
    paint = shades(colour_values) if colour_axis else {None: "#0072b2"}
    rows = list(dict.fromkeys(_row_label(m, differing, colour_axis) for m in measurements))
    names = list(dict.fromkeys(m.quantity.name for m in measurements))
    row_height = max(0.26, 0.09 * len(colour_values))
    figure, all_axes = _empty_panels(_positions(names, new_rows=False), row_height * len(rows) + 1.0, share_y=True)
    for axes, name in zip(all_axes, names, strict=True):
        of_quantity = [m for m in measurements if m.quantity.name == name]
        places: dict[str, float] = {}
        for i, value in enumerate(colour_values):
            of_colour = [m for m in of_quantity if colour_axis is None or m.cell.scientific[colour_axis] == value]
            offset = 0.7 * ((i + 0.5) / len(colour_values) - 0.5)
            ys = [rows.index(_row_label(m, differing, colour_axis)) + offset for m in of_colour]
            _draw_row_points(axes, of_colour, ys, paint[value])
            places |= {m.cell.id: y for m, y in zip(of_colour, ys, strict=True)}
        draw_row_levels(axes, bounds[name], places, 1 if len(colour_values) == 1 else 0.7 / len(colour_values))
        _set_titles(axes, "", in_title(bounds[name]))
        axes.set_xlabel(_title(of_quantity[0]), fontsize=LABEL_SIZE)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        set_scale(axes, of_quantity, "x", [level.value for level in bounds[name]])
    handles = [
        Line2D([], [], color=paint[value], marker="o", ls="", label=words(colour_axis, value))
        for value in colour_values
        if colour_axis
    ]
    for axes in all_axes[::ACROSS]:
        axes.set_ylabel(", ".join(axis.rpartition(".")[2] for axis in differing if axis != colour_axis))
    _add_legend(figure, handles, measurements, "|", bounds)
    return figure


def _row_label(m: Measurement, differing: Mapping[str, Sequence[Any]], colour_axis: str | None) -> str:
    """Returns the label of a measurement's row: its values on the axes that differ, without the axis that has colours."""
    parts = [words(axis, m.cell.scientific[axis]) for axis in differing if axis != colour_axis]
    return " ".join(parts) or m.cell.label


def _draw_row_points(axes: Axes, measurements: Sequence[Measurement], ys: Sequence[float], colour: str) -> None:
    """Draws measured values as points with intervals, and expected values as ticks.

    Args:
      axes: the axes of a panel.
      measurements: the measurements.
      ys: the y of each measurement.
      colour: the colour of points and ticks.
    """
    axes.errorbar(
        [m.quantity.value for m in measurements], ys, xerr=_bars(measurements), fmt="o", ms=4.5, capsize=2, color=colour
    )
    theory = [(m.quantity.expected, y) for m, y in zip(measurements, ys, strict=True) if m.quantity.expected is not None]
    if theory:
        axes.plot(*zip(*theory, strict=True), "|", ms=9, mew=1.5, color=colour)
