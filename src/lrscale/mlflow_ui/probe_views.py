"""Makes the saved view of a probe: a row for each cell, and charts of the quantities.

MLflow draws a curve from the metrics of one run. So the run of a line's first cell holds the curve of the whole line.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lrscale.mlflow_ui.saved_views import BEST, LIMIT, SUMMARY, Chart, Point, Section, View, key
from lrscale.report.figures.layout import Layout, Panel, layout, logarithmic
from lrscale.report.figures.palette import shades
from lrscale.study.answer import Answer
from lrscale.study.families import Measurement
from lrscale.study.records import TrialRecord

MOST_PICTURES = 6
"""The largest number of pictures in a view."""
PICTURE_HEIGHT = 480
"""The height of a chart that shows a picture, in pixels: the picture is whole on a screen of 1440 x 900."""


class RunDisplay(NamedTuple):
    """What MLflow shows of a run besides its own metrics: further points, and a colour; None keeps the run's colour."""

    points: list[Point]
    colour: str | None


def picture_sections(title: str, pictures: Sequence[str]) -> list[Section]:
    """Returns the section that shows a study's pictures, one below the other, by the keys of the images; none without."""
    charts = tuple(Chart((picture,), is_image=True) for picture in pictures[:MOST_PICTURES])
    return [Section(title, charts, columns=1, height=PICTURE_HEIGHT)] if charts else []


def probe_view(answer: Answer, pictures: Sequence[str] = ()) -> View:
    """Returns the view of a probe.

    Its columns are the axes and the quantities, in the study's order. Its charts are in sections by their x axis, below the
    pictures of the parent run, which are given by the keys of the images.
    """
    axes = list(answer.plan.cells[0].scientific)
    with_expected = {m.quantity.name for m in answer.measurements if m.quantity.expected is not None}
    columns = {f"params.{name}": 60 + 7 * len(name) for name in axes}
    for name in dict.fromkeys(m.quantity.name for m in answer.measurements):
        columns[f"metrics.{name}"] = 45 + 7 * len(name)
        columns |= {f"metrics.{name}.expected": 115 + 7 * len(name)} if name in with_expected else {}
    return View(SUMMARY, "Study summary", BEST, "metrics.place", True, columns, _sections(probe_layout(answer), pictures))


def probe_layout(answer: Answer) -> Layout:
    """Returns the layout of a probe's quantities. Quantities with claims come first."""
    claims = [claim for claim in answer.plan.claims if "quantity" in claim]
    order = list(dict.fromkeys([c["quantity"] for c in claims] + [m.quantity.name for m in answer.measurements]))
    measurements = sorted(answer.measurements, key=lambda m: order.index(m.quantity.name))
    return layout(measurements, {c["quantity"]: c["against"] for c in claims if "against" in c})


def hidden_metrics(answer: Answer) -> list[str]:
    """Returns the metrics of a probe for which MLflow would draw charts that no view asks for."""
    plan = probe_layout(answer)
    names = [name for m in answer.measurements for name in (m.quantity.name, f"{m.quantity.name}.expected")]
    x_keys = [_x_axis(panel)[0] for panel in plan.panels]
    return list(dict.fromkeys([*names, *x_keys, *(curve_key for panel in plan.panels for curve_key in _keys(panel))]))


def _sections(plan: Layout, pictures: Sequence[str]) -> tuple[Section, ...]:
    """Returns a section of charts for each x axis, below the section with pictures.

    Quantities without an x axis are in one section of bar charts, with one bar for each cell.
    """
    charts: dict[str, list[Chart]] = {}
    for panel in plan.panels:
        x_key, title = _x_axis(panel)
        if panel.axis is None:
            charts.setdefault(title, []).append(Chart((panel.quantity,), bars=True))
        else:
            of_quantity = [m for other in plan.panels if other.quantity == panel.quantity for m in other.measurements]
            keys = _keys(panel)[: 2 if any(m.quantity.expected is not None for m in panel.measurements) else 1]
            charts.setdefault(title, []).append(Chart(tuple(keys), x_key, log=logarithmic(of_quantity)))
    sections = [Section(title, tuple(charts_of_section)) for title, charts_of_section in charts.items()]
    return (*picture_sections("What was measured", pictures), *sections)


def _x_axis(panel: Panel) -> tuple[str, str]:
    """Returns the name of the metric on a panel's x axis, and the title of its section."""
    if panel.axis is None:
        return "none", "Measured in each cell"
    words = "batch size" if panel.axis == "batch_size" else panel.axis
    name = f"log10 {words}" if _is_log(panel) else words
    return key(name), f"Measured, expected against {name}"


def _is_log(panel: Panel) -> bool:
    """Returns whether a panel's x axis shows log10 x: its values are positive and spread over at least a factor of two."""
    xs = [float(m.cell.scientific[panel.axis]) for m in panel.measurements] if panel.axis else []
    return bool(xs) and min(xs) > 0 and max(xs) >= 2 * min(xs)


def _keys(panel: Panel) -> list[str]:
    """Returns the names of the metrics that hold a panel's curves: of measured values, and of expected values."""
    part = "" if panel.part is None else f" - {panel.part}"
    return [key(f"measured {panel.quantity}{part}"), key(f"expected {panel.quantity}{part}")]


def probe_points(answer: Answer, trials: Sequence[TrialRecord]) -> dict[str, RunDisplay]:
    """Returns what MLflow shows of each cell: its place in the order of cells, the curves that it holds, and its colour.

    There are at most LIMIT - 1 cells, so that MLflow loads all of them together with the parent run.

    Args:
      answer: the answer of the study.
      trials: all trials of the study's experiment.

    Returns:
      What is shown, by the run id of the last trial of each cell.
    """
    last_runs = {trial.cell: trial.run_id for trial in sorted(trials, key=lambda t: t.number)}
    cells = [cell.id for cell in answer.plan.cells if cell.id in last_runs][: LIMIT - 1]
    plan = probe_layout(answer)
    lines = list(dict.fromkeys((line.colour, line.marks) for panel in plan.panels for line in panel.lines if panel.axis))
    coloured = [line for line in lines if line[0] in plan.colours] or lines
    paint = shades(sorted(coloured, key=lambda line: plan.colours.index(line[0]) if plan.colours else 0))
    points: dict[str, list[Point]] = {cell: [("place", float(i), 0)] for i, cell in enumerate(cells, start=1)}
    colours: dict[str, str] = {}
    for panel in plan.panels:
        for line in panel.lines if panel.axis else ():
            first = next((m.cell.id for m in line.measurements if m.cell.id in points), None)
            if first is not None:
                points[first] += _curve(panel, line.measurements)
            for m in line.measurements:
                colours |= {m.cell.id: paint[line.colour, line.marks]} if (line.colour, line.marks) in paint else {}
    return {
        last_runs[cell]: RunDisplay(list(dict.fromkeys(cell_points)), colours.get(cell)) for cell, cell_points in points.items()
    }


def _curve(panel: Panel, measurements: Sequence[Measurement]) -> list[Point]:
    """Returns the points of a line's curves: x, measured values and expected values.

    The step of a point is computed from its x, so a study that is continued adds points and changes none.
    """
    x_key, (value_key, expected_key) = _x_axis(panel)[0], _keys(panel)
    points: list[Point] = []
    for m in measurements:
        x = float(m.cell.scientific[panel.axis or ""])
        x = math.log10(x) if _is_log(panel) else x
        step = round(1e6 * x)
        values: Mapping[str, float | None] = {x_key: x, value_key: m.quantity.value, expected_key: m.quantity.expected}
        points += [(name, value, step) for name, value in values.items() if value is not None]
    return points
