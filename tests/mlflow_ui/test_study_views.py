"""What MLflow's UI is told to show: views small enough to be loaded at once, and notes that respect a user's words."""

import base64
import io
import json
import random
import re
import zlib
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from lrscale.files import as_yaml
from lrscale.mlflow_ui.notes import study_note
from lrscale.mlflow_ui.publish import note_tags
from lrscale.mlflow_ui.saved_views import LIMIT, Point, bound, tags
from lrscale.mlflow_ui.study_views import LOG_LR, cell_points, study_points, views
from lrscale.report.csv import as_csv
from lrscale.report.figures.interactive import _tick_distance, figure, program
from lrscale.report.figures.palette import colours
from lrscale.report.text import show
from lrscale.study.answer import answer
from lrscale.study.plan import Cell, TunedInterval
from lrscale.study.records import StudyRecord, TrialRecord
from lrscale.study.statements import laws
from lrscale.tracking.schema import NOTE, NOTE_WRITTEN
from lrscale.tracking.trial_note import escape_markdown
from tests.studies import make_record

CONFIG: dict[str, Any] = {
    "reduction": "mean", "batch_size": 4, "accumulation": 1, "drop_last": True, "seeds": 2, "points": 3,
    "objective": "excess_risk", "dtype": "float64", "task": {"name": "d2l"}, "budget": {"epochs": 1},
    "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False},
}  # fmt: skip


def study(sizes: list[int]) -> StudyRecord:
    cells = []
    for reduction in ("mean", "sum"):
        for size in sizes:
            scientific = {"reduction": reduction, "batch_size": size}
            cells.append(Cell(f"{reduction}{size}", f"{reduction} b{size}", scientific, {**CONFIG, **scientific}))
    return make_record(cells, study="mine", question="Why?", n_trials=9, intervals=WIDE, command="lrscale run -m sweeps=mine")


WIDE = {"optimizer.lr": TunedInterval(1e-9, 1e9, True)}


def trials_of(record: StudyRecord, count: int) -> list[TrialRecord]:
    """Parabolas in log lr, the two largest lrs diverged."""
    made = []
    for cell in record.plan.cells:
        for i in range(count):
            gone = i >= count - 2
            value = float("inf") if gone else 1e-3 * (1 + (i - count / 3) ** 2)
            lr = 2.0 ** (i / 4 - 8)
            run, params = f"{cell.id}-{i}", {"optimizer.lr": lr}
            made.append(TrialRecord(run, cell.id, i, params, (value, 1.01 * value), (gone, gone), None))
    return made


@pytest.mark.parametrize("count", [9, 40])
def test_no_view_shows_more_runs_than_mlflow_loads(count: int) -> None:
    record = study([1, 4, 16, 64, 256])
    trials = trials_of(record, count)
    menu = views(answer(record, trials), trials)
    names = [view.name for view in menu]
    assert names[:2] == ["Study summary", "Best trial of each cell"]
    assert [name.split(",")[0] for name in names[2:4]] == ["Trials with sum", "Trials with mean"]
    assert names[4].startswith("Diverged trials") and names[5] in ("All trials", "First 10 trials of each cell")
    queries = {view.id: view.filter for view in menu}
    shown = len([t for t in trials if t.cell.startswith("sum")])
    if shown > LIMIT:
        limit = float(queries["lrscale-trials-sum"].rsplit("<= ", 1)[1])
        objectives = [float(f"{sum(t.objectives) / 2:.4g}") for t in trials if t.cell.startswith("sum")]
        assert 0 < sum(o <= limit for o in objectives) <= LIMIT
        first = int(queries["lrscale-all"].rsplit("< ", 1)[1])
        assert 0 < sum(t.number < first for t in trials) <= LIMIT
    else:
        assert "<=" not in queries["lrscale-trials-sum"]


def test_the_bound_of_a_view_keeps_the_least_whatever_the_ties() -> None:
    random.seed(1)
    for _ in range(200):
        values = [float(random.randrange(random.choice([3, 60, 900]))) for _ in range(random.randrange(90, 400))]
        limit = bound(values)
        kept = [v for v in values if limit is None or v <= limit]
        assert len(kept) <= LIMIT and kept == [v for v in values if v <= max(kept, default=-1)]


def test_a_view_is_a_tag_that_mlflow_can_unpack_and_sizes_fit() -> None:
    record = study([1, 4, 16])
    trials = trials_of(record, 9)
    menu = views(answer(record, trials), trials)
    saved = tags(menu, ["seeds"], 1000)
    assert all(len(value) < 20_000 for value in saved.values())
    times = []
    for text in saved.values():
        entry = json.loads(text)
        times.append(entry["updatedAt"])
        state = json.loads(zlib.decompress(base64.b64decode(entry["state"].removeprefix("deflate;"))))
        assert {card["metricSectionId"] for card in state["compareRunCharts"] if not card["deleted"]} <= {
            section["uuid"] for section in state["compareRunSections"]
        }
        assert all(len(section["name"]) < 50 for section in state["compareRunSections"])
        assert set(state["columnWidths"]) == set(state["columnOrder"])
    assert times == sorted(times, reverse=True)  # the menu lists the newest first


