"""How far a study is: counted from its records, and told from another process while it runs."""

import io
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from lrscale.locks import is_locked, study_lock
from lrscale.run.status import Status, status
from tests.mlflow_ui.test_study_views import study, trials_of
from tests.program import TINY, here, lrscale


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


def test_a_finished_study_and_no_study(folder: Path) -> None:
    assert "`--tracking-uri`" in here(folder, "status", status=2)
    here(folder, "run", "-m", *TINY)
    said = lrscale(folder, "status", "--watch")
    assert "finished after" in said and "4/4 cells, 24/24 trials, 48 trainings" in said


def test_status_does_not_import_torch(folder: Path) -> None:
    code = "import sys, lrscale.run.status; print(sorted({'torch', 'optuna', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder).stdout == "[]\n"
