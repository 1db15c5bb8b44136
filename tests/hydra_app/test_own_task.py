"""A task of the user's own on the command line: swept, continued, reproduced; and no record or sweep file runs its code."""

import json
from pathlib import Path

import pytest

from lrscale.tasks import registry
from lrscale.training import engine, own_runs
from tests.program import here, lrscale

MINE = '''
from pathlib import Path
import torch
from torch import nn
from torch.nn import functional as F
import lrscale

Path("was_run").touch()
X = torch.randn(96, 6, generator=torch.Generator().manual_seed(0))
Y = (X @ torch.randn(6, 3, generator=torch.Generator().manual_seed(1))).argmax(1)


def mlp(width: int = 4, dropout: float = 0.0, act: str = "relu"):
    """A small perceptron."""
    train, valid = (X[:64], Y[:64]), (X[64:], Y[64:])
    kind = {"relu": nn.ReLU, "tanh": nn.Tanh}[act]
    return lrscale.Task(lambda: nn.Sequential(*layers_of(width, kind, dropout)), F.cross_entropy, train, valid, lrscale.top1)


def layers_of(width, kind, dropout):
    return [nn.Linear(6, width), kind(), nn.Dropout(dropout), nn.Linear(width, 3)]


def broken():
    return 3


def needs(width):
    """Has a parameter without a default."""
'''
TASK = "task=mine.py:mlp"
STUDY = ["-m", TASK, "reduction=mean,sum", "batch_size=8,32", "seeds=2", "budget.epochs=2", "hydra.sweeper.n_trials=8"]
LR = "optimizer.lr=tag(log,interval(1e-3,4))"
SWEEP = """\
# @package _global_
defaults:
  - override /task: mine.py:mlp
hydra:
  mode: MULTIRUN
  sweeper:
    n_trials: 4
    params: {seeds: 2, reduction: "mean,sum", optimizer.lr: "tag(log,interval(0.01,1))"}
"""


@pytest.fixture
def mine(folder: Path) -> Path:
    _ = (folder / "mine.py").write_text(f"{MINE}# {folder}\n")  # a file is run once in a process
    (folder / "sweeps").mkdir()
    _ = (folder / "sweeps/theirs.yaml").write_text(SWEEP)
    return folder


def was_run(mine: Path) -> bool:
    """Whether the user's file was run since the last call. Files are run once in a process, so this looks at the first run."""
    found = (mine / "was_run").exists()
    (mine / "was_run").unlink(missing_ok=True)
    return found


def test_a_study_of_an_own_task_has_the_law_and_is_continued_and_reproduced(mine: Path) -> None:
    said = here(mine, "run", *STUDY, LR)
    assert was_run(mine) and "lr_sum* = lr_mean* x c^-1 exactly" in said and "Gradients computed by" in said
    assert "32 of them in the store already" in here(mine, "run", *STUDY, LR)
    study = "mlp-reduction-batch_size"
    assert "cells" in json.loads(here(mine, "report", study, "--format", "json"))
    _ = here(mine, "publish", study)
    refused = here(mine, "reproduce", study, status=2)
    assert "is code of whoever recorded this study" in refused and "--trust mine.py" in refused
    assert f"reproduced {study}" in here(mine, "reproduce", study, "--trust", "mine.py")
    _ = (mine / "mine.py").write_text(f"{MINE}# {mine}, changed\n")
    refused = " ".join(here(mine, "reproduce", study, "--trust", "mine.py", status=2).split())
    assert "is code of whoever recorded" in refused and "--trust named another file or content: mine.py with " in refused
    (mine / "mine.py").unlink()
    assert "lr_sum*" in here(mine, "report", study)  # a report needs no code


def test_a_changed_file_is_another_task(mine: Path) -> None:
    _ = here(mine, "run", *STUDY, LR)
    _ = (mine / "mine.py").write_text(f"{MINE}# {mine}, changed\n")
    assert "32 recorded trials of other settings" in here(mine, "run", *STUDY, LR)


def test_axes_of_the_task_and_other_processes(mine: Path) -> None:
    parallel = ["hydra/launcher=joblib", "hydra.sweeper.n_jobs=2", "task.width=3,5", "task.dropout=0.2"]
    said = here(mine, "run", *STUDY, LR, *parallel)
    assert "mean b8 width3" in said and "sum b32 width5" in said and "8 cells, 64 trials" in said


