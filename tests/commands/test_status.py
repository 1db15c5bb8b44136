"""How far a study is: counted from its records, and told from another process while it runs."""

import io
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import chdir, closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from lrscale.locks import is_locked, study_lock
from lrscale.run import status as progress
from lrscale.run.status import Status, look, status
from lrscale.tracking.store import Store
from tests.mlflow_ui.test_study_views import study, trials_of
from tests.program import STUDY, TINY, here, lrscale


def test_trials_are_counted_cell_by_cell_and_others_left_aside() -> None:
    record = study([1, 4])
    trials = [*trials_of(record, 9)[:30], *trials_of(study([2]), 9)]
    found = status(record, trials, "running", 5.0, 1.0)
    assert (found.cells_done, found.cells, found.trials_done, found.trials) == (3, 4, 30, 36)
    assert found.trainings == 60 and found.diverged == 2 * 2 * 3


def test_its_lines_fit_80_columns() -> None:
    far = Status("interrupted", 999, 999, 99999, 99999, 9999999, 999999, 1e6, 1e6)
    out = io.StringIO()
    Console(file=out, width=80).print("\n".join(far.lines("steps_to_target")))
    assert len(out.getvalue().splitlines()) == 2


def test_a_lock_is_held_while_a_study_runs_and_no_longer(folder: Path) -> None:
    store = folder / "mlflow.db"
    assert not is_locked("mine", store) and not (folder / "studies").exists()
    with study_lock("mine", [store]):
        asked = f"from pathlib import Path; from lrscale.locks import is_locked; print(is_locked('mine', Path({str(store)!r})))"
        assert subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True).stdout == "True\n"
    assert not is_locked("mine", store)


def test_a_finished_study_no_study_and_one_that_runs(folder: Path) -> None:
    assert "`--tracking-uri`" in here(folder, "status", status=2)
    here(folder, "run", "-m", *TINY)
    said = lrscale(folder, "status", "--watch")
    assert "finished after" in said and "4/4 cells, 24/24 trials, 48 trainings" in said
    _tells_without_heavy_imports(folder)
    _tells_the_study_that_runs_first(folder)
    _goes_on_where_its_folder_was_moved(folder)


def _tells_without_heavy_imports(folder: Path) -> None:
    asked = "import sys; from lrscale.run.status import print_status; print_status(None, 'sqlite:///mlflow.db', True)"
    code = f"{asked}; print(sorted({{'torch', 'optuna', 'matplotlib', 'mlflow', 'sqlalchemy', 'scipy'}} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder).stdout.splitlines()
    assert "finished after" in said[0] and said[-1] == "[]"


def _tells_the_study_that_runs_first(folder: Path) -> None:
    here(folder, "run", "-m", "batch_size=4", "seeds=2", "hydra.sweeper.n_trials=2", "hydra.sweeper.study_name=later", TINY[-1])
    assert "later: finished" in here(folder, "status")
    with closing(sqlite3.connect(folder / "mlflow.db")) as base, study_lock(STUDY, [folder / "mlflow.db"]):
        base.execute("UPDATE runs SET status = 'RUNNING' WHERE name = ?", (f"study {STUDY}",))
        base.commit()
        assert f"{STUDY}: running" in here(folder, "status")
        with chdir(folder):  # where MLflow is asked too
            store = Store.existing("sqlite:///mlflow.db")
            assert look(store, *[s for s in store.running() if s.plan.study == STUDY]).trials_done == 24
        threading.Timer(0.5, lambda: _end(folder)).start()
        followed = here(folder, "status", "-f").splitlines()
    assert f"{STUDY}: running" in followed[0] and f"{STUDY}: finished" in followed[-1]


def test_a_watched_study_that_is_started_again_is_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = ["interrupted", "interrupted", "running", "interrupted", "finished"]
    found = iter(Status(state, 0, 1, 0, 1, 0, 0, 1.0, None) for state in states)
    store = SimpleNamespace(study=lambda name: SimpleNamespace(plan=SimpleNamespace(study="s")), running=list)
    monkeypatch.setattr(progress.QuickReader, "existing", lambda uri: store)
    monkeypatch.setattr(progress, "look", lambda *given: next(found))
    monkeypatch.setattr(progress, "LOOK_SECONDS", 0.0)
    assert [line.split()[1] for line in here(folder, "status", "s", "--watch").splitlines()] == states
    known = Status("running", 0, 1, 0, 1, 0, 0, 1.0, None), Status("finished", 0, 1, 1, 1, 1, 0, 1.0, None)
    looks = iter([known[0], progress.NotHere(), known[1]])
    monkeypatch.setattr(progress, "_reader", lambda uri: store)

    def looking(*given: object) -> Status:
        if isinstance(seen := next(looks), Exception):
            raise seen
        return seen

    monkeypatch.setattr(progress, "look", looking)
    assert [line.split()[1] for line in here(folder, "status", "s", "--watch").splitlines()] == ["running", "finished"]
    monkeypatch.setattr(progress, "look", lambda *given: next(found))
    found = iter([Status("interrupted", 0, 1, 0, 1, 0, 0, 1.0, None)] * 2)
    monkeypatch.setattr(progress, "RESTART_SECONDS", -1.0)
    assert "interrupted" in here(folder, "status", "s", "--watch")


def _end(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "mlflow.db")) as base:
        base.execute("UPDATE runs SET status = 'FINISHED' WHERE name = ?", (f"study {STUDY}",))
        base.commit()


def _goes_on_where_its_folder_was_moved(folder: Path) -> None:
    shutil.copytree(folder, copy := folder.with_name("copy"))
    assert "later: finished" in here(copy, "status") and "later: finished" in here(copy, "status", "later")
    assert "`STUDY` must be a study" in here(copy, "status", "none", status=2)
