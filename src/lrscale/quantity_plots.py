"""The figure of a probe: each quantity against the study's widest numeric axis, theory as a line, measurement as points."""

import math
from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from lrscale.answer import Answer, Measurement
from lrscale.palette import colours
from lrscale.plots import STYLE, panels
from lrscale.rules import is_number

ACROSS = 4
"""Panels beside each other."""
MOST_LINES = 12
"""More series than this cannot be told apart: then each cell is a row, named."""


def quantities(answer: Answer) -> Figure:
    """Draws a panel for each quantity; against no numeric axis, or with too many series, cells are rows."""
    names = list(dict.fromkeys(m.quantity.name for m in answer.measurements))
    axis = widest_axis(answer.measurements)
    series = {_series(m, axis) for m in answer.measurements}
    as_rows = axis is None or len(series) > MOST_LINES
    cells = list(dict.fromkeys(m.cell.label for m in answer.measurements))
    with matplotlib.rc_context(STYLE):
        height = max(4.0, 0.24 * len(cells) + 1.2) if as_rows else 4.0
        figure, drawn = panels(len(names), height=height, share=as_rows, across=ACROSS)
        for axes, name in zip(drawn, names, strict=True):
            found = [m for m in answer.measurements if m.quantity.name == name]
            if axis is None or as_rows:
                _rows(axes, found, cells)
            else:
                _lines(axes, found, axis, sorted(series))
            axes.set_title(name)
        if not as_rows and series != {""}:
            handles, labels = drawn[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside right upper")
    return figure


def widest_axis(found: Sequence[Measurement]) -> str | None:
    """The numeric axis with the most values, at least three; the first of them in the study's order."""
    values: dict[str, set[float]] = {}
    for m in found:
        for key, value in m.cell.scientific.items():
            if is_number(value):
                values.setdefault(key, set()).add(float(value))
    return max((key for key in values if len(values[key]) > 2), key=lambda key: len(values[key]), default=None)


def _series(m: Measurement, axis: str | None) -> str:
    return " ".join(f"{k.rpartition('.')[2]}={v}" if is_number(v) else str(v) for k, v in m.cell.scientific.items() if k != axis)


def _bars(found: Sequence[Measurement]) -> list[list[float]]:
    below = [max(0.0, q.value - (q.value if q.low is None else q.low)) for _, q in found]
    return [below, [max(0.0, (q.value if q.high is None else q.high) - q.value) for _, q in found]]


def _lines(axes: Axes, found: Sequence[Measurement], axis: str, series: Sequence[str]) -> None:
    shades = list(colours(range(len(series))).values())
    for name, shade in zip(series, shades, strict=True):
        own = sorted((m for m in found if _series(m, axis) == name), key=lambda m: float(m.cell.scientific[axis]))
        x = [float(m.cell.scientific[axis]) for m in own]
        axes.errorbar(x, [m.quantity.value for m in own], _bars(own), fmt="o", ms=5, capsize=3, color=shade, label=name)
        theory = [(at, m.quantity.expected) for at, m in zip(x, own, strict=True) if m.quantity.expected is not None]
        if theory:
            axes.plot(*zip(*theory, strict=True), "-", color=shade, lw=1.3, alpha=0.6)
    axes.set_xlabel("batch size B (examples per step)" if axis == "batch_size" else axis)
    _ticks(axes, sorted({float(m.cell.scientific[axis]) for m in found}))
    if _spans_decades(found):
        axes.set_yscale("log")


def _ticks(axes: Axes, values: Sequence[float]) -> None:
    """A log scale with ticks at the axis's own values, where they are positive and spread over a factor of two."""
    if values[0] > 0 and values[-1] >= 2 * values[0]:
        axes.set_xscale("log")
        shown = values[:: math.ceil(len(values) / 6)]
        axes.set_xticks(shown, [f"{value:g}" for value in shown])
        axes.xaxis.set_minor_locator(NullLocator())


def _rows(axes: Axes, found: Sequence[Measurement], cells: Sequence[str]) -> None:
    places = {label: len(cells) - i for i, label in enumerate(cells)}
    at = [places[m.cell.label] for m in found]
    axes.errorbar(
        [m.quantity.value for m in found], at, xerr=_bars(found), fmt="o", ms=5, capsize=3, color="#0072b2", label="measured"
    )
    theory = [(m.quantity.expected, places[m.cell.label]) for m in found if m.quantity.expected is not None]
    if theory:
        axes.plot(*zip(*theory, strict=True), "|", ms=13, mew=2, color="#444", label="expected")
    axes.set_yticks(list(places.values()), list(places))
    if _spans_decades(found):
        axes.set_xscale("log")


def _spans_decades(found: Sequence[Measurement]) -> bool:
    shown = [v for _, q in found for v in (q.value, q.expected) if v is not None]
    return min(shown) > 0 and max(shown) > 20 * min(shown)
