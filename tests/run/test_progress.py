"""The live display keeps to one line of the terminal."""

import io

import pytest
from rich.console import Console

from lrscale.run.progress import Display


@pytest.mark.parametrize("width", [80, 140])
def test_the_live_line_fits_with_its_time(width: int) -> None:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system=None)
    with Display(console, "headline", 22, 726, 0) as display:
        display.started -= 10  # a rate that a machine can have
        display.round(11)
        display.job("sum_over_nominal b1024", 5000, 1234, 650, 0)
        display.progress.refresh()
        line = console.render_lines(display.progress.get_renderable(), console.options)
    text = "".join(segment.text for segment in line[0])
    assert len(line) == 1 and "11/22 cells, 650/726 trials" in text and "1234 diverged" in text
    assert "0:00:00" in text and "…" not in text
