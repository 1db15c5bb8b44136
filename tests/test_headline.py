"""The headline study: its law, and that README quotes it."""

import json
from pathlib import Path

from tests.commands import here
from tests.configs import ROOT


def test_the_headline_study_states_the_law(folder: Path) -> None:
    here(folder, "run", "-m", "sweeps=headline")
    found = json.loads(here(folder, "report", "headline", "--format", "json"))
    assert sum(cell["n_runs"] for cell in found["cells"]) == 5808
    assert all(claim["holds"] for claim in found["claims"]) and len(found["claims"]) == 4
    low, high = found["ratio"]["ci"]
    assert f"c^{found['ratio']['slope']:.3f} [{low:.3f}, {high:.3f}]" in (ROOT / "README.md").read_text()
    worst = max(abs(cell["lr_best"] / cell["lr_theory"] - 1) for cell in found["cells"] if cell["batch_size"] < 1024)
    assert worst < 0.15
