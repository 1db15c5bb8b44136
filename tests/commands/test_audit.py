"""`lrscale audit`: which code it runs and how, its exit status, and what it refuses."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from lrscale.commands.audit import AUDIT_ABOUT, AUDIT_EXAMPLES
from lrscale.commands.cli import main
from lrscale.training.reduction import REDUCTIONS
from tests.configs import ROOT
from tests.program import here

MINE = """
import torch
from torch import nn
from torch.nn import functional as F
from beside import SIZE

torch.manual_seed(0)
model = nn.Linear(4, 3)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
batch = (torch.randn(SIZE, 4), torch.randint(0, 3, (SIZE,)))
accumulation = 2


def right(micro_batches):
    print("the user's own line")
    optimizer.zero_grad()
    for x, y in micro_batches:
        (F.cross_entropy(model(x), y) / len(micro_batches)).backward()
    optimizer.step()


def undivided(micro_batches):
    optimizer.zero_grad()
    for x, y in micro_batches:
        F.cross_entropy(model(x), y).backward()
    optimizer.step()


def reference(batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def makes_right():
    return right, batch, model, {"accumulation": 2, "reference": reference}


def makes_undivided():
    return undivided, batch, model, {"accumulation": 4, "reference": reference}


def without_gradient():
    return right, batch, nn.Linear(1, 1)


def two(step, batch):
    pass


def fails():
    return 1 / 0


def wrong_type():
    return 3


def wrong_option():
    return right, batch, model, {"acumulation": 2}


def too_small():
    return right, (batch[0][:3], batch[1][:3]), model


def of_a_loader():
    return right, torch.utils.data.DataLoader(batch[0]), model


def step_fails():
    def step(micro_batches):
        raise KeyError("gone")
    return step, batch, model
"""
TASK = """
import torch
from torch import nn
import lrscale


def make(width: int = 4) -> lrscale.Task:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 3, generator=generator), torch.randn(40, 2, generator=generator)
    return lrscale.Task(lambda: nn.Sequential(nn.Linear(3, width), nn.Linear(width, 2)), nn.MSELoss(), (x, y), (x, y))
