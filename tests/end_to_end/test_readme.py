"""README: its commands run, and every command and study is named."""

import re
import shlex
from pathlib import Path

import pytest

from lrscale.commands.cli import make_parser
from tests.configs import ROOT
from tests.program import here

README = (ROOT / "README.md").read_text()
USE = re.search(r"## Use\n\n```bash\n(.*?)```", README, re.S)
assert USE is not None


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    here(folder, "run", "-m", "sweeps=quickstart")
    return folder


@pytest.mark.parametrize("command", USE.group(1).strip().splitlines())
def test_each_command_runs(command: str, quickstart: Path) -> None:
    program, *arguments = shlex.split(command)
    assert program == "lrscale"
    assert here(quickstart, *arguments)


def test_every_command_and_sweep_is_named() -> None:
    commands = set(make_parser()._subparsers._group_actions[0].choices)  # type: ignore[union-attr,arg-type]
    assert all(f"lrscale {command}" in README for command in commands)
    assert all(
        f"| `{path.stem}` |" in README or f"`lrscale reproduce {path.stem}`" in README
        for path in (ROOT / "sweeps").glob("*.yaml")
    )


def test_the_set_up_commands_are_exactly_two() -> None:
    assert re.findall(r"<!-- command: (\w+) -->\n```bash", README) == ["run", "test"]
