"""An interactive figure of a study, with plotly.js inside, so that it works offline.

The figure is written in plotly.js's own format: importing plotly's Python package takes longer than drawing all other figures.
"""

import json
import math
from importlib.resources import files
from typing import Any

from lrscale.report.figures.curves import OBJECTIVE_NAMES
from lrscale.report.figures.palette import colours, reduction_look
from lrscale.study.answer import Answer
from lrscale.study.families import CellAnswer, Family

PLOTLY_CONFIG = {"displayModeBar": False, "responsive": True}
AXIS: dict[str, Any] = {
    "type": "log",
    "dtick": 1,
    "gridcolor": "#e6e6e6",
    "zeroline": False,
    "exponentformat": "power",
    "automargin": True,
    "tickangle": 0,
}
ROW_HEIGHT = 430


def figure(answer: Answer) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The figure's data and layout: a row for each family, a panel for each reduction, and one for the best lrs."""
    palette = colours(cell.training.batch_size for cell in answer.cells)
    families = [family for family in answer.families if any(cell.points() for cell in family.cells)]
    columns = max((len(family.reductions()) for family in families), default=0) + 1
    data: list[dict[str, Any]] = []
    layout: dict[str, Any] = {
        "grid": {"rows": len(families), "columns": columns, "pattern": "independent", "xgap": 0.16, "ygap": 0.25},
        "height": ROW_HEIGHT * max(1, len(families)),
        "margin": {"l": 70, "r": 20, "t": 50, "b": 60},
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": "#1c1c1e"},
        "paper_bgcolor": "#fff",
        "plot_bgcolor": "#fff",
        "hovermode": "closest",
        "legend": {"title": {"text": "batch size"}, "traceorder": "normal"},
    }
    seen: set[int] = set()
    for row, family in enumerate(families):
        title = f", {family.name}" if family.name else ""
        top = 3 * max((o for cell in family.cells for _, o, _ in cell.points() if math.isfinite(o)), default=1.0)
        for column, reduction in enumerate(family.reductions()):
            place = row * columns + column + 1
            cells = [cell for cell in family.cells if cell.training.reduction == reduction]
            for cell in sorted(cells, key=lambda c: c.training.batch_size):
                size = cell.training.batch_size
                data += _curve(cell, palette[size], place, top, show=size not in seen)
                seen.add(size)
            words = OBJECTIVE_NAMES[answer.plan.objective] if column == 0 else ""
            _axes(layout, place, f"learning rate, {reduction}{title}", words)
            if column:
                layout[f"yaxis{place}"]["matches"] = _at(place - column)["yaxis"]
        place = row * columns + columns
        data += [trace for reduction in family.reductions() for trace in _best(family, reduction, place)]
        _axes(layout, place, f"batch size B{title}", "best learning rate")
        sizes = sorted({cell.step_examples for cell in family.cells})
        layout[f"xaxis{place}"] |= {"tickmode": "array", "tickvals": sizes[:: math.ceil(len(sizes) / 6)]}
    return data, layout


def _axes(layout: dict[str, Any], place: int, x: str, y: str) -> None:
    number = "" if place == 1 else str(place)
    layout[f"xaxis{number}"] = {**AXIS, "title": {"text": x}, "anchor": f"y{number}"}
    layout[f"yaxis{number}"] = {**AXIS, "title": {"text": y}, "anchor": f"x{number}"}


def _at(place: int) -> dict[str, str]:
    number = "" if place == 1 else str(place)
    return {"xaxis": f"x{number}", "yaxis": f"y{number}"}


def _curve(cell: CellAnswer, colour: str, place: int, top: float, show: bool) -> list[dict[str, Any]]:
    """A cell's objective against lr; crosses at `top` mark lrs at which a seed diverged."""
    name = f"B = {cell.training.batch_size}"
    shared = {"type": "scatter", "legendgroup": name, "name": name, **_at(place)}
    points = cell.points()
    finite = [(lr, o) for lr, o, _ in points if math.isfinite(o)]
    gone = [
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
            "showlegend": show,
            "hovertemplate": f"{cell.cell.label}<br>lr %{{x:.3g}}<br>objective %{{y:.3g}}<extra></extra>",
        },
        {
            **shared,
            "x": [lr for lr, _ in gone],
            "y": [top] * len(gone),
            "text": [text for _, text in gone],
            "mode": "markers",
            "marker": {"symbol": "x", "color": colour, "size": 7},
            "showlegend": False,
            "hovertemplate": f"{cell.cell.label}<br>lr %{{x:.3g}}<br>%{{text}}<extra></extra>",
        },
    ]


def _best(family: Family, reduction: str, place: int) -> list[dict[str, Any]]:
    """Best lrs with their intervals as points, theory as a line."""
    colour, _ = reduction_look(reduction)
    cells = sorted((c for c in family.cells if c.training.reduction == reduction), key=lambda c: c.step_examples)
    theory = [(c.step_examples, c.theory_lr) for c in cells if c.theory_lr is not None]
    best = [(c.step_examples, c.best.interval) for c in cells if c.best is not None and c.fits]
    return [
        {
            "type": "scatter", "mode": "lines", "showlegend": False, **_at(place), "line": {"color": colour, "width": 1.4},
            "x": [b for b, _ in theory], "y": [lr for _, lr in theory], "opacity": 0.6,
            "hovertemplate": f"{reduction}, theory<br>B %{{x}}<br>lr %{{y:.3g}}<extra></extra>",
        },
        {
            "type": "scatter", "mode": "markers", "name": reduction, **_at(place), "marker": {"color": colour, "size": 8},
            "showlegend": place <= len(family.reductions()) + 1,
            "x": [b for b, _ in best], "y": [i.value for _, i in best],
            "error_y": {
                "type": "data", "array": [i.high - i.value for _, i in best], "arrayminus": [i.value - i.low for _, i in best]
            },
            "hovertemplate": f"{reduction}<br>B %{{x}}<br>lr* %{{y:.3g}}<extra></extra>",
        },
    ]  # fmt: skip


def fragment(answer: Answer) -> str:
    """The figure as a part of a page, plotly.js inside."""
    import plotly

    data, layout = figure(answer)
    library = (files(plotly) / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    drawn = ", ".join(json.dumps(part, allow_nan=False).replace("<", "\\u003c") for part in (data, layout, PLOTLY_CONFIG))
    start = f'<script>Plotly.newPlot("lrscale-figure", {drawn});</script>'
    return f'<div id="lrscale-figure"></div>\n<script>{library}</script>\n{start}'


def page(answer: Answer) -> str:
    """The figure as a page of its own."""
    title = "".join(c for c in answer.plan.question or answer.plan.study if c not in "<>&")
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{title}</title></head>\n'
        f"<body>\n<main>{fragment(answer)}</main>\n</body>\n</html>\n"
    )