def test_a_cells_curve_keeps_its_points_when_the_study_goes_on() -> None:
    record = study([1, 4])
    few, more = trials_of(record, 8), trials_of(record, 8) + trials_of(study([2]), 8)
    assert cell_points(answer(record, few)) == cell_points(answer(record, more))
    for points in cell_points(answer(record, few)).values():
        assert _steps(points, LOG_LR) == (_steps(points, "objective under mean") or _steps(points, "objective under sum"))
    steps = [_steps(study_points(answer(record, few)), f"objective under {reduction}") for reduction in ("mean", "sum")]
    assert [[step % 10**9 for step in each] for each in steps] == [[1, 4], [1, 4]]
    assert _steps(study_points(answer(record, few)), LOG_LR) == steps[0] + steps[1]


def _steps(points: list[Point], key: str) -> list[int]:
    return [step for name, _, step in points if name == key]


def test_a_note_is_rewritten_until_a_user_edits_it() -> None:
    first = note_tags("one", {})
    assert first[NOTE] == "one"
    second = note_tags("two", first)
    assert second[NOTE] == "two" and second[NOTE_WRITTEN] != first[NOTE_WRITTEN]
    assert note_tags("three", {**second, NOTE: "two, and mine"}) == {}
    assert note_tags("three", {NOTE: "mine alone"}) == {}


def test_the_notes_first_line_is_the_answer_and_every_view_is_linked() -> None:
    record = study([1, 4, 16])
    trials = trials_of(record, 9)
    found = answer(record, trials)
    menu = views(found, trials)
    note = study_note(found, menu, ["figures/a b.png"])
    assert note.startswith("[Summary:] lr_sum∗ = lr_mean∗ x c^")
    address = r"/#/experiments/\w+/runs\?workflowType=machine_learning&viewStateShareKey=lrscale-summary&"
    assert re.search(rf"\n\[Summary:\]: {address}", note)
    assert all(f"viewStateShareKey={view.id}" in note for view in menu)
    assert "![a b.png](get-artifact?path=figures%2Fa%20b.png&run_uuid=parent)" in note
    assert record.plan.command in note and len(note) < 8000


def test_a_study_of_many_families_has_a_note_that_mlflow_takes() -> None:
    one = study([1, 4])
    cells = []
    for i in range(60):
        for cell in one.plan.cells:
            optimizer = {**CONFIG["optimizer"], "weight_decay": i / 1000}
            scientific = {"optimizer.weight_decay": i / 1000, **cell.scientific}
            cells.append(Cell(f"{cell.id}{i}", f"{i} {cell.label}", scientific, {**cell.config, "optimizer": optimizer}))
    record = replace(one, plan=replace(one.plan, cells=tuple(cells), command="lrscale run -m " + 9900 * "x"))
    trials = trials_of(record, 9)
    found = answer(record, trials)
    figures = [f"figures/objective_against_lr_{i}.png" for i in range(1, 61)]
    note = study_note(found, views(found, trials), figures)
    assert len(note) < 20_000  # characters: MAX_EXPERIMENT_TAG_VAL_LENGTH of MLflow
    assert note.splitlines()[0].endswith("and 40 more in the report") and record.plan.command in note

    bare = answer(record, [trial for trial in trials if trial.cell.startswith("mean")])
    assert laws(bare) == [
        "How lr_sum*/lr_mean* goes with c (weight_decay 0.0, weight_decay 0.001, weight_decay 0.002 and 57 more), "
        "this study cannot tell: some cells have no trials; run the study to its end."
    ]


@pytest.mark.parametrize("width", [50, 60, 80, 140])
def test_lrs_that_are_cells_are_not_tuned_and_the_table_says_so_in_full(width: int) -> None:
    record, said = study([1, 512]), io.StringIO()
    record = replace(record, plan=replace(record.plan, intervals={}))
    fixed = [replace(trial, params={}) for trial in trials_of(record, 3) if trial.number == 0]
    show(answer(record, fixed), Console(file=said, width=width))
    text = said.getvalue()
    assert text.count("not tuned") == 5 and "mean b512" in text and "…" not in text
    assert "'optimizer.lr=tag(log,interval(1e-4,1))'" in text
    assert max(map(len, text.splitlines())) <= width


def test_a_config_reads_as_yaml() -> None:
    assert as_yaml({"a": 1, "b": {"c": True, "d": None}}) == "a: 1\nb:\n  c: true\n  d: null"
    assert escape_markdown("a_b* _c_") == "a_b∗ \\_c\\_"


def test_the_figure_to_point_at_is_whole_and_works_offline() -> None:
    record = study([1, 4, 16])
    found = answer(record, trials_of(record, 9))
    data, layout = figure(found)
    lines = [trace for trace in data if trace["mode"] == "lines+markers"]
    assert len(lines) == len(record.plan.cells)
    assert {trace["line"]["color"] for trace in lines} == set(colours([1, 4, 16]).values())
    assert [t["name"] for t in lines if t["showlegend"]] == ["B = 1", "B = 4", "B = 16"]
    crosses = [trace for trace in data if trace.get("marker", {}).get("symbol") == "x"]
    assert all(len(trace["x"]) == 2 for trace in crosses)
    for trace in data:
        assert f"xaxis{trace['xaxis'].removeprefix('x')}" in layout
    assert "Plotly.newPlot" in program(found)
    decades = [_tick_distance([1e-3, 10.0**power]) for power in (-2.5, 0, 2, 3, 17)]
    assert decades == ["D2", 1, 1, 2, 4] and _tick_distance([]) == "D2"
    assert "<script" not in as_csv([{"label": "a", "lr_best_ci": None}])
