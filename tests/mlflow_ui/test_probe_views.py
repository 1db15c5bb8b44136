"""What MLflow's UI is told to show of a probe: charts whose every curve is there, few enough runs, and columns in order."""

import itertools
from typing import Any

import pytest

from lrscale.mlflow_ui.probe_views import hidden_metrics, probe_points, probe_view
from lrscale.mlflow_ui.saved_views import LIMIT
from lrscale.report.figures.palette import shades
from lrscale.study.answer import Answer
from lrscale.study.families import Measurement
from lrscale.study.records import TrialRecord
from lrscale.training.quantity import Quantity
from tests.studies import make_record, probe_cell

CLAIM = {"name": "it grows", "measure": "slope_of", "quantity": "after", "against": "probe.fraction", "at_least": 0}


def answered(axes: dict[str, list[Any]]) -> Answer:
    each = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    cells = tuple(probe_cell(f"c{i}", scientific) for i, scientific in enumerate(each))
    found = [
        Measurement(cell, Quantity(name, 2.0 ** (i % 9), expected=2.0 if name == "after" else None))
        for i, cell in enumerate(cells)
        for name in ("before", "after")
    ]
    return Answer(make_record(cells, claims=[CLAIM]), (), tuple(found), (), ())


def trials_of(found: Answer) -> list[TrialRecord]:
    return [TrialRecord(f"run {cell.id} {n}", cell.id, n, {}, (), (), None) for cell in found.plan.cells for n in (0, 1)]


AXES = [
    {"task": ["x", "y"], "batch_size": [4, 16, 64], "probe.fraction": [0, 0.1, 1]},
    {"probe.optimizer": ["a", "b"], "batch_size": [10, 16]},
    {"batch_size": list(range(1, 301))},
]


@pytest.mark.parametrize("axes", AXES)
def test_every_curve_of_a_chart_is_carried_and_all_other_metrics_are_hidden(axes: dict[str, list[Any]]) -> None:
    found = answered(axes)
    shown = probe_points(found, trials_of(found))
    carried = {name for each in shown.values() for name, _, _ in each.points}
    charts = [chart for section in probe_view(found).sections for chart in section.charts]
    drawn = {name for chart in charts for name in (*chart.y, *([chart.x] if not chart.bars else []))}
    assert charts and all(chart.bars for chart in charts) == ("probe.optimizer" in axes)
    assert drawn <= (carried if not charts[0].bars else {"before", "after"})
    assert carried | {"before", "after", "after.expected"} <= {*hidden_metrics(found), "place"}
    assert len(shown) == min(len(found.plan.cells), LIMIT - 1) and all(run.endswith(" 1") for run in shown)


def test_a_lines_curve_goes_along_the_axis_below_and_has_its_colour() -> None:
    found = answered(AXES[0])
    shown = probe_points(found, trials_of(found))
    first = shown["run c0 1"]
    assert [(x, step) for name, x, step in first.points if name == "probe.fraction"] == [(0, 0), (0.1, 100_000), (1, 10**6)]
    assert [value for name, value, _ in first.points if name == "measured after - x"] == [1, 2, 4]
    assert [value for name, value, _ in first.points if name == "expected after - x"] == [2, 2, 2]
    assert [shown[f"run c{i} 1"].colour for i in (0, 3, 6, 9)] == [*shades([4, 16, 64]).values(), shades([4, 16])[4]]


def test_columns_are_in_the_studys_order_and_claims_come_first_in_charts() -> None:
    view = probe_view(answered(AXES[0]))
    assert list(view.columns) == [
        "params.task", "params.batch_size", "params.probe.fraction", "metrics.before", "metrics.after", "metrics.after.expected"
    ]  # fmt: skip
    assert [section.title for section in view.sections] == [
        "Measured, expected against probe.fraction", "Measured, expected against log10 batch size"
    ]  # fmt: skip
    assert view.sections[0].charts[0].y == ("measured after - x", "expected after - x")
