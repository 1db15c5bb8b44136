"""A task, optimizer, schedule, probe and reduction, declared in this module alone, are composed, trained and reported."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lrscale.commands.cli import main
from lrscale.probes import PROBES, Probe
from lrscale.rules import POSITIVE, integer
from lrscale.spec import Option, Registry, Training
from lrscale.tasks.built_in import Arrays, BuiltInTask
from lrscale.tasks.models import linear_regression
from lrscale.tasks.registry import TASKS, TaskKind
from lrscale.training.optimizers import OPTIMIZERS, Optimizer
from lrscale.training.quantity import Quantity
from lrscale.training.reduction import REDUCTIONS
from lrscale.training.schedules import FINAL, SCHEDULES, WARMUP, Schedule
from tests.program import here

SWEEP = ["task=line", "batch_size=4,16", "seeds=2", "budget.epochs=2", "hydra.sweeper.n_trials=6"]


def line(training: Training) -> BuiltInTask:
    """Points on a line of a slope of one's choice."""
    x = torch.linspace(-1, 1, training.examples, dtype=torch.float64).unsqueeze(1)
    y = training.task.options["slope"] * x[:, 0]
    return BuiltInTask(Arrays(x, y, x, y), None, linear_regression(1, False), None, None)


def signs(parameter: Tensor, gradient: Tensor, state: Mapping[str, Tensor], hyper: Mapping[str, Any], step: int) -> None:
    parameter.sub_(hyper["lr"] * gradient.sign())


def count(training: Training, task: BuiltInTask) -> list[Quantity]:
    assert training.probe is not None
    return [Quantity("counted", float(training.batch_size * training.probe.options["times"]))]


@pytest.fixture(autouse=True)
def declared() -> Iterator[None]:
    """Declares one of each, and takes them back."""
    options = {"slope": Option(2.0, POSITIVE, "of the line"), "examples": Option(64, integer(2, 1000), "N")}
    task = TaskKind(
        about="Points on a line.",
        options=options,
        variants={"steep_line": {"slope": 9.0}},
        presets={"objective": "train_loss"},
        make=line,
        examples=lambda given: int(given["examples"]),
    )
    lr = {"lr": Option(0.01, POSITIVE)}
    optimizer = Optimizer(about="Signs.", options=lr, update=signs, slots=lambda hyper: (), homogeneity=0)
    TASKS.declare("line", task)
    OPTIMIZERS.declare("signs", optimizer)
    PROBES.declare("count", Probe(about="Counts.", options={"times": Option(3, integer(1, 9))}, measure=count))
    SCHEDULES.declare("root_fall", Schedule(about="A root.", options={**WARMUP, **FINAL}, fall=lambda x: (1 - x) ** 0.5))
    REDUCTIONS["root"] = lambda terms, batch_size: terms.new_full(terms.shape, batch_size**-0.5)
    yield
    registries: tuple[tuple[Registry[Any], str], ...] = (
        (TASKS, "line"),
        (OPTIMIZERS, "signs"),
        (SCHEDULES, "root_fall"),
        (PROBES, "count"),
    )
    for registry, name in registries:
        del registry._declared[name]
    del REDUCTIONS["root"]


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(here(folder, "report", "--format", "json"))
    return found


def test_a_study_of_the_new_task_optimizer_and_reduction(folder: Path) -> None:
    interval = "optimizer.lr=tag(log,interval(1e-3,1))"
    said = here(folder, "run", "-m", *SWEEP, "optimizer=signs", "reduction=root,mean", "task.slope=1,5", interval)
    assert "root slope1" in said and "mean slope5" in said
    found = report(folder)
    assert len(found["cells"]) == 8
    assert {(cell["reduction"], cell["batch_size"], cell["c"]) for cell in found["cells"]} == {
        ("root", 4, 2.0), ("root", 16, 4.0), ("mean", 4, 1.0), ("mean", 16, 1.0)
    }  # fmt: skip
    assert [ratio["expected"] for ratio in found["ratios"]] == [0, 0]
    assert {slope["reduction"] for slope in found["slopes"]} == {"root", "mean"}
    by_cell = {(c["reduction"], c["batch_size"], c["task.slope"]): c["objective"] for c in found["cells"]}
    assert by_cell["root", 4, 1] == by_cell["mean", 4, 1]  # signs do not know how large a gradient is


def test_a_study_of_the_new_schedule(folder: Path) -> None:
    schedules = ["schedule=constant,root_fall", "schedule.warmup_steps=2"]
    here(folder, "run", "-m", *SWEEP, "optimizer=signs", *schedules, "optimizer.lr=tag(log,interval(1e-3,1))")
    cells = report(folder)["cells"]
    assert {(cell["schedule"], cell["batch_size"]) for cell in cells} == {
        (name, size) for name in ("constant", "root_fall") for size in (4, 16)
    }
    assert len({cell["objective"] for cell in cells}) == 4


def test_a_study_of_the_new_probe(folder: Path) -> None:
    here(folder, "run", "-m", "task=steep_line", "probe=count", "probe.times=2,4", "batch_size=4,16")
    assert [q["value"] for q in report(folder)["quantities"]] == [8.0, 32.0, 16.0, 64.0]


def test_a_single_training_and_the_help_text_know_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "train_loss" in here(folder, "run", "task=steep_line", "optimizer=signs", "reduction=root")
    with pytest.raises(SystemExit):
        main(["run", "task=steep_line", "--help"])
    said = capsys.readouterr().out
    assert "slope: 9.0" in said
    assert "task=steep_line: Points on a line." in said and "# of the line" in said
    for choice in ("steep_line", "signs", "root_fall", "count"):
        assert choice in said


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["task=line", "task.slope=-1"], "`task.slope` must be finite and > 0, got -1."),
        (["task=line", "optimizer=signs", "optimizer.lr=0"], "`optimizer.lr` must be finite and > 0"),
        (["task=line", "reduction=rooot"], "`reduction` must be one of mean, sum, sum_over_nominal, root, got 'rooot'."),
        (["probe=count", "probe.times=10"], "`probe.times` must be a whole number from 1 to 9, got 10."),
        (["task=line", "batch_size=65"], "must not exceed the 64 training examples of line"),
    ],
)
def test_their_rules_are_kept(given: list[str], says: str, folder: Path) -> None:
    assert says in here(folder, "run", *given, status=2)


def test_a_name_is_declared_once() -> None:
    with pytest.raises(ValueError, match="task digits_mlp is declared already"):
        TASKS.declare("digits_mlp", TASKS["line"])
    with pytest.raises(ValueError, match="optimizer momentum is declared already"):
        OPTIMIZERS.declare("momentum", OPTIMIZERS["signs"])
