"""What MLflow's UI shows of a probe: a row a cell, and each quantity's curves, which the first cell of a line carries."""

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
    """What a cell's trial carries: points of its metrics, and its colour; None leaves the one it has."""

    points: list[Point]
    colour: str | None


def probe_view(found: Answer) -> View:
    """The view of a probe: its axes and quantities in columns, in the study's order, and charts by the axis below."""
    names = list(found.plan.cells[0].scientific)
    known = {m.quantity.name for m in found.measurements if m.quantity.expected is not None}
    columns = {f"params.{name}": 60 + 7 * len(name) for name in names}
    for name in dict.fromkeys(m.quantity.name for m in found.measurements):
        columns[f"metrics.{name}"] = 45 + 7 * len(name)
        columns |= {f"metrics.{name}.expected": 115 + 7 * len(name)} if name in known else {}
    return View(SUMMARY, "Study summary", BEST_TRIALS, "metrics.place", True, columns, _sections(plan_of(found)))


def plan_of(found: Answer) -> Layout:
    """The layout of a study's quantities, those first on which there are claims."""
    claims = [claim for claim in found.plan.claims if "quantity" in claim]
    order = list(dict.fromkeys([c["quantity"] for c in claims] + [m.quantity.name for m in found.measurements]))
    ordered = sorted(found.measurements, key=lambda m: order.index(m.quantity.name))
    return layout(ordered, {c["quantity"]: c["against"] for c in claims if "against" in c})


def hidden_metrics(found: Answer) -> list[str]:
    """A probe's metrics of which MLflow would draw a chart each."""
    plan = plan_of(found)
    names = [name for m in found.measurements for name in (m.quantity.name, f"{m.quantity.name}.expected")]
    return list(
        dict.fromkeys([*names, *(_below(panel)[0] for panel in plan.panels), *(k for p in plan.panels for k in _keys(p))])
    )


def _sections(plan: Layout) -> tuple[Section, ...]:
    """A section for each axis that lies below quantities; bars, one a cell, of those that have none."""
    charts: dict[str, list[Chart]] = {}
    for panel in plan.panels:
        x, words = _below(panel)
        if panel.axis is None:
            charts.setdefault(words, []).append(Chart((panel.quantity,), bars=True))
        else:
            same = [m for p in plan.panels if p.quantity == panel.quantity for m in p.found]
            keys = _keys(panel)[: 2 if any(m.quantity.expected is not None for m in panel.found) else 1]
            charts.setdefault(words, []).append(Chart(tuple(keys), x, log=logarithmic(same)))
    return tuple(Section(words, tuple(each)) for words, each in charts.items())


def _below(panel: Panel) -> tuple[str, str]:
    """The metric that lies below a panel, and what its section is called."""
    if panel.axis is None:
        return key("curve", "none"), "Measured in each cell"
    name = f"log10 {panel.axis}" if _is_log(panel) else panel.axis
    return key("curve", name), f"Measured, expected against {name}"


def _is_log(panel: Panel) -> bool:
    x = [float(m.cell.scientific[panel.axis]) for m in panel.found] if panel.axis else []
    return bool(x) and min(x) > 0 and max(x) >= 2 * min(x)


def _keys(panel: Panel) -> list[str]:
    of = [] if panel.part is None else [str(panel.part)]
    return [key("curve", panel.quantity, *of), key("curve", f"{panel.quantity} expected", *of)]


def probe_points(found: Answer, trials: Sequence[TrialRecord]) -> dict[str, Shown]:
    """Places, curves and colours by the run id of each cell's last trial; fewer than LIMIT, so that all are loaded."""
    last = {trial.cell: trial.run_id for trial in sorted(trials, key=lambda t: t.number)}
    cells = [cell.id for cell in found.plan.cells if cell.id in last][: LIMIT - 1]
    plan = plan_of(found)
    lines = list(dict.fromkeys((line.colour, line.marks) for panel in plan.panels for line in panel.lines if panel.axis))
    named = [line for line in lines if line[0] in plan.colours] or lines
    paint = shades(sorted(named, key=lambda line: plan.colours.index(line[0]) if plan.colours else 0))
    points: dict[str, list[Point]] = {id: [("place", float(i), 0)] for i, id in enumerate(cells, start=1)}
    colours: dict[str, str] = {}
    for panel in plan.panels:
        for line in panel.lines if panel.axis else ():
            first = next((m.cell.id for m in line.found if m.cell.id in points), None)
            if first is not None:
                points[first] += _curve(panel, line.found)
            for m in line.found:
                colours |= {m.cell.id: paint[line.colour, line.marks]} if (line.colour, line.marks) in paint else {}
    return {last[id]: Shown(list(dict.fromkeys(each)), colours.get(id)) for id, each in points.items()}


def _curve(panel: Panel, found: Sequence[Measurement]) -> list[Point]:
    """A line's values over what lies below, in steps that name it: a study that goes on adds to them."""
    x_key, (value_key, expected_key) = _below(panel)[0], _keys(panel)
    points: list[Point] = []
    for m in found:
        x = float(m.cell.scientific[panel.axis or ""])
        x = math.log10(x) if _is_log(panel) else x
        step = round(1e6 * x)
        values: Mapping[str, float | None] = {x_key: x, value_key: m.quantity.value, expected_key: m.quantity.expected}
        points += [(name, value, step) for name, value in values.items() if value is not None]
    return points