def test_a_single_training_says_its_objective(mine: Path) -> None:
    assert "valid_error 0." in here(mine, "run", TASK, "objective=valid_error", "optimizer.lr=0.1", "batch_size=16")


def test_curvature_measures_it_too(mine: Path) -> None:
    said = here(mine, "run", TASK, "probe=curvature", "probe.fraction=1", "optimizer.lr=0.1", "seeds=2", "budget.epochs=1")
    assert "lam_max " in said and "lr_lam_max " in said and "b_simple " in said


@pytest.mark.parametrize("command", [["-m"], []])
def test_a_sweep_file_cannot_run_code(mine: Path, command: list[str]) -> None:
    said = here(mine, "run", *command, "sweeps=theirs", status=2)
    assert "is code, which a sweep file or a record cannot run" in said and len(said.splitlines()) == 1
    assert not was_run(mine) and not (mine / "optuna.journal").exists()
    assert "lr_sum*" in here(mine, "run", "-m", "sweeps=theirs", TASK)
    assert was_run(mine)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["task=mine.py:mlp", "task.widht=3"], "task.widht"),
        (["task=mine.py:mlp", "task.width=2.5"], "`task.width` must be a whole number, got 2.5"),
        (["task=mine.py:mlp", "task.act=swish"], "must make a task, got KeyError"),
        (["task=mine.py:broken"], "must return a lrscale.Task, got int"),
        (["task=mine.py:needs"], "must have a default for each parameter, got none for width"),
        (["task=mine.py:other"], "must name what mine.py defines, got 'other'. It defines mlp, layers_of, broken, needs"),
        (["task=none.py:mlp"], "must name a file that exists"),
        (["task=mine.py:mlp", "batch_size=65"], "must not exceed the 64 training examples"),
        (["task=mine.py:mlp", "objective=excess_risk"], "`objective` excess_risk needs a task whose optimum is known"),
        (["task=mine.py:mlp", "probe=noise_scale"], "needs a task that comes with lrscale"),
        (["task=mine.py:mlp", "data_seeds=own"], "`data_seeds` own needs a task whose data are drawn"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_and_nothing_is_written(arguments: list[str], says: str, mine: Path) -> None:
    said = here(mine, "run", *arguments, status=2)
    assert says in said and len(said.splitlines()) == 1, said
    assert sorted(path.name for path in mine.iterdir() if "mlflow" not in path.name) <= ["mine.py", "sweeps", "was_run"]


def test_a_model_whose_runs_exceed_the_memory_is_refused_before_a_step(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "memory_bytes", lambda: 100_000)
    for command in (["seeds=8"], ["-m", "batch_size=8,16", "seeds=8"]):
        said = here(mine, "run", TASK, "task.width=100", *command, status=2)
        assert "got 1003 weights, which need 0.0 GiB a seed, x 8 seeds. Take seeds=2, or a smaller model" in said
        assert len(said.splitlines()) == 1 and not (mine / "optuna.journal").exists()


def test_a_form_is_tried_with_as_many_trials_as_the_memory_holds(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    monkeypatch.setattr(own_runs, "choose_form", lambda training, *_: (tried.append(training.trials), ("loop", ""))[1])
    for room in (300_000, 10**9):
        monkeypatch.setattr(engine, "memory_bytes", lambda room=room: room)
        monkeypatch.setattr(registry, "memory_bytes", lambda room=room: room)
        axes = [f"seeds={2 + (room > 10**6)}", "batch_size=8,16", LR, "study.claims=[{name:x,measure:guess,expected:1}]"]
        assert "study.claims[0].measure" in here(mine, "run", "-m", TASK, "task.width=90", *axes, status=2)
    assert tried[2:] == [4, 4] and all(1 <= trials < 4 for trials in tried[:2])


def test_help_shows_the_parameters_without_running_the_file(mine: Path) -> None:
    said = lrscale(mine, "run", TASK, "--help")
    assert "task.width=4" in said and "A small perceptron." in said and not was_run(mine)
