"""What the figures of tuned cells show: fits where a claim speaks of them, legends of what is drawn, and level lrs as level."""

import math
from dataclasses import replace
from typing import Any

import pytest

from lrscale.report.draw import main_figures
from lrscale.report.figures.curves import LEAST_SPAN, best_lr_against_batch_size, objective_against_lr, steps_against_batch_size
from lrscale.study.answer import Answer
from lrscale.training.results import mean_objective
from tests.redraw import answer_of

ALLOWED = {"turn_over_momentum": [(291, 2764.5)], "cnn_turn_over": [(7.35, 29.4), (21.7, 86.8)], "regimes": [(10.3, 18.3)]}
"""The batch sizes that the claims of a study allow, in its first family of cells."""


@pytest.fixture(scope="module")
def digits() -> Answer:
    """Two tasks with three optimizers; the claims speak of the turn-over of SGD and momentum alone."""
    return answer_of("digits")


def test_a_fit_is_drawn_where_a_claim_speaks_of_it(digits: Answer) -> None:
    drawn: dict[Any, list[bool]] = {}
    for family in digits.families:
        (axes,) = best_lr_against_batch_size(digits, family).axes
        labels = axes.get_legend_handles_labels()[1]
        drawn.setdefault(family.of["optimizer"], []).append(any("fit of" in label for label in labels))
    assert drawn == {"sgd": [True, True], "momentum": [True, True], "adam": [False, False]}


@pytest.mark.parametrize("limit", [math.inf, 1.0])
def test_a_legend_names_only_what_is_drawn(digits: Answer, limit: float) -> None:
    """The second time without the lrs at which runs diverged."""
    family = digits.families[0]
    kept = [replace(c, trials=tuple(t for t in c.trials if mean_objective(t.objectives) <= limit)) for c in family.cells]
    legend = objective_against_lr(digits, replace(family, cells=tuple(kept))).legends[0]
    assert ("diverged" in [text.get_text() for text in legend.get_texts()]) == math.isinf(limit)


def test_level_lrs_look_level(digits: Answer) -> None:
    family = digits.families[0]
    (cell, *_) = family.by_reduction("sum")
    (axes,) = best_lr_against_batch_size(digits, replace(family, cells=(cell,), turn_over=None)).axes
    low, high = axes.get_ylim()
    assert high / low == pytest.approx(LEAST_SPAN)


@pytest.mark.parametrize("study", ["turn_over_momentum", "cnn_turn_over", "regimes"])
def test_the_batch_sizes_that_claims_allow_are_drawn_below_the_points(study: str) -> None:
    answer = answer_of(study)
    figure = steps_against_batch_size if study == "regimes" else best_lr_against_batch_size
    (axes,) = figure(answer, answer.families[0]).axes
    bars = [line for line in axes.lines if str(line.get_label()).startswith("claim: ")]
    sizes = [cell.step_examples for cell in answer.families[0].cells]
    ends = [tuple(float(min(max(x, min(sizes)), max(sizes))) for x in ends) for ends in ALLOWED[study]]
    assert [tuple(line.get_xdata()) for line in bars] == ends
    drawn = [y for container in axes.containers for y in container[0].get_ydata()]
    floor = axes.transAxes.inverted().transform(axes.transData.transform([(sizes[0], y) for y in drawn]))[:, 1].min()
    assert floor > max(line.get_ydata()[0] for line in bars) + 0.03
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert len([name for name in names if name.startswith("claim: B_c")]) == len(bars)


def test_a_study_of_steps_is_published_with_its_figure_of_steps() -> None:
    drawn = main_figures(answer_of("regimes"))
    assert list(drawn) == ["figure.svg", "figure_2.svg"] and drawn["figure.svg"] != drawn["figure_2.svg"]
