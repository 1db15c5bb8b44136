"""A store that an older version wrote and left in the middle of a study is read, continued and reported.

`old_store/` was written by the version before settings of the machine left a cell's identity (commit b2a91da): the first
round of a study of 4 cells is recorded, the second was interrupted. {FOLDER} stands for where it lies.
"""

import json
import lzma
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from lrscale.spec import Compute
from lrscale.study.config import identity
from lrscale.study.document import cell_id, without_compute
from lrscale.tracking.store import Store
from tests.program import STUDY, TINY, here
from tests.run.test_study import lrs_of, optuna_states

OLD = Path(__file__).parent / "old_store"
RUN = "a48c3b3fb781476098964deae0509793"


@pytest.fixture
def old(folder: Path) -> Path:
    """A folder with the old store."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        connection.executescript(lzma.decompress((OLD / "mlflow.sql.xz").read_bytes()).decode().replace("{FOLDER}", str(folder)))
    shutil.copy(OLD / "journal.jsonl", folder / "optuna.journal")
    artifacts = folder / "mlartifacts" / STUDY / RUN / "artifacts"
    artifacts.mkdir(parents=True)
    shutil.copy(OLD / "study.json", artifacts)
    return folder


def test_it_is_read(old: Path) -> None:
    study = Store.existing(f"sqlite:///{old}/mlflow.db").study(STUDY)
    assert study.compute == Compute(threads=1, memory_mb=1024)  # then part of each cell's config
    assert len(json.loads(here(old, "report", STUDY, "--format", "json"))["cells"]) == 4
    assert "12/24 trials" in here(old, "status", STUDY)


def test_it_is_continued_like_a_study_that_was_not_interrupted(old: Path, tiny: Path) -> None:
    before = lrs_of(old)
    assert sum(len(trials) for trials in before.values()) == 12
    assert "24 trials, 12 of them in the store already" in here(old, "run", "-m", *TINY)
    after, uninterrupted = lrs_of(old), lrs_of(tiny)
    assert optuna_states(old) == ["COMPLETE"] * 24
    for cell, trials in uninterrupted.items():
        assert set(before[cell]) <= set(after[cell])  # as they were
        assert [lr for lr, _ in after[cell]] == [lr for lr, _ in trials]
        for (_, ours), (_, theirs) in zip(after[cell], trials, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9)  # the old half is another processor's


def test_an_older_cell_with_other_threads_has_the_id_that_its_config_has_today() -> None:
    cell = json.loads((OLD / "study.json").read_text())["cells"][0]
    tuned = ("optimizer.lr",)
    assert cell_id(cell["id"], cell["config"], tuned) == cell["id"] == identity(without_compute(cell["config"]), tuned)
    assert cell_id("an older id", {**cell["config"], "threads": 2}, tuned) == cell["id"]


def test_a_study_that_was_swept_over_a_setting_of_the_machine_is_not_called_damaged(old: Path) -> None:
    file = old / "mlartifacts" / STUDY / RUN / "artifacts" / "study.json"
    document = json.loads(file.read_text())
    document["cells"][0]["scientific"]["threads"] = 1
    file.write_text(json.dumps(document))
    said = " ".join(here(old, "report", STUDY, status=2).split())
    assert "must be read by the lrscale that made it" in said and "damaged" not in said


def test_more_trials_continue_it_too_on_a_larger_machine(old: Path) -> None:
    more = [text.replace("n_trials=6", "n_trials=7") for text in TINY]
    said = here(old, "run", "-m", *more, "compute.memory_mb=2048", "compute.threads=2")
    assert "28 trials, 12 of them in the store already" in said
    assert sum(len(trials) for trials in lrs_of(old).values()) == 28