"""
TERMS = 6 * 2
"""The terms of the 6 examples that an audit takes, of two outputs each."""


def line(text: str) -> int:
    """The number of the line of MINE that holds a text."""
    return MINE.partition(text)[0].count("\n") + 1


@pytest.fixture
def mine(folder: Path) -> Path:
    (folder / "mine.py").write_text(f"{MINE}\n# {folder}\n")  # a file of the same bytes is run once in a process
    (folder / "beside.py").write_text("SIZE = 8\n")
    (folder / "task.py").write_text(TASK)
    (folder / "part.py").write_text("from .beside import SIZE\n")
    (folder / "ends.py").write_text("import sys\n\nsys.exit()\n")
    (folder / "arguments.py").write_text(f"import argparse\nargparse.ArgumentParser().parse_args()\n{MINE}\n# {folder}\n")
    (folder / "broken.py").write_text("\nimport no_such_module\n")
    return folder


def document(capsys: pytest.CaptureFixture[str], *arguments: str, status: int) -> dict[str, Any]:
    assert main(["audit", *arguments, "--format", "json"]) == status
    out, _ = capsys.readouterr()
    read: dict[str, Any] = json.loads(out)
    return read


@pytest.mark.parametrize(("name", "status"), [("right", 0), ("undivided", 1), ("without_gradient", 1), ("fails", 2)])
def test_the_exit_status_is_the_answer(name: str, status: int, mine: Path) -> None:
    said = here(mine, "audit", f"mine.py:{name}", status=status)
    first = next(line for line in said.splitlines() if line != "the user's own line")
    answers = ["The update is invariant", "The update depends on", "This step could not be audited."]
    assert first.startswith(
        (*answers[status:], "lrscale: ")[0 if status < 2 else -1] if name != "without_gradient" else answers[2]
    )


def test_both_forms_of_a_step_say_the_same(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert document(capsys, "mine.py:right", status=0) == document(capsys, "mine.py:makes_right", status=0)


def test_only_the_answer_is_on_standard_output(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "mine.py:right"]) == 0
    out, err = capsys.readouterr()
    assert "the user's own line" not in out and "the user's own line" in err


def test_a_file_that_reads_the_command_line_sees_no_arguments(
    mine: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["lrscale", "audit", "arguments.py:right"])
    assert document(capsys, "arguments.py:right", status=0)["ok"] is True


def test_options_of_the_command_line_come_before_those_of_the_file(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, factor in (([], 4), (["--accumulation", "3"], 3)):
        found = document(capsys, "mine.py:makes_undivided", *arguments, status=1)
        assert found["numbers"]["accumulation_factor"] == pytest.approx(factor)
        assert [finding["kind"] for finding in found["findings"] if finding["is_mistake"]] == ["not divided"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "`STEP` or `--task` must be given, and not both, got neither"),
        (["mine.py:right", "--task", "task.py:make"], "`STEP` or `--task` must be given, and not both, got both"),
        (["mine.py"], "Write FILE.py:NAME"),
        (["gone.py:right"], "`STEP` must name a file that exists, got 'gone.py:right'"),
        (["mine.py:nothing"], "got 'nothing'. It defines right, undivided, reference, makes_right"),
        (["mine.py:batch"], "got 'batch', which is no function"),
        (["mine.py:two"], "must have no required parameter or one, got 2: step, batch"),
        (["mine.py:fails"], f"got ZeroDivisionError: division by zero (mine.py, line {line('1 / 0')})"),
        (["mine.py:wrong_type"], "must return (step, batch, model) or (step, batch, model, options), got int"),
        (["mine.py:wrong_option"], "options with keys of accumulation, reference, collate, restore, got acumulation"),
        (["mine.py:too_small"], "`batch` must have 4 examples or more, got 3"),
        (
            ["mine.py:step_fails"],
            f"made of 1 to 24 of the batch's examples, got KeyError: 'gone' (mine.py, line {line('KeyError')})",
        ),
        (["beside.py:f"], "It defines none"),
        (["part.py:f"], "Name it as a part of its package, with PYTHONPATH=FOLDER and package.module:NAME."),
        (["ends.py:f"], "`STEP` ends.py:f must run, got SystemExit (ends.py, line 3)."),
        (["mine.py:of_a_loader"], "must have 4 examples or more, got DataLoader, in which no tensor was found"),
        (["broken.py:f"], "ModuleNotFoundError: No module named 'no_such_module' (broken.py, line 2)"),
        (["task.py:make"], "returns a lrscale.Task. Audit it with: lrscale audit --task task.py:make"),
        (["mine.py:right", "--accumulation", "0"], "`accumulation` must be a whole number"),
        (["mine.py:right", "--ranks", "2"], "must have no required parameter where --ranks is given, got micro_batches"),
        (["mine.py:right", "--reduction", "sum"], "`--reduction` goes with --task"),
        (["mine.py:right", "--option", "width=8"], "`--option` goes with --task"),
        (["mine.py:right", "--figure", "a.pdf"], "`--figure` must be a .png or .svg file"),
        (["mine.py:right", "--figure", "no/a.png"], "in a folder that exists"),
        (["mine.py:right", "--record", "--tracking-uri", "nowhere"], "`tracking.uri` must start with"),
        (["--task", "task.py:make", "--ranks", "2"], "`--ranks` goes with a step"),
        (["--task", "task.py:make", "--reduction", "max"], "`--reduction` must be one of mean, sum, sum_over_nominal, got 'max'"),
        (["--task", "task.py:make", "--option", "depth=8"], "`--option` must be one of width, got depth"),
        (["--task", "task.py:make", "--option", "width"], "`--option` must be KEY=VALUE, got width"),
        (["--task", "task.py:make", "--option", "width=wide"], "`--option width` must be a whole number, got 'wide'"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(
    arguments: list[str], said: str, mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(mine.iterdir())
    assert main(["audit", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("lrscale: `") and err.count("\n") == 1
    assert said in err
    assert [file for file in sorted(mine.iterdir()) if file.name != "__pycache__"] == before


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_task_has_the_c_of_its_reduction(reduction: str, mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = 0 if reduction == "mean" else 1
    found = document(capsys, "--task", "task.py:make", "--reduction", reduction, "--accumulation", "2", status=status)["numbers"]
    c = {"mean": 1, "sum": 2 * TERMS, "sum_over_nominal": 2 * TERMS / 6}[reduction]  # of two micro-batches
    assert found["c"] == pytest.approx(c) and found["accumulation_factor"] == pytest.approx(1)
    assert found["growth"] == pytest.approx(float(status)) and found["optimizer"] == "SGD"


def test_options_of_a_task_reach_its_function(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    norms = {
        width: document(capsys, "--task", "task.py:make", *given, status=0)["numbers"]["sizes"][0]["gradient_norm"]
        for width, given in {4: [], 40: ["--option", "width=40"], 5: ["--option", "width=4"]}.items()
    }
    assert norms[4] == norms[5] != norms[40]


def test_the_picture_is_written(mine: Path) -> None:
    said = here(mine, "audit", "mine.py:right", "--figure", "audit.png")
    assert said.endswith("picture  audit.png\n") and (mine / "audit.png").read_bytes()[1:4] == b"PNG"
    said = here(mine, "audit", "mine.py:without_gradient", "--figure", "none.svg", status=1)
    assert said.endswith("no picture: no gradient was measured\n") and not (mine / "none.svg").exists()


def test_help_tells_the_exit_status_and_its_examples_parse(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["audit", "--help"])
    said = capsys.readouterr().out
    assert AUDIT_ABOUT in said and AUDIT_EXAMPLES.strip() in said and max(map(len, AUDIT_EXAMPLES.splitlines())) <= 130
    assert all(text in said for text in ("0 where the update is invariant", "1 where it is not or cannot", "2 where the input"))


def test_the_weights_of_a_task_are_put_back(mine: Path) -> None:
    from lrscale.audit.audit import audit
    from lrscale.audit.task_step import task_step
    from lrscale.tasks.own import Task

    x = torch.randn(8, 3)
    task = Task(lambda: torch.nn.Linear(3, 1), torch.nn.MSELoss(), (x, x[:, :1]), (x, x[:, :1]))
    before = [parameter.clone() for parameter in task.module.parameters()]
    step, batch, model, options = task_step(task, "sum")
    audit(step, batch, model, **options)
    assert all(torch.equal(a, b) for a, b in zip(before, task.module.parameters(), strict=True))


README = (ROOT / "src" / "lrscale" / "audit" / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.S | re.M)
TINY = re.compile(r"(\d+e-\d+|0 %) of it|\d+ runs")
"""Rounding, which differs from machine to machine, and how many runs it took to see it."""


def test_the_readme_shows_what_the_command_prints(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    (folder / "mine.py").write_text(next(text for language, text in BLOCKS if language == "python"))
    shown = [text for language, text in BLOCKS if language == "console"]
    assert shown
    for text in shown:
        command, _, output = text.partition("\n")
        printed = here(folder, *shlex.split(command)[2:], status=1)
        assert TINY.sub("#", printed) == TINY.sub("#", output)


def test_the_code_in_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    from lrscale.audit.check import assert_batch_invariant

    scope: dict[str, Any] = {}
    for language, text in BLOCKS:
        if language == "python":
            exec(text, scope)
    assert {finding.kind for finding in scope["result"].findings if finding.is_mistake} == {"not divided"}
    assert "The update is invariant" in capsys.readouterr().out
    with pytest.raises(AssertionError, match="The update depends on"):
        assert_batch_invariant(scope["step"], scope["batch"], scope["model"], accumulation=4)
    scope["test_the_step_averages"](assert_batch_invariant)


RANKS = """
import torch
import torch.distributed as group
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def make():
    torch.manual_seed(0)
    model = net = nn.Linear(3, 1)
    if group.get_world_size() > 1:
        model = DistributedDataParallel(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    def step(micro_batches):
        optimizer.zero_grad()
        for x in micro_batches:
            model(x).square().mean().backward()
        optimizer.step()

    return step, torch.randn(6, 3), net
"""


@pytest.mark.parametrize("ranks", [2, 4])  # of 4, each has one example, which it ran before
def test_a_function_is_called_in_each_process(ranks: int, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "ddp.py").write_text(RANKS)
    numbers = document(capsys, "ddp.py:make", "--ranks", str(ranks), status=0)["numbers"]
    assert numbers["ranks"] == ranks and numbers["ranks_over_one_process"] == pytest.approx(1.0, abs=1e-4)


def test_an_error_in_one_rank_is_a_line(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    wrong = "    optimizer.zero_grad()\n        model(micro_batches[0][:, : 3 - group.get_rank()])\n"
    (folder / "ill.py").write_text(RANKS.replace("    optimizer.zero_grad()\n", wrong))
    assert main(["audit", "ill.py:make", "--ranks", "2"]) == 1
    _, err = capfd.readouterr()
    assert err.startswith("lrscale: Rank 1 of 2 failed: RuntimeError: ") and err.count("\n") == 1 and "(ill.py, line 17)" in err
