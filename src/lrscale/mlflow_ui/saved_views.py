"""The saved views of MLflow's UI: which runs, columns, order and charts each of them opens with.

MLflow keeps a view as one tag of the experiment, in a format that is internal to its UI; only this module knows it.
MLflow silently ignores unknown keys, so a test opens every view in a browser.
"""

import base64
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lrscale.tracking.schema import IN_SUMMARY, KIND, SAVED_VIEW

LIMIT = 100
"""Largest number of runs in a view: MLflow loads no more at first, and draws only loaded runs."""
SUMMARY = "lrscale-summary"
"""The id of the view with which a study opens."""
RUN_NAME = "attributes.`Run Name`"
TRIALS = f"tags.`{KIND}` = 'trial'"
BEST = f"tags.`{IN_SUMMARY}` = 'yes'"
BEST_TRIALS = f"{TRIALS} and {BEST}"
"""Filters: all trials; what the summary shows; without the parent run."""
Point = tuple[str, float, int]
"""A metric, its value and its step."""


@dataclass(frozen=True)
class Chart:
    """A chart of metrics `y`: lines over the step or another metric `x`; points over `x`; or one bar a run.

    MLflow titles it with its metrics.
    """

    y: tuple[str, ...]
    x: str = "step"
    log: bool = True
    points: bool = False
    bars: bool = False


@dataclass(frozen=True)
class Section:
    """Charts under a title, two in a row. MLflow shows 50 characters of the title."""

    title: str
    charts: tuple[Chart, ...]


@dataclass(frozen=True)
class View:
    """A saved view. `columns`: widths in pixels by name, as in `metrics.objective`; `order`: the name that sorts the runs."""

    id: str
    name: str
    filter: str
    order: str
    ascending: bool
    columns: Mapping[str, int]
    sections: tuple[Section, ...]


def column(name: str) -> str:
    """Returns a column's id, as in metrics.`objective`."""
    kind, _, key = name.partition(".")
    return f"{kind}.`{key}`"


def key(*parts: str) -> str:
    """Returns a metric's name, with characters that MLflow accepts."""
    return "/".join("".join(c if c.isalnum() or c in "_-. " else "_" for c in part) for part in parts if part)


def tags(views: Sequence[View], hidden: Sequence[str], now: int) -> dict[str, str]:
    """Returns the experiment's tags that hold the views; MLflow's menu lists them in the given order.

    Args:
      views: at most LIMIT runs each.
      hidden: metrics that get no chart of their own.
      now: milliseconds.
    """
    return {
        SAVED_VIEW + view.id: json.dumps(
            {"name": f"{i + 1} · {view.name}", "createdAt": now - i, "updatedAt": now - i, "state": _packed(_state(view, hidden))}
        )
        for i, view in enumerate(views)
    }


def link(experiment: str, view: str, charts: bool) -> str:
    """Returns the part of a view's link that follows the server's address."""
    mode = "&compareRunsMode=CHART" if charts else ""
    return f"/#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={view}{mode}"


def bound(values: Sequence[float]) -> float | None:
    """Returns the largest bound with at most LIMIT values at or below it, to four digits; None where all values fit.

    Example:
      >>> bound([1.0, 2.0, 3.0]), bound(list(range(200)))
      (None, 99.5)
    """
    if len(values) <= LIMIT:
        return None
    ordered = sorted(values)
    kept = next((i for i in range(LIMIT, 0, -1) if ordered[i - 1] < ordered[i]), 0)
    return (ordered[kept - 1] + ordered[kept]) / 2 if kept else math.nextafter(ordered[0], -math.inf)


def _state(view: View, hidden: Sequence[str]) -> dict[str, Any]:
    columns = [column(name) for name in view.columns]
    placed = [(i, chart) for i, section in enumerate(view.sections) for chart in section.charts]
    named = {key for _, chart in placed for key in chart.y}
    cards = [_card(chart, place, section) for place, (section, chart) in enumerate(placed)]
    cards += [_hidden(key) for key in hidden if key not in named]
    sections = [{"uuid": f"s{i}", "name": section.title, **OPEN} for i, section in enumerate(view.sections)]
    return {
        "searchFilter": view.filter,
        "orderByKey": column(view.order),
        "orderByAsc": view.ascending,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": [RUN_NAME, *columns],
        "columnWidths": {RUN_NAME: 210, **dict(zip(columns, view.columns.values(), strict=True))},
        "runsHiddenMode": "SHOWALL",
        "compareRunCharts": cards,
        "compareRunSections": sections,
        "isAccordionReordered": True,
        "groupBy": None,
        "groupsExpanded": {},
        "useGroupedValuesInCharts": False,
        "hideEmptyCharts": True,
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
        "chartsSearchFilter": "",
        "viewMaximized": False,
        "runListHidden": False,
    }


OPEN = {"columns": 2, "cardHeight": 340, "display": True, "isReordered": True, "deleted": False, "isGenerated": False}


def _card(chart: Chart, place: int, section: int) -> dict[str, Any]:
    shared = {"uuid": f"c{place}", "metricSectionId": f"s{section}", "deleted": False, "isGenerated": False}
    shared["runsCountToCompare"] = LIMIT
    if chart.points:
        return {**shared, "type": "SCATTER", "xaxis": _axis(chart.x), "yaxis": _axis(chart.y[0])}
    if chart.bars:
        return {**shared, "type": "BAR", "metricKey": chart.y[0], "dataAccessKey": chart.y[0]}
    return {
        **shared,
        "type": "LINE",
        "metricKey": chart.y[0],
        "selectedMetricKeys": list(chart.y),
        "scaleType": "log" if chart.log else "linear",
        "xAxisScaleType": "linear",
        "xAxisKey": "step" if chart.x == "step" else "metric",
        "selectedXAxisMetricKey": "" if chart.x == "step" else chart.x,
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "lineSmoothness": 0,
        "range": {},
        "useGlobalXaxisKey": False,
        "useGlobalLineSmoothing": False,
        "ignoreOutliers": False,
        "displayPoints": chart.x != "step",
    }


def _axis(key: str) -> dict[str, str]:
    return {"key": key, "type": "METRIC", "dataAccessKey": key}


def _hidden(key: str) -> dict[str, Any]:
    """Returns the card of a chart that MLflow would add by itself, marked as deleted."""
    card = {"uuid": f"hidden {key}", "type": "BAR", "metricKey": key, "metricSectionId": "s0"}
    return {**card, "dataAccessKey": key, "deleted": True, "isGenerated": True, "runsCountToCompare": LIMIT}


def _packed(state: Mapping[str, Any]) -> str:
    return "deflate;" + base64.b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()
