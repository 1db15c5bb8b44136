"""The figure of a probe: each quantity against an axis of the study, with theory as lines and measurements as points."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from lrscale.report.figures.curves import STYLE
from lrscale.report.figures.layout import MOST_LINES, Layout, Line, Panel, layout, values, words
from lrscale.report.figures.palette import shades
from lrscale.rules import is_number
from lrscale.study.answer import Answer
from lrscale.study.families import Measurement

ACROSS, PANEL_WIDTH, PANEL_HEIGHT = 3, 3.5, 3.1
"""Panels in a row, and the size of each in inches: the letters are readable on a page that is 850 pixels wide."""
INK = "#444"
MARKS = (("o", 5.0, True), ("s", 8.0, False), ("^", 11.0, False), ("D", 13.0, False))
"""Each mark is larger than the one before and hollow, so that points on top of each other are all visible."""
TITLES = {
    "b_simple": "noise scale B_simple (examples)",
    "one_step_lr": "best lr of one step",
    "mean_square_edge": "largest stable lr, mean over runs",
    "almost_sure_edge": "largest stable lr, a single run",
    "edge_ratio": "edge of a single run / of the mean",
    "momentum_edge": "largest stable lr, momentum",
    "p_first": "p of the first update",
    "p_step_50": "p of the 50th update",
    "p_first_50": "p of 50 updates together",
    "ln loss ratio": "ln(final loss, mean / sum)",
    "nominal difference": "relative difference, sum/B from sum",
    "ln lr ratio": "ln(best lr, mean / (B x sum))",
}
BELOW = {
    "batch_size": "batch size B (examples per step)",
    "probe.fraction": "fraction of training done",
    "task.examples": "examples in an epoch N",
    "task.features": "features d",
}


def quantities(answer: Answer) -> Figure:
    """Draws a panel for each quantity. Without an x axis, or with too many lines, values are drawn as rows instead."""
    measurements = answer.measurements
    plan = layout(measurements, {c["quantity"]: c["against"] for c in answer.plan.claims if "against" in c and "quantity" in c})
    with matplotlib.rc_context(STYLE):
        if plan.most_lines > MOST_LINES or all(panel.axis is None for panel in plan.panels):
            return _as_rows(measurements)
        return _as_lines(plan)


def _figure(places: Sequence[tuple[int, int]], height: float, share: bool) -> tuple[Figure, list[Axes]]:
    down, across = (max(at) + 1 for at in zip(*places, strict=True))
    figure = Figure(figsize=(across * PANEL_WIDTH + 1.4, down * height), layout="constrained")
    grid = figure.subplots(down, across, sharey=share, squeeze=False)
    for place in {(r, c) for r in range(down) for c in range(across)} - set(places):
        grid[place].remove()
    return figure, [grid[place] for place in places]


def _places(keys: Sequence[str], apart: bool) -> list[tuple[int, int]]:
    """Returns row and column of each panel. With `apart`, the panels of each key start in a new row."""
    places: list[tuple[int, int]] = []
    for i, key in enumerate(keys):
        row, column = places[-1] if places else (0, -1)
        new = column == ACROSS - 1 or (apart and i > 0 and keys[i - 1] != key)
        places.append((row + 1, 0) if new else (row, column + 1))
    return places


def _as_lines(plan: Layout) -> Figure:
    names = [panel.quantity for panel in plan.panels]
    figure, drawn = _figure(_places(names, apart=len(set(names)) < len(names)), PANEL_HEIGHT, share=False)
    paint = shades(plan.colours)
    of = {name: [m for panel in plan.panels if panel.quantity == name for m in panel.measurements] for name in names}
    for axes, panel in zip(drawn, plan.panels, strict=True):
        _lines(axes, panel, paint, plan.marks)
        _scale(axes, of[panel.quantity], "y")
        if panel.part is not None:
            _limit(axes, of[panel.quantity])
        title = TITLES.get(panel.quantity, panel.quantity)
        axes.set_title(title if panel.part is None else f"{title}\n{panel.part}", fontsize=10.5)
    handles = [Line2D([], [], color=paint[v], lw=3, label=words(plan.colour or "", v)) for v in plan.colours]
    if len(plan.marks) > 1:
        named = [", ".join(words(*pair) for pair in zip(plan.mark, each, strict=True)) for each in plan.marks]
        handles += [Line2D([], [], color=INK, ls="", label=n, **_mark(i, INK)) for i, n in enumerate(named)]
    _legend(figure, handles, plan.panels[0].measurements, "-")
    return figure


def _mark(place: int, colour: str) -> dict[str, Any]:
    marker, size, full = MARKS[place % len(MARKS)]
    return {"marker": marker, "ms": size, "mfc": colour if full else "none"}


def _legend(figure: Figure, handles: list[Line2D], measurements: Sequence[Measurement], theory: str) -> None:
    bars = any(m.quantity.low is not None for m in measurements)
    handles.append(Line2D([], [], color=INK, marker="o", ms=5, ls="", label="measured" + (", 95 %" if bars else "")))
    if any(m.quantity.expected is not None for m in measurements):
        marker, ls = (None, "-") if theory == "-" else ("|", "")
        handles.append(Line2D([], [], color=INK, label="expected", ls=ls, marker=marker, lw=1.3, ms=12, mew=2))
    figure.legend(handles=handles, loc="outside right upper", fontsize=9.5)


def _lines(axes: Axes, panel: Panel, paint: Mapping[Any, str], marks: Sequence[tuple[Any, ...]]) -> None:
    for line in panel.lines:
        colour = paint.get(line.colour, INK)
        x = _along(panel, line)
        shown = [m.quantity.value for m in line.measurements]
        axes.errorbar(
            x, shown, _bars(line.measurements), ls="", capsize=3, color=colour, **_mark(marks.index(line.marks), colour)
        )
        theory = [
            (at, m.quantity.expected) for at, m in zip(x, line.measurements, strict=True) if m.quantity.expected is not None
        ]
        if theory:
            axes.plot(*zip(*theory, strict=True), "-", color=colour, lw=1.3, alpha=0.6)
    if panel.axis is not None:
        axes.set_xlabel(BELOW.get(panel.axis, panel.axis.rpartition(".")[2]))
        _ticks(axes, sorted({x for line in panel.lines for x in _along(panel, line)}))
    else:
        axes.set_xticks([])


def _along(panel: Panel, line: Line) -> list[float]:
    return [float(m.cell.scientific[panel.axis]) if panel.axis else 0.0 for m in line.measurements]


def _ticks(axes: Axes, at: Sequence[float]) -> None:
    """Sets a log scale with ticks at the axis's own values, if they are positive and spread over a factor of two."""
    if at[0] > 0 and at[-1] >= 2 * at[0]:
        axes.set_xscale("log")
        shown = at[:: math.ceil(len(at) / 6)]
        axes.set_xticks(shown, [f"{value:g}" for value in shown])
        axes.xaxis.set_minor_locator(NullLocator())


