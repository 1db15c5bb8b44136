"""Every member of every group and every sweep is composed and runs, small."""

from pathlib import Path

import pytest

from lrscale.tasks.registry import TASKS
from lrscale.training.optimizers import OPTIMIZERS
from lrscale.training.schedules import SCHEDULES
from tests.configs import ROOT
from tests.program import here

SWEEPS = sorted(path.stem for path in (ROOT / "sweeps").glob("*.yaml"))
SMALL = {
    "d2l": [],
    "linear": ["task.features=3", "task.examples=64"],
    "digits": ["task.model=mlp", "task.hidden=4"],
    "digits_mlp": ["task.hidden=4"],
    "fashion_mnist": ["task.examples=100"],
    "fashion_mnist_mlp": ["task.examples=100", "task.hidden=4"],
}
SMALL_SWEEPS = {
    "gradient_scale": ["probe.ranks=1,2", "probe.loss=ignored"],
    "last_batch": ["task.examples=257,264,288"],
    "homogeneity": ["probe.optimizer=sgd,adam"],
    "curvature": ["task.hidden=4", "budget.epochs=1", "probe.fraction=0,1"],
    "curvature_edge": ["task.hidden=4", "optimizer.lr=0.94", "budget.epochs=1", "probe.fraction=0,1"],
    "cnn_curvature": ["task=sweeps/plain_cnn.py:plain_cnn", "task.examples=64", "budget.epochs=1", "probe.fraction=0,1"],
    "cnn_turn_over": ["task=sweeps/plain_cnn.py:plain_cnn", "task.examples=64", "budget.epochs=1"],
    "cnn_turn_over_momentum": ["task=sweeps/plain_cnn.py:plain_cnn", "task.examples=64", "batch_size=16,64", "budget.epochs=1"],
    "noise_scale": ["task=linear,digits_mlp", "budget.steps=10", "probe.fraction=0,1", "probe.pairs=4", "probe.steps=2"],
    "translate": ["probe.optimizer=sgd,adamw", "budget.epochs=1"],
    "digits": ["optimizer=sgd,adam", "reduction=sum", "batch_size=256,512", "budget.epochs=1"],
    "turn_over": ["task.hidden=4", "batch_size=256,512", "budget.epochs=1"],
    "turn_over_momentum": ["task.hidden=4", "batch_size=256,512", "budget.epochs=1"],
    "fashion_mnist": ["task.examples=200", "optimizer=adam", "reduction=sum", "batch_size=64,128"],
    "stability": ["task.features=2,8", "task.bias=true", "probe.examples=4000"],
    "cnn": ["task=sweeps/cnn.py:cnn", "task.width=2", "task.examples=64", "optimizer=sgd,adamw", "budget.epochs=1"],
    "chars": ["task=sweeps/chars.py:transformer", "task.width=4", "task.examples=64", "optimizer=adamw", "budget.epochs=1"],
    "steps_to_target": ["task.features=2,8", "task.examples=1024", "budget.max_steps=200"],
    "regimes": ["task.features=8", "task.examples=4096", "budget.max_steps=200"],
    "adam": ["optimizer=adam,rmsprop", "budget.epochs=1"],
    "epochs": ["budget.epochs=1"],
    "momentum": ["task.examples=1024", "optimizer=momentum,nesterov"],
    "momentum_edge": ["optimizer.momentum=0,0.9", "probe.examples=4000"],
    "schedules": ["schedule=cosine,linear", "budget.epochs=1"],
    "batch_rules_chars": [
        "task=sweeps/chars.py:transformer",
        "task.width=4",
        "task.examples=16",
        "batch_size=1",
        "budget.epochs=1",
        "probe.factor=4",
    ],
    "batch_rules": ["task.examples=1024", "batch_size=4"],
}


def test_every_task_is_among_the_small_ones() -> None:
    assert set(SMALL) == set(TASKS.choices())


@pytest.mark.parametrize("task", SMALL)
def test_each_task_trains(task: str, folder: Path) -> None:
    said = here(folder, "run", f"task={task}", *SMALL[task], "budget.epochs=1", "batch_size=16", "seeds=2")
    assert "epoch 1, loss" in said and "mean of 2 seeds" in said and "recorded as 'mean b16 lr3e-2'" in said


@pytest.mark.parametrize("optimizer", [choice for choice in OPTIMIZERS.choices() if choice != "muon"])
def test_each_optimizer_trains(optimizer: str, folder: Path) -> None:
    assert "epoch 1, loss" in here(folder, "run", f"optimizer={optimizer}", "budget.epochs=1")


@pytest.mark.parametrize("schedule", SCHEDULES.choices())
def test_each_schedule_trains(schedule: str, folder: Path) -> None:
    lengths = ["schedule.warmup_fraction=0.1", *(["schedule.decay_epochs=0.5"] if schedule == "wsd" else [])]
    assert "epoch 1, loss" in here(folder, "run", f"schedule={schedule}", *lengths, "budget.epochs=1")


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        (["budget=epochs", "budget.epochs=2"], "epoch 2, loss"),
        (["budget=steps", "budget.steps=7"], "step 7, loss"),
        (["budget=target", "objective=steps_to_target", "budget.target=0.1", "optimizer.lr=0.03"], "steps_to_target"),
    ],
)
def test_each_budget_trains(budget: list[str], says: str, folder: Path) -> None:
    assert says in here(folder, "run", *budget)


@pytest.mark.parametrize("tracking", ["local", "server"])
def test_each_tracking_composes(tracking: str, folder: Path) -> None:
    import os
    import subprocess
    import sys

    command = [sys.executable, "-m", "lrscale", "run", f"tracking={tracking}", "--cfg", "job"]
    shown = subprocess.run(command, cwd=folder, env=os.environ, capture_output=True, text=True, check=True).stdout
    assert "experiment: lrscale" in shown
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("sweep", SWEEPS)
def test_each_sweep_opens_with_its_question_command_and_cost_and_runs_small(sweep: str, folder: Path) -> None:
    lines = (ROOT / "sweeps" / f"{sweep}.yaml").read_text().splitlines()
    assert lines[0] == "# @package _global_"
    assert f"lrscale run -m sweeps={sweep}" in lines[1] and "?" in lines[1]
    assert "runs" in lines[2] and lines[3].startswith("# Expected:")
    small = ["seeds=2", "batch_size=16,64", "hydra.sweeper.n_trials=4", *SMALL_SWEEPS.get(sweep, [])]
    (folder / "sweeps").symlink_to(ROOT / "sweeps")
    said = here(folder, "run", "-m", f"sweeps={sweep}", *small)
    assert "lrscale ui" in said


def test_the_books_recipe_prints_the_books_losses(folder: Path) -> None:
    said = here(folder, "run", "optimizer.lr=0.03", "batch_size=10", "reduction=sum_over_nominal")
    losses = [float(line.rpartition(" ")[2]) for line in said.splitlines() if line.startswith("epoch")]
    assert len(losses) == 3
    assert losses[0] < 0.1 and losses[1] < 1e-3 and 4e-5 < losses[2] < 6e-5  # noise floor: 0.01^2 / 2
    assert here(folder, "run", "optimizer.lr=0.003", "batch_size=10", "reduction=sum").splitlines()[:3] == said.splitlines()[:3]
