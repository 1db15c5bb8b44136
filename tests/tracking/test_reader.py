"""What makes large stores quick to read."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from lrscale.tracking.store import Store
from tests.program import _empty_store


def test_the_end_of_a_study_leaves_statistics_for_sqlites_planner(folder: Path) -> None:
    shutil.copy(_empty_store(), folder / "mlflow.db")
    store = Store("sqlite:///mlflow.db")
    run = store.client.create_run(store.experiment("a study"))
    store.finish_study(run.info.run_id, "FINISHED")
    store.prepare_sorting()
    with closing(sqlite3.connect("mlflow.db")) as base:
        assert ("runs",) in base.execute("SELECT tbl FROM sqlite_stat1").fetchall()
    assert store.client.get_run(run.info.run_id).info.status == "FINISHED"
