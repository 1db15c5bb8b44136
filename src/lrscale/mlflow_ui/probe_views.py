"""The saved view of a probe: one row a cell, and each quantity's curves, which the first cell of a line carries."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lrscale.mlflow_ui.saved_views import BEST_TRIALS, LIMIT, SUMMARY, Chart, Point, Section, View, key
from lrscale.report.figures.layout import Layout, Panel, layout, logarithmic
from lrscale.report.figures.palette import shades
from lrscale.study.answer import Answer
from lrscale.study.families import Measurement
from lrscale.study.records import TrialRecord


class Shown(NamedTuple):
    """What is added to a trial's run: points of metrics, and a colour; None keeps the run's colour."""

    points: list[Point]
    colour: str | None


def probe_view(answer: Answer) -> View:
    """Returns the view of a probe: columns for its axes and quantities, in the study's order, and charts by x axis."""
    names = list(answer.plan.cells[0].scientific)
    known = {m.quantity.name for m in answer.measurements if m.quantity.expected is not None}
    columns = {f"params.{name}": 60 + 7 * len(name) for name in names}
    for name in dict.fromkeys(m.quantity.name for m in answer.measurements):
        columns[f"metrics.{name}"] = 45 + 7 * len(name)
        columns |= {f"metrics.{name}.expected": 115 + 7 * len(name)} if name in known else {}
    return View(SUMMARY, "Study summary", BEST_TRIALS, "metrics.place", True, columns, _sections(plan_of(answer)))


def plan_of(answer: Answer) -> Layout:
    """Returns the layout of a study's quantities; those with claims come first."""
    claims = [claim for claim in answer.plan.claims if "quantity" in claim]
    order = list(dict.fromkeys([c["quantity"] for c in claims] + [m.quantity.name for m in answer.measurements]))
    ordered = sorted(answer.measurements, key=lambda m: order.index(m.quantity.name))
    return layout(ordered, {c["quantity"]: c["against"] for c in claims if "against" in c})


def hidden_metrics(answer: Answer) -> list[str]:
    """Returns a probe's metrics for which MLflow would draw a chart by itself."""
    plan = plan_of(answer)
    names = [name for m in answer.measurements for name in (m.quantity.name, f"{m.quantity.name}.expected")]
    return list(
        dict.fromkeys([*names, *(_x_axis(panel)[0] for panel in plan.panels), *(k for p in plan.panels for k in _keys(p))])
    )


def _sections(plan: Layout) -> tuple[Section, ...]:
    """Returns a section for each x axis, and one with bars, one a cell, for quantities without an x axis."""
    charts: dict[str, list[Chart]] = {}
    for panel in plan.panels:
        x, words = _x_axis(panel)
        if panel.axis is None:
            charts.setdefault(words, []).append(Chart((panel.quantity,), bars=True))
        else:
            same = [m for p in plan.panels if p.quantity == panel.quantity for m in p.measurements]
            keys = _keys(panel)[: 2 if any(m.quantity.expected is not None for m in panel.measurements) else 1]
            charts.setdefault(words, []).append(Chart(tuple(keys), x, log=logarithmic(same)))
    return tuple(Section(words, tuple(each)) for words, each in charts.items())


def _x_axis(panel: Panel) -> tuple[str, str]:
    """Returns the metric on a panel's x axis, and the title of its section."""
    if panel.axis is None:
        return key("curve", "none"), "Measured in each cell"
    name = f"log10 {panel.axis}" if _is_log(panel) else panel.axis
    return key("curve", name), f"Measured, expected against {name}"


def _is_log(panel: Panel) -> bool:
    x = [float(m.cell.scientific[panel.axis]) for m in panel.measurements] if panel.axis else []
    return bool(x) and min(x) > 0 and max(x) >= 2 * min(x)


def _keys(panel: Panel) -> list[str]:
    of = [] if panel.part is None else [str(panel.part)]
    return [key("curve", panel.quantity, *of), key("curve", f"{panel.quantity} expected", *of)]


def probe_points(answer: Answer, trials: Sequence[TrialRecord]) -> dict[str, Shown]:
    """Returns order, curves and colour by the run id of each cell's last trial: fewer than LIMIT, so that MLflow loads all."""
    last = {trial.cell: trial.run_id for trial in sorted(trials, key=lambda t: t.number)}
    cells = [cell.id for cell in answer.plan.cells if cell.id in last][: LIMIT - 1]
    plan = plan_of(answer)
    lines = list(dict.fromkeys((line.colour, line.marks) for panel in plan.panels for line in panel.lines if panel.axis))
    named = [line for line in lines if line[0] in plan.colours] or lines
    paint = shades(sorted(named, key=lambda line: plan.colours.index(line[0]) if plan.colours else 0))
    points: dict[str, list[Point]] = {id: [("place", float(i), 0)] for i, id in enumerate(cells, start=1)}
    colours: dict[str, str] = {}
    for panel in plan.panels:
        for line in panel.lines if panel.axis else ():
            first = next((m.cell.id for m in line.measurements if m.cell.id in points), None)
            if first is not None:
                points[first] += _curve(panel, line.measurements)
            for m in line.measurements:
                colours |= {m.cell.id: paint[line.colour, line.marks]} if (line.colour, line.marks) in paint else {}
    return {last[id]: Shown(list(dict.fromkeys(each)), colours.get(id)) for id, each in points.items()}


def _curve(panel: Panel, measurements: Sequence[Measurement]) -> list[Point]:
    """Returns a line's values over its x axis. The step is made from x, so that a continued study adds points."""
    x_key, (value_key, expected_key) = _x_axis(panel)[0], _keys(panel)
    points: list[Point] = []
    for m in measurements:
        x = float(m.cell.scientific[panel.axis or ""])
        x = math.log10(x) if _is_log(panel) else x
        step = round(1e6 * x)
        values: Mapping[str, float | None] = {x_key: x, value_key: m.quantity.value, expected_key: m.quantity.expected}
        points += [(name, value, step) for name, value in values.items() if value is not None]
    return points
