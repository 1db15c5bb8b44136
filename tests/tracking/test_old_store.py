"""A store that an older version wrote and left in the middle of a study is read, reported and left as it is.

`old_store/` was written by the version before settings of the machine left a cell's identity (commit b2a91da): the first
round of a study of 4 cells is recorded, the second was interrupted. {FOLDER} stands for where it lies.
"""

import json
import lzma
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from lrscale.spec import Compute
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
    assert "10/24 trials" in here(old, "status", STUDY)  # two lie outside the interval


def test_the_same_command_trains_anew_and_says_so(old: Path) -> None:
    said = " ".join(here(old, "run", "-m", *TINY).split())
    assert "12 recorded trials of other settings or of an older lrscale: left out." in said
    assert "4 cells, 24 trials" in said and "in the store already" not in said
    assert [len(trials) for trials in lrs_of(old).values()] == [6] * 4
    assert optuna_states(old).count("COMPLETE") == 12 + 24


def test_a_study_that_was_swept_over_a_setting_of_the_machine_is_not_called_damaged(old: Path) -> None:
    file = old / "mlartifacts" / STUDY / RUN / "artifacts" / "study.json"
    document = json.loads(file.read_text())
    document["cells"][0]["scientific"]["threads"] = 1
    file.write_text(json.dumps(document))
    said = " ".join(here(old, "report", STUDY, status=2).split())
    assert "must be read by the lrscale that made it" in said and "damaged" not in said