def _scale(axes: Axes, measurements: Sequence[Measurement], which: str) -> None:
    """Sets a log scale where values spread over more than a decade; zero gets a place on it where all are expected to be 0."""
    numbers = [v for _, q in measurements for v in (q.value, q.expected) if v is not None]
    positive = [v for v in numbers if v > 0]
    set_scale, axis = getattr(axes, f"set_{which}scale"), getattr(axes, f"{which}axis")
    if not positive or min(numbers) < 0 or max(positive) <= 20 * min(positive):
        if max(map(abs, numbers)) == 0:
            getattr(axes, f"set_{which}lim")(-1, 1)
            getattr(axes, f"set_{which}ticks")([0])
        return
    if min(numbers) > 0:
        set_scale("log")
        axis.set_minor_formatter(NullFormatter())
        return
    if any(q.expected for _, q in measurements):
        return
    least, most = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    set_scale("symlog", linthresh=10.0**least, linscale=1.2)
    step = max(1, math.ceil((most - least) / 4))
    axis.set_ticks([0.0, *(10.0**k for k in range(least, most + 1, step))])
    axis.set_major_formatter(FuncFormatter(lambda v, _: "0" if v == 0 else f"$10^{{{math.log10(v):.0f}}}$"))
    axis.set_minor_locator(NullLocator())
    getattr(axes, f"set_{which}lim")(-(10.0**least) / 2, 1.6 * 10.0**most)


def _limit(axes: Axes, measurements: Sequence[Measurement]) -> None:
    """Gives the panels of one quantity the same limits."""
    ends = [v for _, q in measurements for v in (q.value, q.low, q.high, q.expected) if v is not None]
    least, most = min(ends), max(ends)
    if axes.get_yscale() == "log":
        axes.set_ylim(least / 1.3, most * 1.3)
    else:
        axes.set_ylim(least - 0.06 * (most - least), most + 0.06 * (most - least))


def _bars(measurements: Sequence[Measurement]) -> list[list[float]]:
    below = [max(0.0, q.value - (q.value if q.low is None else q.low)) for _, q in measurements]
    return [below, [max(0.0, (q.value if q.high is None else q.high) - q.value) for _, q in measurements]]


def _as_rows(measurements: Sequence[Measurement]) -> Figure:
    """Draws a panel a quantity, with a row for each combination of the axes. One numeric axis gets colours instead of rows."""
    differing = values(measurements)
    numeric = [axis for axis, each in differing.items() if all(map(is_number, each))]
    coloured = max(numeric, key=lambda axis: len(differing[axis]), default=None) if len(differing) > 1 else None
    shown = differing[coloured] if coloured else [None]
    paint = shades(shown) if coloured else {None: "#0072b2"}
    rows = list(dict.fromkeys(_row(m, differing, coloured) for m in measurements))
    names = list(dict.fromkeys(m.quantity.name for m in measurements))
    row_height = max(0.26, 0.09 * len(shown))
    figure, drawn = _figure(_places(names, apart=False), row_height * len(rows) + 1.0, share=True)
    for axes, name in zip(drawn, names, strict=True):
        own = [m for m in measurements if m.quantity.name == name]
        for i, value in enumerate(shown):
            each = [m for m in own if coloured is None or m.cell.scientific[coloured] == value]
            offset = 0.7 * ((i + 0.5) / len(shown) - 0.5)
            _row_points(axes, each, [rows.index(_row(m, differing, coloured)) + offset for m in each], paint[value])
        axes.set_title(TITLES.get(name, name), fontsize=10.5)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        _scale(axes, own, "x")
    handles = [Line2D([], [], color=paint[v], marker="o", ls="", label=words(coloured, v)) for v in shown if coloured]
    _legend(figure, handles, measurements, "|")
    return figure


def _row(m: Measurement, differing: Mapping[str, Sequence[Any]], coloured: str | None) -> str:
    shown = [words(axis, m.cell.scientific[axis]) for axis in differing if axis != coloured]
    return " ".join(shown) or m.cell.label


def _row_points(axes: Axes, measurements: Sequence[Measurement], at: Sequence[float], colour: str) -> None:
    axes.errorbar(
        [m.quantity.value for m in measurements], at, xerr=_bars(measurements), fmt="o", ms=4.5, capsize=2, color=colour
    )
    theory = [(m.quantity.expected, y) for m, y in zip(measurements, at, strict=True) if m.quantity.expected is not None]
    if theory:
        axes.plot(*zip(*theory, strict=True), "|", ms=9, mew=1.5, color=colour)
