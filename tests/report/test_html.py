"""The HTML report: how large it is, what it shows at first, and what is folded."""

import re

from lrscale.report.figures.curves import figure_files, objective_against_lr
from lrscale.report.html import PHONE_ROWS, SCREEN_ROWS, as_html
from tests.packed import unpacked
from tests.redraw import RESULTS, answer_of

MOST_BYTES = 1_500_000
"""An interactive page is no larger."""


def tables(page: str) -> dict[str, tuple[int, bool]]:
    """The number of rows of each table of a page, and whether it is unfolded, by its title."""
    found = re.findall(r'<details data-rows="(\d+)"( open)?><summary><h2>([^<(]+)', page)
    return {title.strip(): (int(rows), bool(is_open)) for rows, is_open, title in found}


def test_the_page_of_the_largest_study_is_small_and_folds_its_cells() -> None:
    answer = answer_of("digits")
    other = figure_files(objective_against_lr(answer, answer.families[0]))  # as large as any of the figures that are packed
    figures = {}
    for i, file in enumerate(sorted((RESULTS / "digits").glob("figure*.svg")), 1):
        figures[f"best_lr_against_batch_size_{i}"] = {"svg": file.read_bytes()}
        figures |= {f"objective_against_lr_{i}": other, f"loss_against_examples_{i}": other}
    page = as_html(answer, figures)
    assert len(figures) == 18 and len(page.encode()) < MOST_BYTES
    program, *packed = unpacked(page)
    assert "Plotly.newPlot" in program and packed == [other["svg"].decode()] * 12
    assert page.index("best lr against batch size 6") < page.index('id="lrscale-figure"') < page.index("loss against examples 1")
    assert tables(page)["Cells"] == (96, False) and tables(page)["Claims"] == (10, True)


def test_many_cells_of_a_probe_are_summed_up_on_a_screen() -> None:
    page = as_html(answer_of("gradient_scale"), {})
    shown = {title: rows for title, (rows, is_open) in tables(page).items() if is_open}
    assert list(shown) == ["Claims", "What was measured"] and max(shown.values()) <= PHONE_ROWS < SCREEN_ROWS
    assert tables(page)["Cells"] == (36, False) and unpacked(page) == []
    assert "What was measured" not in as_html(answer_of("last_batch"), {})
