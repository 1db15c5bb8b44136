"""Stores that travel: a folder that was moved, copied or made read-only, deleted studies, and a stranger's database."""

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from lrscale.errors import Refusal
from lrscale.system import this_machine
from lrscale.tracking.client import make_database
from lrscale.tracking.store import Store
from tests.program import STUDY, TINY, here

MORE = [text.replace("n_trials=6", "n_trials=7") for text in TINY]


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "optuna" not in path.name}


def places(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        rows = connection.execute("SELECT artifact_uri FROM runs UNION SELECT artifact_location FROM experiments").fetchall()
    return [str(place) for (place,) in rows]


@pytest.fixture
def store(tiny: Path, tmp_path: Path) -> Path:
    """A copy of a finished study, whose original is still there."""
    return Path(shutil.copytree(tiny, tmp_path / "a copy"))


def test_a_copy_goes_on_and_never_writes_into_the_original(tiny: Path, store: Path) -> None:
    before = files_of(tiny / "mlartifacts")
    here(store, "run", "-m", *MORE)
    assert "24/24" not in here(store, "status") and "28/28 trials" in here(store, "status")
    here(store, "report")
    assert files_of(tiny / "mlartifacts") == before
    assert not [place for place in places(store) if str(tiny) in place]
    assert Store.existing(f"sqlite:///{store}/mlflow.db").files(study_run(store), "figures")


def study_run(folder: Path) -> str:
    return Store.existing(f"sqlite:///{folder}/mlflow.db").study(STUDY).run_id


def test_a_moved_folder_is_read(store: Path, tmp_path: Path) -> None:
    before = here(store, "report", "--format", "json")
    moved = Path(shutil.move(store, tmp_path / "moved"))
    assert here(moved, "report", "--format", "json") == before


def test_a_store_under_two_paths_is_read_and_never_rewritten(store: Path, tmp_path: Path) -> None:
    text = here(store, "report")
    before = places(store)
    second = tmp_path / "mounted"
    second.mkdir()
    subprocess.run(["mount", "--bind", str(store), str(second)], check=True)
    try:
        assert here(second, "report") == text and places(store) == before
    finally:
        subprocess.run(["umount", "--lazy", str(second)], check=True)


def test_places_are_not_rewritten_while_a_study_runs_under_another_path(store: Path, tmp_path: Path) -> None:
    text = here(store, "report", "--format", "json")
    moved = Path(shutil.move(store, tmp_path / "seen by the container"))
    before, database = places(moved), f"sqlite:///{moved}/mlflow.db"
    lock = moved / "studies" / "other.lock"
    code = "import sys; from pathlib import Path; from lrscale.locks import file_lock; held = file_lock(Path(sys.argv[1])); "
    command = [sys.executable, "-c", code + "print(1, flush=True); input()", str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None and other.stdout is not None and other.stdout.readline() == "1\n"
        assert here(moved, "report", "--format", "json") == text
        with pytest.raises(Refusal, match=r"reached by one path while a study runs.* runs other there"):
            Store(database)
        assert places(moved) == before
        other.stdin.close()
    Store(database)
    assert places(moved) != before


def test_a_database_that_came_alone_says_what_belongs_to_it(store: Path) -> None:
    shutil.rmtree(store / "mlartifacts")
    for command in ("status", "report", "ui"):
        assert "Bring the folder mlartifacts along, which belongs beside mlflow.db" in here(store, command, status=1)


def test_a_store_that_cannot_be_written_is_read_and_left_as_it_is(tiny: Path, store: Path) -> None:
    before = files_of(store)
    with mounted_read_only(store):
        text = here(store, "report")
        assert "24/24 trials" in here(store, "status")
        assert "writable" in here(store, "run", "-m", *MORE, status=2)
    assert text.startswith("study ") and files_of(store) == before


class mounted_read_only:
    """A context in which a folder is mounted on itself and cannot be written, also not by root."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        subprocess.run(["mount", "--bind", str(self.folder), str(self.folder)], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(self.folder)], check=True)

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


def test_what_was_deleted_in_mlflow_is_said_and_a_resumed_study_takes_its_trials_back(store: Path) -> None:
    opened = Store(f"sqlite:///{store}/mlflow.db")
    old = opened.study(STUDY)
    other = opened.client.create_run(old.experiment_id, tags={"mlflow.parentRunId": "theirs"})  # of another program, running
    opened.client.delete_run(old.run_id)
    for command in ("status", "report", "ui", "publish"):
        said = here(store, command, STUDY, status=2)
        assert f"mlflow runs restore --run-id {old.run_id}" in said and said.count("\n") == 1
    here(store, "run", "-m", *TINY)
    new = opened.study(STUDY)
    trials = opened.client.search_runs([old.experiment_id], "tags.`lrscale.kind` = 'trial'")
    assert len(trials) == 24 and {run.data.tags["mlflow.parentRunId"] for run in trials} == {new.run_id}
    run = opened.client.get_run(other.info.run_id)
    assert (run.info.status, run.data.tags["mlflow.parentRunId"]) == ("RUNNING", "theirs")
    opened.client.delete_experiment(old.experiment_id)
    for arguments in (("status", STUDY), ("report", STUDY), ("run", "-m", *TINY)):
        assert f"mlflow experiments restore --experiment-id {old.experiment_id}" in here(store, *arguments, status=2)


@pytest.mark.parametrize("place", ["http://192.0.2.1/a", "s3://theirs/a", "file://theirs/a", "//theirs/a"])
def test_a_strangers_database_makes_no_connection(place: str, store: Path) -> None:
    with closing(sqlite3.connect(store / "mlflow.db")) as connection:
        connection.execute("UPDATE runs SET artifact_uri = ?", (place,))
        connection.commit()
    for command in ("status", "report", "ui"):
        assert "must be a database whose artifacts lie on this machine" in here(store, command, STUDY, status=2)


def test_a_strangers_record_opens_no_database_server_of_optuna(store: Path) -> None:
    (record,) = store.glob(f"mlartifacts/*/{study_run(store)}/**/study.json")
    where = "postgresql://ann:secret@192.0.2.1/optuna"
    record.write_text(json.dumps({**json.loads(record.read_text()), "storage": where}))
    refused = here(store, "ui", "--no-browser", "--optuna", status=2)
    assert "must be told which database server to open" in refused and "--storage" in refused and "secret" not in refused
    alone = here(store, "ui", "--no-browser", "--storage", where, status=2)
    assert "Add --optuna" in alone and "secret" not in alone


def test_what_a_killed_creation_of_a_database_left_is_removed(folder: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    left = [folder / f".mlflow.db.{this_machine()}-{pid}-" for pid in (ended.pid, 1)]
    for file in left:
        file.touch()
    make_database(folder / "mlflow.db")
    assert [file.exists() for file in left] == [False, True]
