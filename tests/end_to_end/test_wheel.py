"""The wheel brings conf/, sweeps/ and what is published along, so that an install works in an empty folder."""

import os
import subprocess
import sys
from pathlib import Path

from tests.configs import ROOT
from tests.program import TINY, lrscale


def test_the_wheel_runs_a_study_outside_the_repository(tmp_path: Path) -> None:
    site, folder = tmp_path / "site", tmp_path / "empty"
    folder.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", str(site), str(ROOT)]
    subprocess.run(pip, check=True, capture_output=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    code = "import lrscale; print(lrscale.__file__)"
    env = {**os.environ, "PYTHONPATH": str(site)}
    found = subprocess.run([sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, text=True, check=True).stdout
    assert found.startswith(str(site))
    said = lrscale(folder, "run", "-m", "sweeps=quickstart", *TINY[:4], PYTHONPATH=str(site))
    assert "lr_sum*/lr_mean* goes with c" in said
    assert str(ROOT) not in said
    results = Path("sweeps", "results", "quickstart", "record.json")
    assert (site / "lrscale" / results).read_text() == (ROOT / results).read_text()
