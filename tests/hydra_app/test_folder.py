"""A run keeps a folder and a log as users of Hydra know them, and its paths still name the right files."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.program import here

OWN = """\
from pathlib import Path

import torch


class Lion(torch.optim.SGD):
    def __init__(self, params, lr: float = 0.1):
        Path("written.txt").write_text("here")
        super().__init__(params, lr=lr)
"""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Takes away the handlers that a command set up: pytest itself also listens.

    Loggers are heard again that a migration of Optuna's tables has disabled in an earlier test.
    """
    root = logging.getLogger()
    for name in [name for name in logging.root.manager.loggerDict if name.partition(".")[0] in ("lrscale", "hydra")]:
        logging.getLogger(name).disabled = False
    level, handlers = root.level, list(root.handlers)
    yield
    for name in ("lrscale", "hydra"):
        for handler in list(logging.getLogger(name).handlers):
            logging.getLogger(name).removeHandler(handler)
            handler.close()
        logging.getLogger(name).setLevel(logging.NOTSET)
    root.setLevel(level)
    root.handlers[:] = handlers


def test_a_single_run_works_in_its_folder_and_records_beside_the_others(folder: Path) -> None:
    (folder / "mine.py").write_text(OWN)
    said = here(folder, "run", "optimizer=mine.py:Lion", "hydra.run.dir=out/a", "hydra.job.chdir=true")
    assert {file.name for file in (folder / "out" / "a").iterdir()} == {".hydra", "lrscale.log", "written.txt"}
    assert {file.name for file in folder.iterdir()} >= {"mine.py", "mlflow.db"} and "recorded as" in said
    assert "excess_risk" in (folder / "out" / "a" / "lrscale.log").read_text()
    assert "optimizer=mine.py:Lion" in (folder / "out" / "a" / ".hydra" / "overrides.yaml").read_text()


def test_a_study_has_a_folder_for_each_job_and_says_details(folder: Path) -> None:
    (folder / "mine.py").write_text(OWN)
    study = ["optimizer=mine.py:Lion", "optimizer.lr=tag(log,interval(1e-3,1))", "hydra.sweeper.n_trials=2", "batch_size=8,64"]
    said = here(folder, "run", "-m", *study, "hydra.sweep.dir=jobs", "hydra.job.chdir=true", "hydra.verbose=true")
    assert (folder / "jobs" / "0" / ".hydra" / "config.yaml").is_file()
    assert not (folder / "jobs" / "0" / "mlflow.db").exists() and (folder / "mlflow.db").is_file()
    assert "4 trials" in (folder / "jobs" / "lrscale.log").read_text()
    assert "DEBUG: job 0:" in said


def test_no_folder_is_made_for_a_training_that_is_refused(tmp_path: Path) -> None:
    for wrong in ("batch_size=0", "cells=[]", "compute.threads=0", "+foo=1"):
        said = here(tmp_path, "run", "hydra.run.dir=out/a", wrong, status=2, empty=False)
        assert said.count("\n") == 1 and said.startswith("lrscale: `")
    assert list(tmp_path.iterdir()) == []
