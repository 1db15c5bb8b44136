"""The studies that README publishes: run afresh, their claims and numbers are those that it quotes."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.commands import here
from tests.configs import ROOT

README = (ROOT / "README.md").read_text()
FAILING = {"lr_sum*/lr_mean* is 1 at every B (adagrad)"}


def run(folder: Path, name: str) -> dict[str, Any]:
    here(folder, "run", "-m", f"sweeps={name}")
    found: dict[str, Any] = json.loads(here(folder, "report", name, "--format", "json"))
    return found


def row(name: str) -> str:
    return next(line for line in README.splitlines() if line.startswith(f"| `{name}` |"))


def quoted(value: float, ci: list[float], digits: int = 3) -> str:
    return f"{value:.{digits}f} [{ci[0]:.{digits}f}, {ci[1]:.{digits}f}]"


@pytest.mark.parametrize("name", ["epochs", "steps_to_target", "fixed_steps", "adam"])
def test_a_fresh_run_gives_what_readme_says(folder: Path, name: str) -> None:
    found = run(folder, name)
    assert found["claims"] and {claim["name"] for claim in found["claims"] if not claim["holds"]} <= FAILING
    text = row(name)
    if name in ("epochs", "adam"):
        assert all(f"c^{quoted(ratio['slope'], ratio['ci'])}" in text for ratio in found["ratios"])
    if name == "steps_to_target":
        assert all(quoted(turn["b_c"], turn["ci"], 0) in text for turn in found["turn_over"])
    if name == "fixed_steps":
        slope = next(s for s in found["slopes"] if s["reduction"] == "sum" and s["range"] == "all")
        assert quoted(slope["slope"], slope["ci"]) in text
    if name == "epochs":
        worst = [claim["measured"] for claim in found["claims"] if claim["name"].startswith("lr* is where")]
        assert [round(100 * w + 0.5) for w in worst] == [4, 3]
    if name == "adam":
        assert {claim["name"] for claim in found["claims"] if not claim["holds"]} == FAILING
