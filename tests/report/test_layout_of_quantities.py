"""How a probe's quantities are laid out: the axis below each, and what parts panels, lines, colours and marks."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
from matplotlib.figure import Figure

from lrscale.published.files import names
from lrscale.report.figures.bounds import BOUND_COLOUR
from lrscale.report.figures.curves import figure_files, power_of_ten
from lrscale.report.figures.layout import layout
from lrscale.report.figures.palette import colours, shades
from lrscale.report.figures.quantities import _title, quantities
from lrscale.study.answer import answer_of
from lrscale.study.families import Measurement
from lrscale.training.quantity import Quantity
from tests.redraw import RESULTS
from tests.redraw import answer_of as published_answer
from tests.studies import make_record, probe_cell


def measured(name: str, axes: dict[str, list[Any]], value: float = 1.0) -> list[Measurement]:
    cells = [dict(zip(axes, each, strict=True)) for each in itertools.product(*axes.values())]
    return [Measurement(probe_cell(str(c), c), Quantity(name, value + i)) for i, c in enumerate(cells)]


def drawn(found: list[Measurement]) -> list[str]:
    answer = answer_of(make_record(m.cell for m in found), (), tuple(found))
    return [axes.get_xlabel() for axes in quantities(answer).axes]


def test_the_widest_numeric_axis_lies_below_unless_a_claim_names_another() -> None:
    found = measured("a", {"batch_size": [64, 4, 16, 256], "probe.fraction": [0, 0.5, 1]})
    assert [layout(found, against).panels[0].axis for against in ({}, {"a": "probe.fraction"})] == [
        "batch_size",
        "probe.fraction",
    ]
    line = layout(found, {}).panels[0].lines[0]
    assert [m.cell.scientific["batch_size"] for m in line.measurements] == [4, 16, 64, 256]
    assert layout(found, {}).colours == (0, 0.5, 1)


def test_a_quantity_measured_at_one_batch_size_has_another_axis_below() -> None:
    axes = {"task.features": [2, 8, 32], "task.bias": [False, True], "batch_size": [1, 4, 16, 64]}
    edges = [m for name in ("one edge", "another", "their ratio") for m in measured(name, axes)]
    plan = layout(edges + measured("momentum", {**axes, "batch_size": [64]}), {})
    assert [panel.axis for panel in plan.panels] == ["batch_size"] * 3 + ["task.features"]
    assert (plan.colour, plan.mark) == ("task.features", ("task.bias",))
    assert [line.colour for line in plan.panels[3].lines] == [None, None]
    assert {line.marks for line in plan.panels[3].lines} == set(plan.marks) == {(False,), (True,)}


def test_few_quantities_have_panels_for_a_named_axis_and_each_measurement_is_in_one() -> None:
    found = measured("b", {"task": ["x", "y"], "batch_size": [4, 16], "probe.fraction": [0, 0.1, 1]})
    plan = layout(found, {})
    assert [panel.part for panel in plan.panels] == ["x", "y"] and plan.colour == "batch_size"
    assert sorted(id(m) for panel in plan.panels for m in panel.measurements) == sorted(map(id, found))
    assert drawn(found) == ["fraction of training done"] * 2


def test_small_fractions_are_not_crowded_beside_0() -> None:
    fractions = [0, 0.01, 0.03, 0.1, 0.3, 1]
    found = measured("b", {"probe.fraction": fractions})
    (axes,) = quantities(answer_of(make_record(m.cell for m in found), (), tuple(found))).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == [f"{fraction:g}" for fraction in fractions]
    left, right = axes.transData.transform([(0, 1), (1, 1)])[:, 0]
    places = axes.transData.transform([(fraction, 1) for fraction in fractions])[:, 0]
    assert min(b - a for a, b in itertools.pairwise(places)) > (right - left) / 10


def test_a_legend_of_long_entries_is_not_cut_off() -> None:
    axes = {"task.hidden": [16, 256], "optimizer.lr": [0.94, 1.43], "batch_size": [128, 512], "probe.fraction": [0, 0.1, 1]}
    found = [m for name in ("a", "b", "c") for m in measured(name, axes)]
    figure = quantities(answer_of(make_record(m.cell for m in found), (), tuple(found)))
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box, whole = legend.get_window_extent(), figure.bbox
    assert box.x0 >= whole.x0 and box.x1 <= whole.x1


def test_many_named_lines_are_rows() -> None:
    assert drawn(measured("p", {"probe.optimizer": list("abcdefghijklmno"), "probe.size": [1, 2, 3]})) == ["p"]
    assert drawn(measured("d", {"probe.optimizer": ["a", "b"], "batch_size": [10, 16]}, 0.0)) == ["d"]
    assert drawn(measured("alone", {"probe.optimizer": ["a"]})) == ["alone"]


def test_shades_are_the_batch_sizes_colours() -> None:
    assert shades([4, 16]) == colours([16, 4])


def test_every_axis_of_a_figure_has_a_name_and_two_ticks() -> None:
    found = [measured("exact", {"batch_size": [1, 4, 16, 64]}, 0.0), measured("wide", {"batch_size": [1, 4, 16]}, 1.0)]
    zeros = [m._replace(quantity=Quantity("zero", 0.0, expected=0.0)) for m in found[0]]
    answer = answer_of(make_record(m.cell for m in found[0]), (), tuple(zeros + found[1]))
    check_axes(quantities(answer))


def check_axes(figure: Figure, says_y: bool = True) -> None:
    """Every panel has names in words, and two ticks an axis; panels beside another may share its y axis."""
    figure.draw_without_rendering()
    for axes in figure.axes:
        assert axes.get_xlabel() and (axes.get_ylabel() or not says_y)
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            assert sum(low <= tick <= high for tick in axis.get_majorticklocs()) >= 2


@pytest.mark.parametrize("study", [name for name in names() if (RESULTS / name / "quantities.csv").exists()])
def test_published_figures_of_probes_have_names_in_words_and_ticks(study: str) -> None:
    answer = published_answer(study)
    figure = quantities(answer)
    check_axes(figure, says_y=False)
    said = {" ".join((axes.get_xlabel() + "\n" + axes.get_ylabel()).split()) for axes in figure.axes}
    for title in {" ".join(_title(m).split()) for m in answer.measurements}:
        assert " " in title and any(title in text for text in said)


def test_a_fit_is_drawn_where_a_claim_speaks_of_it() -> None:
    found = measured("v", {"batch_size": [1, 4, 16, 64]})
    claim = {"name": "it bends", "measure": "form_residual", "quantity": "v", "against": "batch_size", "at_most": 9}
    for claims in ([], [claim]):
        answer = answer_of(make_record((m.cell for m in found), claims=claims), (), tuple(found))
        dashed = [line for axes in quantities(answer).axes for line in axes.lines if line.get_linestyle() == "--"]
        assert len(dashed) == len(claims)


def test_the_name_of_the_study_is_written_and_ticks_are_plain_text() -> None:
    found = measured("v", {"batch_size": [1, 4, 16, 64]})
    answer = answer_of(make_record((m.cell for m in found), study="mine"), (), tuple(found))
    first, again = (quantities(answer) for _ in range(2))
    assert figure_files(first, "mine") == figure_files(again, "mine") and first.get_suptitle() == "mine"
    assert power_of_ten(1e-12) == "10\N{SUPERSCRIPT MINUS}\N{SUPERSCRIPT ONE}\N{SUPERSCRIPT TWO}"


def test_an_axis_of_lrs_does_not_make_a_small_difference_look_large() -> None:
    answer = answer_of(make_record(()), (), tuple(measured("momentum_edge", {"task.features": [2, 8, 32]}, 9.0)))
    (axes,) = quantities(answer).axes
    low, high = axes.get_ylim()
    assert axes.get_yscale() == "log" and high / low > 3.99


CROWD = {"task.hidden": [16, 256], "optimizer.lr": [0.94, 1.43], "batch_size": [128, 512], "probe.fraction": [0, 0.1, 1]}
"""The axes of a study with eight lines."""


def test_a_crowd_of_lines_is_split_in_panels_unless_expected_values_order_it() -> None:
    found = measured("v", CROWD)
    plan = layout(found, {})
    assert [panel.part for panel in plan.panels] == ["hidden = 16", "hidden = 256"] and plan.most_lines == 4
    assert sorted(id(m) for panel in plan.panels for m in panel.measurements) == sorted(map(id, found))
    ordered = [m._replace(quantity=replace(m.quantity, expected=m.quantity.value)) for m in found]
    assert len(layout(ordered, {}).panels) == 1
    assert len(layout([m for name in "abcd" for m in measured(name, CROWD)], {}).panels) == 4


def test_points_that_nothing_orders_are_joined_and_stand_apart() -> None:
    found = measured("v", {"batch_size": [128, 512], "probe.fraction": [0.1, 0.3, 1]})
    expected = [m._replace(quantity=replace(m.quantity, expected=1.0)) for m in found]
    for of_study, joins in ((found, True), (expected, False)):
        (axes,) = quantities(answer_of(make_record(m.cell for m in of_study), (), tuple(of_study))).axes
        axes.figure.draw_without_rendering()
        first, second = (container[0] for container in axes.containers)
        places = [line.get_transform().transform([(0.3, 2.0)])[0, 0] for line in (first, second)]
        assert (first.get_linestyle() == "-") == joins == (places[0] < places[1] - 2)
        low, high = axes.get_ylim()
        assert all(low < m.quantity.value < high for m in of_study)


def claim(**parts: Any) -> dict[str, Any]:
    return {"name": "bounded", "quantity": "v", "measure": "largest", **parts}


@pytest.mark.parametrize(
    ("claims", "words", "ends"),
    [
        ([claim(at_most=9)], "claim: ≤ 9", [(0, 1)]),
        ([claim(at_least=2)], "claim: largest ≥ 2", [(0, 1)]),
        ([claim(at_most=9, where={"batch_size": 4}), claim(at_most=9, where={"batch_size": 16})], "claim: ≤ 9", [(4, 16)]),
        ([claim(expected=2, tolerance=0.5, where={"batch_size": 4})], "claim: 2 ± 0.5", [(4, 4)]),
        ([claim(measure="least", at_least=1, at_most=3)], "claims: ≥ 1, least ≤ 3", [(0, 1), (0, 1)]),
        ([claim(measure="slope_of", against="batch_size", at_most=9)], "", []),
        ([claim(over="w", at_most=9)], "", []),
    ],
)
def test_the_bounds_of_claims_are_lines_over_the_cells_of_which_they_speak(
    claims: list[dict[str, Any]], words: str, ends: list[tuple[float, float]]
) -> None:
    found = measured("v", {"batch_size": [1, 4, 16, 64]})
    figure = quantities(answer_of(make_record((m.cell for m in found), claims=claims), (), tuple(found)))
    (axes,) = figure.axes
    lines = [line for line in axes.lines if line.get_color() == BOUND_COLOUR]
    assert [tuple(line.get_xdata()) for line in lines] == ends
    bounds = [float(word) for word in words.replace(",", "").split("±")[0].split() if word.isdigit()]
    assert [line.get_ydata()[0] for line in lines] == bounds
    assert [text.get_text() for text in axes.texts if text.get_text()] == [words] * bool(words)
    (legend,) = figure.legends
    assert ("bound of a claim" in [text.get_text() for text in legend.get_texts()]) == bool(ends)


def test_bounds_of_rows_lie_in_their_rows() -> None:
    found = measured("v", {"probe.optimizer": ["a", "b", "c"]}, 0.0)
    exact = [m._replace(quantity=Quantity("v", 1e-9 * i, expected=0.0)) for i, m in enumerate(found)]
    about = {"measure": "deviation", "expected": 0, "tolerance": 0.5, "where": {"probe.optimizer": ["a", "c"]}}
    answer = answer_of(make_record((m.cell for m in exact), claims=[claim(**about)]), (), tuple(exact))
    (axes,) = quantities(answer).axes
    lines = [(tuple(line.get_xdata()), tuple(line.get_ydata())) for line in axes.lines if line.get_color() == BOUND_COLOUR]
    assert lines == [((0.5, 0.5), (-0.5, 0.5)), ((0.5, 0.5), (1.5, 2.5))]
    assert "claim: ≤ 0.5" in [text.get_text() for text in axes.texts]


@pytest.mark.parametrize(("bound", "scale"), [(1e-9, "symlog"), (5e-16, "linear")])
def test_a_bound_far_above_all_values_does_not_press_them_together(bound: float, scale: str) -> None:
    found = measured("v", {"batch_size": [1, 4, 16, 64]})
    exact = tuple(m._replace(quantity=Quantity("v", 1e-16 * (i + 1), expected=0.0)) for i, m in enumerate(found))
    (axes,) = quantities(answer_of(make_record((m.cell for m in exact), claims=[claim(at_most=bound)]), (), exact)).axes
    low, high = axes.get_ylim()
    assert axes.get_yscale() == scale and low < 0 and high > bound


def test_a_knob_left_alone_has_the_title_of_its_probe() -> None:
    said = {study: {_title(m) for m in published_answer(study).measurements} for study in ("batch_rules", "translate")}
    assert all(("ln ratio" in " ".join(said[study])) == (study == "batch_rules") for study in said)
    assert all(any(text.startswith("difference, eps") == (study == "translate") for text in said[study]) for study in said)
