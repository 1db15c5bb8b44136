"""The text of an answer on a terminal of 80 columns: it fits on a screen, and says where the rest is."""

import io

import pytest
from rich.console import Console

from lrscale.report.tables import claim_row, quantity_rows
from lrscale.report.text import show
from lrscale.study.answer import Answer, answer_of
from lrscale.study.families import Measurement
from lrscale.study.statements import laws
from lrscale.training.quantity import Quantity
from tests.redraw import answer_of as published_answer
from tests.studies import make_record, probe_cell


def text_of(answer: Answer, verbose: bool = False) -> str:
    said = io.StringIO()
    show(answer, Console(file=said, width=80), verbose)
    return said.getvalue()


def probe(gap: float) -> Answer:
    """The answer of a probe of 70 cells, whose values are all expected but for a gap."""
    claim = {"name": "it is two", "measure": "log_deviation", "quantity": "q", "tolerance": 0.1, "expected": 0}
    cells = [probe_cell(f"cell {i}", {"batch_size": i + 1}) for i in range(70)]
    found = tuple(Measurement(cell, Quantity("q", 2.0 * (1 + gap), expected=2.0)) for cell in cells)
    return answer_of(make_record(cells, claims=[claim], study="two"), (), found)


def test_many_cells_of_a_probe_are_summed_up_by_quantity() -> None:
    short, whole = text_of(probe(0.01)), text_of(probe(0.01), verbose=True)
    assert quantity_rows(probe(0.01).measurements) == [["q", "70", "2.02", "2", "1 %"]]
    assert "cell 33" not in short and short.endswith("All rows: lrscale report two --verbose\n")
    assert "cell 33" in whole and "--verbose" not in whole


def test_a_quantity_is_not_set_beside_what_is_expected_of_other_cells() -> None:
    cells = [probe_cell(f"cell {i}", {"batch_size": i + 1}) for i in range(3)]
    values = [Quantity("q", 1.0, expected=1.0), Quantity("q", 0.9), Quantity("q", 1.0, expected=1.0)]
    found = [Measurement(cell, quantity) for cell, quantity in zip(cells, values, strict=True)]
    assert quantity_rows(found) == [["q", "2", "1", "1", "0"], ["q", "1", "0.9", "-", "-"]]


def test_a_rounding_error_is_called_so_and_the_count_comes_first() -> None:
    assert laws(probe(3e-16)) == ["1 of 1 claims hold, over 70 cells. It is two: to rounding (q)."]
    assert quantity_rows(probe(3e-16).measurements)[0][-1] == "rounding"
    assert claim_row(probe(3e-16).verdicts[0])[2] == "rounding" and claim_row(probe(0.01).verdicts[0])[2] == "0.00995"
    assert "within 1 %" in laws(probe(0.01))[0]


def test_a_law_that_fails_with_knobs_left_as_given_says_what_theory_needs() -> None:
    small, large = laws(published_answer("eps"))
    assert "as theory says (c^0)" in small and "not as theory says" not in large
    assert large.endswith(": theory says c^0 with optimizer.eps scaled too, not as given.")


@pytest.mark.parametrize("study", ["digits", "fashion_mnist", "gradient_scale", "steps_to_target"])
def test_published_studies_fit_on_a_screen(study: str) -> None:
    answer = published_answer(study)
    short = text_of(answer)
    assert len(short.splitlines()) <= 56 and "--verbose" in short  # a run prints four lines more, which makes 60
    assert all(claim.name.split()[0] in short for claim in answer.verdicts if claim.verdict == "fails")
    assert max(map(len, short.splitlines())) <= 80
