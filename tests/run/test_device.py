"""A study on another device: it continues one from the CPU, its trials say where they were trained, and it is repeated here.

No GPU is needed: the names are those of a device, and the CPU does its work.
"""

from pathlib import Path
from typing import Any

import pytest
from numpy.testing import assert_array_equal

import lrscale
from lrscale.errors import Refusal
from lrscale.run import job
from lrscale.run import study as run_study
from lrscale.spec import Compute, Training
from lrscale.study import own_code
from lrscale.tracking.store import Store
from lrscale.training import device, own_runs
from lrscale.training.engine import Curves, train
from tests.program import here
from tests.tasks.test_held import line

MINE = """
import torch
from torch import nn
import lrscale

def make(width: int = 2):
    x = torch.linspace(-1, 1, 32).unsqueeze(1)
    return lrscale.Task(lambda: nn.Sequential(nn.Linear(1, width), nn.Linear(width, 1)), nn.MSELoss(), (x, 2 * x), (x, 2 * x))
"""
CELLS = ["task=mine.py:make", "batch_size=4,8", "reduction=mean", "seeds=2", "optimizer.lr=tag(log,interval(1e-2,1))"]
CARD = "cuda: a <b>card</b>"
"""The name of a card; a page must show it as text."""
ABSENT = next(name for name in ("cuda", "mps") if name not in device._found())


@pytest.fixture
def mine(folder: Path) -> Path:
    (folder / "mine.py").write_text(MINE)
    return folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Compute]:
    """A machine with a GPU whose work the CPU does. Returns the settings of each training."""
    computes: list[Compute] = []

    def on_cpu(training: Training, task: Any, compute: Compute, *told: Any) -> Curves:
        computes.append(compute)
        return train(training, task, compute._replace(device="cpu"), *told)

    choose_form = own_runs.choose_form
    own_code._form.cache_clear()
    monkeypatch.setattr(device, "_found", lambda: ["cuda"])
    monkeypatch.setattr(job, "train", on_cpu)
    monkeypatch.setattr(own_runs, "choose_form", lambda training, task, on: choose_form(training, task))
    monkeypatch.setattr(run_study, "described", lambda name, tf32: CARD if name == "cuda" else name)
    return computes


def test_a_study_from_the_cpu_goes_on_on_a_gpu_and_is_repeated_without_one(mine: Path, asked: list[Compute]) -> None:
    here(mine, "run", "-m", *CELLS, "hydra.sweeper.n_trials=4")
    assert {compute.device for compute in asked} == {"cpu"}
    asked.clear()
    said = here(mine, "run", "-m", *CELLS, "hydra.sweeper.n_trials=6", "compute.device=auto")
    assert {compute.device for compute in asked} == {"cuda"}  # each job has the device that the sweep has chosen
    assert "8 recorded trials made on another device, their last digits may differ: used." in said
    assert f"Trained on cpu (8 trials), {CARD} (4 trials)." in " ".join(said.split())
    store = Store.existing(f"sqlite:///{mine}/mlflow.db")
    study = store.study("make-batch_size")
    assert study.compute.device == "cuda" and study.made_by["device"] == CARD
    trials = store.trials(study.experiment_id)
    assert sorted(str(trial.settings["device"]) for trial in trials) == ["cpu"] * 8 + [CARD] * 4
    notes = {trial.settings["device"]: store.run_tags(trial.run_id)["mlflow.note.content"] for trial in trials}
    assert "Trained on" not in notes["cpu"] and r"Trained on cuda: a \<b>card" in notes[CARD]
    repeat = ["reproduce", "--from", study.run_id, "--trust", "mine.py"]
    said = " ".join(here(mine, *repeat, "--device", "cpu").split())
    assert f"not every bit: trained on cpu here, on {CARD} there" in said
    assert "reproduced" in said and {compute.device for compute in asked[-2:]} == {"cpu"}


def test_a_record_of_a_device_that_is_not_here_is_refused_before_anything_is_written(
    mine: Path, asked: list[Compute], monkeypatch: pytest.MonkeyPatch
) -> None:
    here(mine, "run", "-m", *CELLS, "hydra.sweeper.n_trials=2", "compute.device=cuda")
    study = Store.existing(f"sqlite:///{mine}/mlflow.db").study("make-batch_size")
    monkeypatch.setattr(device, "_found", list)
    files = sorted(mine.rglob("*"))
    said = here(mine, "reproduce", "--from", study.run_id, "--trust", "mine.py", status=2)
    assert said.startswith("lrscale: `compute.device` must be a device that torch finds here, got cuda.")
    assert "--device auto" in said and said.count("\n") == 1
    assert sorted(mine.rglob("*")) == files


@pytest.mark.parametrize("form", [["run"], ["run", "-m", "hydra.sweeper.n_trials=2"]])
@pytest.mark.parametrize("task", ["mine.py:make", "d2l"])
def test_a_device_that_is_not_there_is_refused_before_anything_is_written(mine: Path, form: list[str], task: str) -> None:
    said = here(mine, *form, f"task={task}", f"compute.device={ABSENT}", status=2, empty=False)
    assert said.startswith(f"lrscale: `compute.device` must be a device that torch finds here, got {ABSENT}.")
    assert said.count("\n") == 1 and {file.name for file in mine.iterdir()} <= {"mine.py", "__pycache__"}


def test_a_task_that_comes_with_lrscale_is_not_said_to_be_on_a_gpu(folder: Path, asked: list[Compute]) -> None:
    said = here(folder, "run", "compute.device=cuda", status=2, empty=False)
    assert "`compute.device` must be cpu or auto for a task that comes with lrscale, got cuda" in said
    here(folder, "run", "-m", "batch_size=4,8", "hydra.sweeper.n_trials=2", CELLS[-1], "compute.device=auto")
    store = Store.existing(f"sqlite:///{folder}/mlflow.db")
    study = store.study("d2l-batch_size")
    assert study.compute.device == "cpu" and {t.settings["device"] for t in store.trials(study.experiment_id)} == {"cpu"}


def test_a_notebook_takes_a_device_too() -> None:
    task = line()
    assert_array_equal(lrscale.train(task, 0.1, device="cpu").train_loss[0], lrscale.train(task, 0.1).train_loss[0])
    for call in (
        lambda name: lrscale.train(task, 0.1, device=name),
        lambda name: lrscale.study(task, n_trials=2, device=name, show_progress=False),
    ):
        with pytest.raises(Refusal, match=f"`compute.device` must be a device that torch finds here, got {ABSENT}"):
            call(ABSENT)
        with pytest.raises(Refusal, match=r"`compute\.device` must be one of auto, cpu, cuda, mps, got 'gpu'"):
            call("gpu")
