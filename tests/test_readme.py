"""README: its commands run, and its numbers are those of a fresh run."""

import re
import shlex
from pathlib import Path

import pytest

from lrscale.cli import make_parser
from tests.commands import here
from tests.configs import ROOT

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


def test_the_numbers_are_those_of_a_fresh_run(quickstart: Path) -> None:
    import json

    here(quickstart, "run", "-m", "sweeps=quickstart")
    found = json.loads(here(quickstart, "report", "quickstart", "--format", "json"))
    low, high = found["ratio"]["ci"]
    measured = f"{found['ratio']['slope']:.3f} [{low:.3f}, {high:.3f}]"
    assert README.count(measured) == 2
    small = next(s for s in found["slopes"] if s["reduction"] == "sum" and s["range"] == "small")
    assert f"(slope {small['slope']:.2f} [{small['ci'][0]:.2f}, {small['ci'][1]:.2f}])" in README
    assert f"{len(found['cells'])} cells, {sum(cell['n_trials'] for cell in found['cells'])} trials of 8 seeds" in README


def test_every_command_and_sweep_is_named() -> None:
    commands = set(make_parser()._subparsers._group_actions[0].choices)  # type: ignore[union-attr,arg-type]
    assert all(f"lrscale {command}" in README for command in commands)
    assert all(f"| `{path.stem}` |" in README for path in (ROOT / "sweeps").glob("*.yaml"))


def test_the_set_up_commands_are_exactly_two() -> None:
    assert re.findall(r"<!-- command: (\w+) -->\n```bash", README) == ["run", "test"]
