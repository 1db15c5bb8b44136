"""Makes the saved views of MLflow's UI. A view opens with its own runs, columns, order and charts.

MLflow keeps a view as one tag of the experiment, in a format that is internal to its UI. Only this module knows the format.
MLflow ignores unknown keys without a message, so a test opens every view in a browser (`tests/mlflow_ui/test_browser.py`).
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
"""The largest number of runs in a view. MLflow loads no more at first, and draws only runs that are loaded."""
SUMMARY = "lrscale-summary"
"""The id of the view that a study opens with."""
RUN_NAME = "attributes.`Run Name`"
"""The id of the column with the names of runs."""
TRIALS = f"tags.`{KIND}` = 'trial'"
"""Filter: all trials."""
BEST = f"tags.`{IN_SUMMARY}` = 'yes'"
"""Filter: the runs that the summary shows, which are the parent run and the best trial of each cell."""
BEST_TRIALS = f"{TRIALS} and {BEST}"
"""Filter: the best trial of each cell, without the parent run."""
Point = tuple[str, float, int]
"""The name of a metric, its value, and its step."""


@dataclass(frozen=True)
class Chart:
    """A chart of the metrics `y`. MLflow writes the names of the metrics as its title.

    Without `points` and `bars`, it has lines over `x`, which is `step` or the name of a metric. With `points`, it has
    points over the metric `x`. With `bars`, it has one bar for each run. `log`: whether the y axis of lines is logarithmic.
    With `is_image`, it shows the images with the key `y` of all runs that have one.
    """

    y: tuple[str, ...]
    x: str = "step"
    log: bool = True
    points: bool = False
    bars: bool = False
    is_image: bool = False


@dataclass(frozen=True)
class Section:
    """A section of charts with a title. MLflow shows the first 50 characters of the title.

    `columns` is the number of charts in a row, and `height` is the height of a chart in pixels.
    """

    title: str
    charts: tuple[Chart, ...]
    columns: int = 2
    height: int = 340


@dataclass(frozen=True)
class View:
    """A saved view.

    `columns` holds the width of each column in pixels, by its name, such as `metrics.objective`. `filter` selects the runs,
    and `order` is the name of the column that sorts them.
    """

    id: str
    name: str
    filter: str
    order: str
    ascending: bool
    columns: Mapping[str, int]
    sections: tuple[Section, ...]


def column(name: str) -> str:
    """Returns the id that MLflow gives to a column. The column `metrics.objective` has the id metrics.`objective`."""
    kind, _, key = name.partition(".")
    return f"{kind}.`{key}`"


def key(*parts: str) -> str:
    """Returns the name of a metric: its parts that are not empty, joined by `/`, with only characters that MLflow accepts.

    Example:
      >>> key("curve", "", "a=b expected")
      'curve/a_b expected'
    """
    return "/".join("".join(c if c.isalnum() or c in "_-. " else "_" for c in part) for part in parts if part)


def tags(views: Sequence[View], hidden: Sequence[str], now: int) -> dict[str, str]:
    """Returns the tags of an experiment that hold its saved views. MLflow's menu lists the views in the given order.

    Args:
      views: the views; each has at most LIMIT runs.
      hidden: the metrics for which MLflow must not draw a chart that no view asks for.
      now: the present time, in milliseconds since 1970.
    """
    return {
        SAVED_VIEW + view.id: json.dumps(
            {"name": f"{i + 1} · {view.name}", "createdAt": now - i, "updatedAt": now - i, "state": _packed(_state(view, hidden))}
        )
        for i, view in enumerate(views)
    }


def link(experiment: str, view: str, charts: bool) -> str:
    """Returns the link to a view, without the address of the server.

    Args:
      experiment: the id of the experiment.
      view: the id of the view.
      charts: whether the link opens the charts instead of the table of runs.
    """
    mode = "&compareRunsMode=CHART" if charts else ""
    return f"/#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={view}{mode}"


def bound(values: Sequence[float]) -> float | None:
    """Returns a bound with as many values below it as possible, but at most LIMIT. Equal values are all below it or none.

    It is None for at most LIMIT values, because then no bound is needed. Where the least value alone occurs more than LIMIT
    times, the bound is below all values.

    Example:
      >>> bound([1.0, 2.0, 3.0]), bound(list(range(200)))
      (None, 99.5)
    """
    if len(values) <= LIMIT:
        return None
    ordered = sorted(values)
    count = next((i for i in range(LIMIT, 0, -1) if ordered[i - 1] < ordered[i]), 0)
    return (ordered[count - 1] + ordered[count]) / 2 if count else math.nextafter(ordered[0], -math.inf)


def _state(view: View, hidden: Sequence[str]) -> dict[str, Any]:
    """Returns a view in the format of MLflow's UI. Each metric in `hidden` that no chart of the view shows is hidden."""
    columns = [column(name) for name in view.columns]
    charts = [(i, chart) for i, section in enumerate(view.sections) for chart in section.charts]
    metrics_shown = {metric for _, chart in charts for metric in chart.y}
    cards = [_card(chart, i, section) for i, (section, chart) in enumerate(charts)]
    cards += [_hidden_card(metric) for metric in hidden if metric not in metrics_shown]
    sections = [
        {"uuid": f"s{i}", "name": section.title, "columns": section.columns, "cardHeight": section.height, **SECTION_STATE}
        for i, section in enumerate(view.sections)
    ]
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


SECTION_STATE = {"display": True, "isReordered": True, "deleted": False, "isGenerated": False}
"""What all sections have in common, in the format of MLflow's UI. `display` means that a section is unfolded."""


def _card(chart: Chart, number: int, section: int) -> dict[str, Any]:
    """Returns a chart in the format of MLflow's UI.

    Args:
      chart: the chart.
      number: the number of the chart in the view.
      section: the number of its section.
    """
    shared = {"uuid": f"c{number}", "metricSectionId": f"s{section}", "deleted": False, "isGenerated": False}
    shared["runsCountToCompare"] = LIMIT
    if chart.is_image:
        return {**shared, "type": "IMAGE", "imageKeys": list(chart.y), "step": 0, "showRunParams": False}
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


def _axis(metric: str) -> dict[str, str]:
    """Returns the axis of a chart with points, in the format of MLflow's UI."""
    return {"key": metric, "type": "METRIC", "dataAccessKey": metric}


def _hidden_card(metric: str) -> dict[str, Any]:
    """Returns the bar chart that MLflow would add by itself for a metric, marked as deleted."""
    card = {"uuid": f"hidden {metric}", "type": "BAR", "metricKey": metric, "metricSectionId": "s0"}
    return {**card, "dataAccessKey": metric, "deleted": True, "isGenerated": True, "runsCountToCompare": LIMIT}


def _packed(state: Mapping[str, Any]) -> str:
    """Returns the state of a view as compressed text, as MLflow's UI stores it."""
    return "deflate;" + base64.b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()
