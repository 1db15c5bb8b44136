"""`lrscale new-task`: the file that it writes runs as it is, and no file is replaced."""

import shlex
from pathlib import Path

import pytest

from lrscale.commands.new_task import NEXT
from tests.program import here

QUICK = ["n_trials=3", "seeds=1", "budget.epochs=1"]


def test_the_task_runs_as_it_is_with_the_command_that_is_printed(folder: Path) -> None:
    said = here(folder, "new-task", "fresh")
    command = said.partition("next     ")[2].strip()
    assert command == NEXT.format("fresh") and command in (folder / "fresh.py").read_text()
    quick = [f"hydra.sweeper.{QUICK[0]}", *QUICK[1:]]
    answer = here(folder, *shlex.split(command)[1:], *quick)
    assert "mean b8" in answer and "sum b64" in answer and "valid_loss" in answer


def test_its_parameters_are_options(folder: Path) -> None:
    here(folder, "new-task", "other")  # Python remembers the folder of the first file of a name
    run = ["run", "task=other.py:make", "task.width=4", "optimizer=adamw", "objective=valid_error", "budget.epochs=1"]
    assert "valid_error" in here(folder, *run)
    assert "depth" in here(folder, *run, "+task.depth=2", status=2)


def test_a_file_that_is_there_stays(folder: Path) -> None:
    (folder / "mine.py").write_text("precious")
    assert here(folder, "new-task", "mine", status=2).startswith("lrscale: `NAME` must be of a file that is not there")
    (folder / "link.py").symlink_to(folder / "elsewhere.py")
    here(folder, "new-task", "link", status=2)
    assert (folder / "mine.py").read_text() == "precious" and not (folder / "elsewhere.py").exists()


@pytest.mark.parametrize("name", ["a-b", "1st", "class", "../up", "a.py", "__main__", "", "torch", "lrscale"])
def test_a_name_that_cannot_be_is_refused_in_one_line(folder: Path, name: str) -> None:
    said = here(folder, "new-task", "--", name, status=2)
    assert said.startswith("lrscale: `NAME`") and said.count("\n") == 1
    assert not list(folder.iterdir())
