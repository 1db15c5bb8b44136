"""What the figures of tuned cells show: fits where a claim speaks of them, legends of what is drawn, and level lrs as level."""

import math
from dataclasses import replace
from typing import Any

import pytest

from lrscale.report.figures.curves import LEAST_SPAN, best_lr_against_batch_size, objective_against_lr
from lrscale.study.answer import Answer
from lrscale.training.results import mean_objective
from tests.redraw import answer_of


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
