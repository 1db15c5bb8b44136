"""`lrscale.study` and `lrscale.train`: the same cells as a command, nothing left behind, and records that run no code."""

import gc
import runpy
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lrscale
from lrscale.errors import Refusal
from lrscale.run import job
from lrscale.tracking.store import Store
from tests.program import here
from tests.tasks.test_held import line

STORE = "sqlite:///mlflow.db"
NAMED = "<script>alert(1)</script>"
"""A name that a page must show as text."""
FORMS_AGREE = 1e-4
"""Runs in float32 that are computed in another form, or together with other lrs, are rounded differently."""


def ask(task: Any, **changes: Any) -> lrscale.ShownAnswer:
    quick = {"batch_size": (4, 16), "lr": (1e-2, 1), "seeds": 2, "n_trials": 4, "epochs": 1, "show_progress": False}
    return lrscale.study(task, **{**quick, **changes})


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, lrscale.ShownAnswer]:
    """A working folder with the record of a study of a task without a file, and its answer."""
    folder = tmp_path_factory.mktemp("recorded")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return folder, ask(line(), name=NAMED, tracking_uri=STORE)


def no_training(*arguments: object) -> None:
    raise AssertionError("a run was trained")


def test_a_call_continues_the_study_of_the_command(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["task=d2l", "reduction=mean,sum", "batch_size=4,16", "seeds=2", "drop_last=true", "optimizer.momentum=0.9"]
    tuned = ["hydra.sweeper.n_trials=4", "optimizer.lr=tag(log,interval(1e-4,1))", "hydra.sweeper.study_name=same"]
    here(folder, "run", "-m", *command, *tuned)
    monkeypatch.setattr(job, "work", no_training)
    answer = lrscale.study(
        "d2l", batch_size=np.array([4, 16]), seeds=2, n_trials=4, momentum=0.9, name="same", tracking_uri=STORE
    )
    assert "16 trials, 16 of them in the store already" in capsys.readouterr().out
    assert answer.to_pandas().n_trials.tolist() == [4, 4, 4, 4]


def test_a_task_without_a_file_is_continued_by_its_equal(
    recorded: tuple[Path, lrscale.ShownAnswer], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, before = recorded
    monkeypatch.chdir(folder)
    monkeypatch.setattr(job, "work", no_training)
    assert ask(line(), name=NAMED, tracking_uri=STORE).to_pandas().equals(before.to_pandas())
    assert "report.html" in {file.name for file in folder.glob("studies/*/*")}


def test_nothing_is_left_behind(folder: Path) -> None:
    torch.set_num_threads(2)
    try:
        ask(line(), n_trials=2, batch_size=8, reduction="mean")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert list(folder.iterdir()) == [] and gc.get_freeze_count() == 0


def test_figures_leave_the_backend_of_matplotlib_alone() -> None:
    code = "import matplotlib; matplotlib.use('svg'); from lrscale.report.figures import curves; print(matplotlib.get_backend())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "svg\n"


def test_the_answer_is_a_table_of_cells_and_a_table_of_runs(recorded: tuple[Path, lrscale.ShownAnswer]) -> None:
    answer = recorded[1]
    cells, runs = answer.to_pandas(), answer.trials()
    assert cells.label.tolist() == ["mean b4", "mean b16", "sum b4", "sum b16"]
    assert {"reduction", "batch_size", "lr_best", "lr_best_low", "lr_best_high", "objective"} <= set(cells.columns)
    assert len(runs) == 4 * 4 * 2 == cells.n_runs.sum()
    least = runs.groupby(["cell", "lr"]).objective.mean().groupby("cell").min()
    assert least.loc[cells.label].tolist() == pytest.approx(cells.objective.tolist())
    by_lr = runs[runs.batch_size == 4].groupby("reduction").lr.unique()
    assert sorted(by_lr["mean"]) == pytest.approx(sorted(4 * by_lr["sum"]))


def test_train_gives_the_runs_of_the_study(recorded: tuple[Path, lrscale.ShownAnswer]) -> None:
    runs = recorded[1].trials()
    of_cell = runs[runs.cell == "sum b16"]
    lrs = of_cell.lr.unique()
    curves = lrscale.train(line(), lrs, reduction="sum", batch_size=16, seeds=range(2), epochs=1)
    finite = ~of_cell.diverged.to_numpy()
    assert finite.any() and curves.valid_loss[finite] == pytest.approx(of_cell.objective[finite].to_numpy(), rel=FORMS_AGREE)
    one = lrscale.train({"name": "linear", "features": 3}, 0.03, steps=7, momentum=0.9)
    assert one.steps[-1] == 7 and one.train_loss.shape[1] == 1
    falling = lrscale.train({"name": "linear", "features": 3}, 0.03, steps=7, momentum=0.9, schedule="cosine")
    assert falling.train_loss[0] == one.train_loss[0] and falling.train_loss[-1] != one.train_loss[-1]


def test_a_notebook_shows_the_answer(recorded: tuple[Path, lrscale.ShownAnswer]) -> None:
    answer = recorded[1]
    page = answer._repr_html_()
    ElementTree.fromstring(page)  # each tag is closed
    assert "<script" not in page and "mean b4" in page and "data:image/svg+xml;base64," in page
    assert all(sentence in page.replace("&#39;", "'") for sentence in answer.law)
    assert "sum b16" in str(answer) and all(len(text) <= 100 for text in str(answer).splitlines())
    for name in ("best_lr_against_batch_size", "objective_against_lr", "loss_against_examples"):
        assert answer.figure(name).axes
    with pytest.raises(Refusal, match="`name` must be"):
        answer.figure("other")


def test_a_study_in_which_all_runs_diverge_is_shown() -> None:
    answer = ask(line(), lr=(1e6, 1e8), n_trials=2)
    assert "diverged" in str(answer) and "diverged" in answer._repr_html_() and answer.figure().axes
    assert answer.trials().diverged.all() and answer.to_pandas().lr_best.isna().all()


def test_a_record_of_a_task_without_a_file_is_reported_and_runs_nothing(recorded: tuple[Path, lrscale.ShownAnswer]) -> None:
    folder = recorded[0]
    run_id = Store(f"sqlite:///{folder}/mlflow.db").study(NAMED).run_id
    before = sorted(folder.rglob("*"))
    for command in (["reproduce", "--from", run_id], ["publish", NAMED], ["run", "task=notebook:net"]):
        said = here(folder, *command, status=2)
        assert said.startswith("lrscale: `task` notebook:net is an object of a program") and said.count("\n") == 1
    assert sorted(folder.rglob("*")) == before
    assert "sum b16" in here(folder, "report", NAMED)
    assert "notebook:net" in here(folder, "report", NAMED, "--format", "html")


def untyped(value: Any) -> Any:
    """A value of a wrong type, as someone without a type checker would give it."""
    return value


REFUSED: dict[str, Callable[[], object]] = {
    "`task` must be one of d2l": lambda: lrscale.study("mine.py:cnn"),
    "`task` must be one of linear": lambda: lrscale.study(untyped(7)),
    "`task.slope` is not known, got 2. Options of d2l": lambda: lrscale.study({"name": "d2l", "slope": 2}),
    "`optimizer` must be one of adadelta": lambda: lrscale.study("d2l", optimizer="newton"),
    "`beta` is not known, got 1. Options of sgd: ": lambda: lrscale.study("d2l", beta=1),
    "`foreach` is not an option here": lambda: lrscale.train("d2l", 0.1, foreach=True),
    "`epochs` and `steps` cannot both be given": lambda: lrscale.train("d2l", 0.1, epochs=1, steps=2),
    "`lr` must be the ends of an interval": lambda: lrscale.study("d2l", lr=(1, 0.1)),
    "`lr` must be the ends of an interval, 0 < low < high, got 0.1": lambda: lrscale.study("d2l", lr=untyped(0.1)),
    "`optimizer.lr` must be": lambda: lrscale.train("d2l", untyped("fast")),
    "`optimizer.lr` must be finite and > 0, got -1": lambda: lrscale.train("d2l", -1),
    "`batch_size` must be a value, or values that differ": lambda: lrscale.study("d2l", batch_size=(8, 8)),
    "`batch_size` must not exceed": lambda: lrscale.study("d2l", batch_size=4096),
    "`reduction` must be one of": lambda: lrscale.study("d2l", reduction="max"),
    "`n_trials` must be": lambda: lrscale.study("d2l", n_trials=0),
    "`seeds` must be": lambda: lrscale.study("d2l", seeds=0),
    "`objective` valid_error needs": lambda: lrscale.study(line(), objective="valid_error"),
    "`tracking.uri` must": lambda: lrscale.study("d2l", tracking_uri="nowhere://"),
    "`name` must be": lambda: lrscale.study("d2l", name=""),
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_cannot_be_used_is_refused_in_one_line_and_nothing_is_written(text: str, folder: Path) -> None:
    with pytest.raises(Refusal) as refusal:
        REFUSED[text]()
    assert str(refusal.value).startswith(text.partition(" linear")[0].partition(" d2l")[0]) and "\n" not in str(refusal.value)
    assert list(folder.iterdir()) == []


def test_the_notebook_of_digits_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = runpy.run_path(str(Path(__file__).with_name("digits_notebook.py")))
    assert "exactly" in made["answer"].law[0] and "lr_sum* = lr_mean* x c^-1" in capsys.readouterr().out
    assert list(folder.iterdir()) == []
