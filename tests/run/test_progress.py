"""The live display keeps to one line of the terminal."""

import io

import pytest
from rich.console import Console

from lrscale.run import progress
from lrscale.run.progress import Display, Steps


@pytest.mark.parametrize(
    ("width", "told"),
    [
        (40, "650/726 trials 0:00:00"),
        (60, "650/726 trials, 1 s left 0:00:00"),
        (80, "11/22 cells, 650/726 trials, 1234 diverged, 1 s left 0:00:00"),
        (100, "11/22 cells, 650/726 trials, 500 trainings/s, 1234 diverged, 1 s left 0:00:00"),
        (140, "1234 diverged, 1 s left, round 1 sum_over_nominal b1024 0:00:00"),
    ],
)
def test_the_live_line_has_a_bar_and_what_fits_beside_it(width: int, told: str) -> None:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system=None)
    with Display(console, "headline", 22, 726, 0) as display:
        display.started -= 10  # a rate that a machine can have
        display.round(11)
        display.job("sum_over_nominal b1024", 5000, 1234, 650, 0)
        lines = console.render_lines(display.progress.get_renderable(), console.options)
    text = "".join(segment.text for segment in lines[0])
    assert len(lines) == 1 and told in text and "━━━" in text and "…" not in text


def test_a_long_training_tells_step_loss_and_time_left_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    out = io.StringIO()
    with Steps(Console(file=out, width=80), "training") as steps:
        steps.started -= 30
        steps(100, 400, 0.25)
    assert out.getvalue() == "step 100/400, loss 0.25, 1 min 30 s left\n"


def test_a_very_long_training_is_told_in_a_pipe_as_soon_as_its_speed_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    out, clock = io.StringIO(), iter([0.0, 0.001, 2.0, 2.0, 3.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with Steps(Console(file=out, width=80), "training") as steps:
        steps(1, 10**8, 0.5)
        steps(1000, 2000, 0.5)  # which is soon over
        steps(1000, 10**8, 0.25)
        steps(1500, 10**8, 0.125)  # told once, then every LINE_SECONDS
    assert out.getvalue() == "step 1000/100000000, loss 0.25, 2 days 7 h left\n"


def test_a_study_tells_how_long_a_round_takes_before_its_first_job_has_ended() -> None:
    out = io.StringIO()
    with Display(Console(file=out, width=80), "mine", 4, 100, 0) as display:
        display.round(0)
        for done in (5, 1000, 2000):
            display.training(0.002 * done, done, 10**8)
        assert display.counts() == "0/4 cells, 0/100 trials, about 2 days 7 h left in this round"
        display.job("b4", 50, 0, 10, 0)
        assert "in this round" not in display.counts()
    assert out.getvalue().splitlines()[:2] == ["mine: 4 cells, 100 trials", "round 1: about 2 days 7 h left in this round"]
    assert out.getvalue().count("in this round") == 1


def test_a_study_tells_the_time_left_from_new_trials_alone() -> None:
    display = Display(Console(file=io.StringIO(), width=80), "mine", 4, 100, 50)
    display.started -= 10
    display.job("b4", 50, 0, 10, 0)
    assert display.counts().endswith("60/100 trials, 5 trainings/s, 0 diverged, 40 s left")
