"""Strict settings for all tests: warnings are errors (pyproject.toml), one torch thread, no store of the user's."""

import os
from pathlib import Path

import hypothesis
import pytest
import torch

collect_ignore = ["run/digits_notebook.py"]  # tests/run/test_notebook.py runs it
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ.pop("MLFLOW_TRACKING_URI", None)
torch.set_num_threads(1)
# a small study waits for the disk 100 times, and only a power cut could tell; processes that tests start do wait
os.fsync = lambda _: None
# how fast a machine draws examples says nothing of the program
hypothesis.settings.register_profile("any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("any machine")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the tiny study has been run without interruption; to read, or to copy."""
    from tests.program import TINY, here  # they import the program, which not every test needs

    folder = tmp_path_factory.mktemp("tiny")
    here(folder, "run", "-m", *TINY)
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
