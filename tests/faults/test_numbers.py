"""Numbers that a training can give at its worst: the study ends, with a report that says so."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lrscale.run import job
from lrscale.spec import Training
from lrscale.training.engine import Curves
from tests.program import TINY, here
from tests.run.test_study import optuna_states

Change = Callable[[Training, Curves], Curves]
LINES = ("train_loss", "minibatch_loss", "grad_norm", "excess_risk")


def damaged(monkeypatch: pytest.MonkeyPatch, change: Change) -> None:
    train = job.train

    def bad(training: Training, *given: Any) -> Curves:
        return change(training, train(training, *given))

    monkeypatch.setattr(job, "train", bad)


def one_number(value: float, place: float) -> Change:
    """One number in the curves of one run in three is another, at a place between start (0) and end (1)."""

    def change(training: Training, curves: Curves) -> Curves:
        point = round(place * (len(curves.steps) - 1))
        lines = {name: np.array(getattr(curves, name)) for name in LINES}
        for line in lines.values():
            line[point, ::3] = value
        return curves._replace(**lines)

    return change


def everywhere(value: float) -> Change:
    def change(training: Training, curves: Curves) -> Curves:
        lines = {name: np.full_like(getattr(curves, name), value) for name in LINES}
        return curves._replace(**lines, valid_loss=np.full_like(curves.valid_loss, value))

    return change


def in_one_cell(change: Change) -> Change:
    return lambda t, curves: change(t, curves) if t.batch_size == 16 and t.reduction == "sum" else curves


def in_half_the_cells(change: Change) -> Change:
    return lambda t, curves: change(t, curves) if t.reduction == "sum" else curves


def study(folder: Path, *more: str) -> tuple[str, dict[str, Any]]:
    said = here(folder, "run", "-m", *TINY, *more)
    assert "Traceback" not in said and set(optuna_states(folder)) == {"COMPLETE"}
    for form in ("text", "html"):
        here(folder, "report", "--format", form)
    found: dict[str, Any] = json.loads(here(folder, "report", "--format", "json"), parse_constant=lambda name: pytest.fail(name))
    return said, found


SAMPLERS = ("ladder", "tpe", "gp", "qmc", "random", "grid")
WORST = [(value, place) for value in (math.nan, math.inf, -math.inf) for place in (0.0, 0.5, 1.0)]


def assert_divergence(folder: Path, monkeypatch: pytest.MonkeyPatch, sampler: str, worst: tuple[float, float]) -> None:
    """One bad number in a run is told as divergence, under a sampler."""
    damaged(monkeypatch, one_number(*worst))
    said, found = study(folder, f"hydra.sweeper.sampler={sampler}")
    assert all(cell["n_diverged"] >= 2 for cell in found["cells"]) and "diverged" in said


@pytest.mark.parametrize(("sampler", "worst"), list(zip(SAMPLERS, WORST[::-1], strict=False)))
def test_one_bad_number_in_a_run_is_divergence_under_every_sampler(
    folder: Path, monkeypatch: pytest.MonkeyPatch, sampler: str, worst: tuple[float, float]
) -> None:
    assert_divergence(folder, monkeypatch, sampler, worst)


@pytest.mark.parametrize("value", [math.nan])
def test_a_cell_of_which_all_runs_diverge_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    damaged(monkeypatch, in_one_cell(everywhere(value)))
    said, found = study(folder)
    (cell,) = [cell for cell in found["cells"] if cell["label"] == "b16 sum"]
    assert cell["lr_best"] is None and cell["n_diverged"] == cell["n_runs"] == 12
    assert re.search(r"b16 sum .*12/12", said) and re.search(r"b16 sum .*diverged", said)  # a narrow table has two parts


def test_a_reduction_of_which_all_runs_diverge_has_figures(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged(monkeypatch, in_half_the_cells(everywhere(math.inf)))
    said, found = study(folder, "batch_size=3,16")  # sum trains runs of its own: 3 is no power of two, 1000 no multiple of 16
    assert [cell["lr_best"] is None for cell in found["cells"]] == [cell["reduction"] == "sum" for cell in found["cells"]]
    assert "diverged" in said


@pytest.mark.parametrize(("value", "more"), [(0.0, ["seeds=1"]), (1e299, [])])
def test_a_constant_objective_ends_with_a_report(
    folder: Path, monkeypatch: pytest.MonkeyPatch, value: float, more: list[str]
) -> None:
    assert_flat(folder, monkeypatch, value, more)


def assert_flat(folder: Path, monkeypatch: pytest.MonkeyPatch, value: float, more: list[str]) -> None:
    """An objective that is the same at every lr ends with a report that says so."""
    damaged(monkeypatch, everywhere(value))
    said, found = study(folder, *more)
    assert all(cell["n_diverged"] == 0 for cell in found["cells"])
    assert all(cell["at_edge"] or cell["lr_best"] is None for cell in found["cells"])
    assert "flat" in said or "edge" in said
    assert ("One seed" in said) == (more == ["seeds=1"])
