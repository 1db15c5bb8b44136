"""The live display keeps to one line of the terminal."""

import io

import pytest
from rich.console import Console

from lrscale.run import progress
from lrscale.run.progress import Display, Steps


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


def test_a_long_training_tells_step_loss_and_time_left_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    out = io.StringIO()
    with Steps(Console(file=out, width=80), "training") as steps:
        steps.started -= 30
        steps(100, 400, 0.25)
    assert out.getvalue() == "step 100/400, loss 0.25, 1 min 30 s left\n"


def test_a_study_tells_the_time_left_from_new_trials_alone() -> None:
    display = Display(Console(file=io.StringIO(), width=80), "mine", 4, 100, 50)
    display.started -= 10
    display.job("b4", 50, 0, 10, 0)
    assert display.counts().endswith("60/100 trials, 5 trainings/s, 0 diverged, 40 s left")
