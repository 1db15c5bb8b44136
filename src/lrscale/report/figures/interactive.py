"""The interactive figure of a study, as a program that contains plotly.js, so that it works offline.

The figure is written in the format of plotly.js itself, because importing plotly's Python classes takes longer than drawing
all other figures.
"""

import json
import math
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from lrscale.report.figures.curves import OBJECTIVE_NAMES
from lrscale.report.figures.palette import colours, reduction_look
from lrscale.study.answer import Answer
from lrscale.study.families import CellAnswer, Family

LIBRARY = "plotly-basic.min.js"
"""The part of plotly.js 3.7.0 that draws lines and points: the npm package plotly.js-basic-dist-min, as it is, under the MIT
license. The whole library is four times as large."""
PLOTLY_CONFIG = {"displayModeBar": False, "responsive": True}
"""Options of plotly.js: no toolbar, and a width that follows the page."""
AXIS: dict[str, Any] = {
    "type": "log",
    "gridcolor": "#e6e6e6",
    "zeroline": False,
    "exponentformat": "power",
    "automargin": True,
    "tickangle": 0,
}
"""What all axes have in common."""
MOST_TICKS = 5
"""About the largest number of ticks on an axis: a panel has no room for the labels of more."""
ROW_HEIGHT = 430
"""Height of a row of panels, in pixels."""


def figure(answer: Answer) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Returns the data and the layout of the figure, in the format of plotly.js.

    Each family has a row. A row has a panel for each reduction, with objective against lr, and a last panel with best lr
    against batch size.
    """
    palette = colours(cell.training.batch_size for cell in answer.cells)
    families = [family for family in answer.families if any(cell.points() for cell in family.cells)]
    columns = max((len(family.reductions()) for family in families), default=0) + 1
    data: list[dict[str, Any]] = []
    layout: dict[str, Any] = {
        "grid": {"rows": len(families), "columns": columns, "pattern": "independent", "xgap": 0.22, "ygap": 0.3},
        "height": ROW_HEIGHT * max(1, len(families)),
        "margin": {"l": 70, "r": 20, "t": 50, "b": 60},
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": "#1c1c1e"},
        "paper_bgcolor": "#fff",
        "plot_bgcolor": "#fff",
        "hovermode": "closest",
        "legend": {"title": {"text": "batch size"}, "traceorder": "normal"},
    }
    sizes_in_legend: set[int] = set()
    for row, family in enumerate(families):
        title = f"<br>{family.name}" if family.name else ""
        top = 3 * max((o for cell in family.cells for _, o, _ in cell.points() if math.isfinite(o)), default=1.0)
        for column, reduction in enumerate(family.reductions()):
            panel = row * columns + column + 1
            cells = [cell for cell in family.cells if cell.training.reduction == reduction]
            for cell in sorted(cells, key=lambda c: c.training.batch_size):
                size = cell.training.batch_size
                data += _curve(cell, palette[size], panel, top, in_legend=size not in sizes_in_legend)
                sizes_in_legend.add(size)
            y_title = OBJECTIVE_NAMES.get(answer.plan.objective, answer.plan.objective) if column == 0 else ""
            lrs = [lr for cell in cells for lr, _, _ in cell.points()]
            heights = [o for cell in family.cells for _, o, _ in cell.points() if math.isfinite(o)]
            titles = (f"learning rate, {reduction}{title}", y_title)
            _set_axes(layout, panel, titles, (lrs, [*heights, top]))
            if column:
                layout[f"yaxis{panel}"]["matches"] = _axes_of(panel - column)["yaxis"]
        panel = row * columns + columns
        data += [trace for reduction in family.reductions() for trace in _best(family, reduction, panel)]
        best = [lr for cell in family.cells if cell.best and cell.fits for lr in (cell.best.drawn.low, cell.best.drawn.high)]
        _set_axes(layout, panel, (f"batch size B{title}", "best learning rate"), ([], best))
        sizes = sorted({cell.step_examples for cell in family.cells})
        layout[f"xaxis{panel}"] |= {"tickmode": "array", "tickvals": sizes[:: math.ceil(len(sizes) / 6)]}
    return data, layout


def _set_axes(
    layout: dict[str, Any], panel: int, titles: tuple[str, str], values: tuple[Sequence[float], Sequence[float]]
) -> None:
    """Adds the axes of a panel to a layout. Panels are numbered from 1, row by row.

    Args:
      layout: the layout.
      panel: the number of the panel.
      titles: the titles of the x axis and the y axis.
      values: what is shown along the x axis and the y axis, which gives the distance of their ticks.
    """
    number = "" if panel == 1 else str(panel)
    for axis, other, title, shown in zip("xy", "yx", titles, values, strict=True):
        layout[f"{axis}axis{number}"] = {
            **AXIS, "title": {"text": title}, "anchor": f"{other}{number}", "dtick": _tick_distance(shown)
        }  # fmt: skip


def _tick_distance(values: Sequence[float]) -> int | str:
    """Returns the distance of the ticks of a log axis, so that there are about two to six, as plotly.js takes it.

    It is a number of decades, or `D2`, for ticks at 1, 2 and 5 times powers of ten, where there are less than two decades.
    """
    positive = [value for value in values if value > 0]
    decades = math.log10(max(positive) / min(positive)) if positive else 1.0
    return max(1, math.ceil(decades / MOST_TICKS)) if decades >= 2 else "D2"


def _axes_of(panel: int) -> dict[str, str]:
    """Returns the names of a panel's axes, as a trace refers to them."""
    number = "" if panel == 1 else str(panel)
    return {"xaxis": f"x{number}", "yaxis": f"y{number}"}


def _curve(cell: CellAnswer, colour: str, panel: int, top: float, in_legend: bool) -> list[dict[str, Any]]:
    """Returns the traces of a cell: its objective against lr, and crosses at lrs at which a run diverged.

    Args:
      cell: the cell.
      colour: the colour of its batch size.
      panel: the number of the panel.
      top: the height of the crosses, on the scale of the objective.
      in_legend: whether the legend has an entry for this cell.
    """
    name = f"B = {cell.training.batch_size}"
    shared = {"type": "scatter", "legendgroup": name, "name": name, **_axes_of(panel)}
    points = cell.points()
    finite = [(lr, o) for lr, o, _ in points if math.isfinite(o)]
    diverged = [
        (lr, f"{count} of {len(cell.trials[0].objectives)} seeds diverged") for lr, o, count in points if not math.isfinite(o)
    ]
    return [
        {
            **shared,
            "x": [lr for lr, _ in finite],
            "y": [o for _, o in finite],
            "mode": "lines+markers",
            "line": {"color": colour, "width": 1.6},
            "marker": {"size": 6},
            "showlegend": in_legend,
            "hovertemplate": f"{cell.cell.label}<br>lr %{{x:.3g}}<br>objective %{{y:.3g}}<extra></extra>",
        },
        {
            **shared,
            "x": [lr for lr, _ in diverged],
            "y": [top] * len(diverged),
            "text": [text for _, text in diverged],
            "mode": "markers",
            "marker": {"symbol": "x", "color": colour, "size": 7},
            "showlegend": False,
            "hovertemplate": f"{cell.cell.label}<br>lr %{{x:.3g}}<br>%{{text}}<extra></extra>",
        },
    ]


def _best(family: Family, reduction: str, panel: int) -> list[dict[str, Any]]:
    """Returns the traces of a reduction's best lr against batch size: theory as a line, and measured values as points.

    Args:
      family: the family of cells.
      reduction: the reduction.
      panel: the number of the panel.
    """
    colour, _ = reduction_look(reduction)
    place = family.reductions().index(reduction)
    look = {"color": colour, "size": 8 + 4 * place, "symbol": "square-open" if place else "circle", "line": {"width": 2}}
    cells = sorted((c for c in family.cells if c.training.reduction == reduction), key=lambda c: c.step_examples)
    theory = [(c.step_examples, c.theory_lr) for c in cells if c.theory_lr is not None]
    best = [(c.step_examples, c.best.drawn) for c in cells if c.best is not None and c.fits]
    return [
        {
            "type": "scatter", "mode": "lines", "showlegend": False, **_axes_of(panel), "line": {"color": colour, "width": 1.4},
            "x": [b for b, _ in theory], "y": [lr for _, lr in theory], "opacity": 0.6,
            "hovertemplate": f"{reduction}, theory<br>B %{{x}}<br>lr %{{y:.3g}}<extra></extra>",
        },
        {
            "type": "scatter", "mode": "markers", "name": reduction, **_axes_of(panel), "marker": look,
            "showlegend": panel <= len(family.reductions()) + 1,
            "x": [b for b, _ in best], "y": [i.value for _, i in best],
            "error_y": {
                "type": "data", "array": [i.high - i.value for _, i in best], "arrayminus": [i.value - i.low for _, i in best]
            },
            "hovertemplate": f"{reduction}<br>B %{{x}}<br>lr* %{{y:.3g}}<extra></extra>",
        },
    ]  # fmt: skip


def program(answer: Answer) -> str:
    """Returns the JavaScript that draws the figure in the element `lrscale-figure`: plotly.js, and a call of it."""
    data, layout = figure(answer)
    library = (files("lrscale.report") / LIBRARY).read_text(encoding="utf-8")
    arguments = ", ".join(json.dumps(part, allow_nan=False).replace("<", "\\u003c") for part in (data, layout, PLOTLY_CONFIG))
    return f'{library}\nPlotly.newPlot("lrscale-figure", {arguments});'
