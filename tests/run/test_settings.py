"""A study is its settings: another interval is another question, and no trial of it is mixed in silently."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lrscale.study.records import TrialRecord
from lrscale.tracking.store import Store
from tests.program import here

STUDY = ("run", "-m", "batch_size=4,16", "reduction=sum,mean", "drop_last=true", "seeds=2", "hydra.sweeper.study_name=s")


def run(folder: Path, low: str, high: str, n_trials: int = 4, *more: str) -> str:
    lr = f"optimizer.lr=tag(log,interval({low},{high}))"
    return " ".join(here(folder, *STUDY, lr, f"hydra.sweeper.n_trials={n_trials}", *more).split())


def trials(folder: Path) -> list[TrialRecord]:
    store = Store.existing(f"sqlite:///{folder}/mlflow.db")
    return store.trials(store.study("s").experiment_id)


def report(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(here(folder, "report", "s", "--format", "json"))
    return loaded


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Path]:
    """Folders in which the study has been run once, by its lowest lr and its number of trials; to copy."""
    done = {}
    for low, n_trials in (("1e-3", 4), ("1e-2", 4), ("1e-3", 6)):
        done[low, n_trials] = tmp_path_factory.mktemp("once")
        run(done[low, n_trials], low, "1", n_trials)
    return done


def copied(done: Path, folder: Path) -> None:
    shutil.copytree(done, folder, dirs_exist_ok=True)


def test_another_interval_is_another_question(once: dict[tuple[str, int], Path], folder: Path) -> None:
    copied(once["1e-3", 4], folder)
    first = trials(folder)
    said = run(folder, "1e-6", "1e-5")
    assert "16 recorded trials outside what is asked (optimizer.lr = 1e-06 to 1e-05): left out." in said
    new = [trial for trial in trials(folder) if trial not in first]
    assert len(new) == 16 and all(trial.params["optimizer.lr"] <= 1e-5 for trial in new)
    found = report(folder)
    assert found["left_out"] == 16 and all(cell["n_trials"] == 4 for cell in found["cells"])
    assert all(cell["at_edge"] and cell["lr_best_ci"] is None for cell in found["cells"])
    assert found["ratio"]["verdict"] == "cannot tell"
    assert "16 recorded trials outside" in run(folder, "1e-3", "1") and report(folder)["left_out"] == 16


def test_widening_does_not_bring_trials_of_another_interval_in(once: dict[tuple[str, int], Path], folder: Path) -> None:
    copied(once["1e-3", 4], folder)
    said = run(folder, "1e-6", "1e-5", 4, "hydra.sweeper.widen=true")
    assert "16 recorded trials outside" in said and len(trials(folder)) > 16


def test_trials_inside_a_wider_interval_are_used(once: dict[tuple[str, int], Path], folder: Path) -> None:
    copied(once["1e-2", 4], folder)
    said = run(folder, "1e-3", "1", 6)
    assert "16 recorded trials made in another interval, inside what is asked: used." in said
    assert len(trials(folder)) == 24 and all(cell["n_trials"] == 6 for cell in report(folder)["cells"])


def test_rounds_of_two_questions_are_kept_apart(once: dict[tuple[str, int], Path], folder: Path) -> None:
    copied(once["1e-2", 4], folder)
    run(folder, "1e-4", "1e-3")
    run(folder, "1e-2", "1", 8)
    store = Store.existing(f"sqlite:///{folder}/mlflow.db")
    everything = trials(folder)
    references = {cell.id for cell in store.study("s").plan.cells if cell.twin is None}
    for trial in (trial for trial in everything if trial.cell in references):
        together = store.work(trial.run_id).together
        asked = [t.settings["intervals"] for t in everything if t.cell == trial.cell and t.params in together]
        assert trial.params in together and len(asked) == len(together) and all(each == asked[0] for each in asked)


def test_without_the_journal_the_study_goes_on_as_if_it_were_there(once: dict[tuple[str, int], Path], folder: Path) -> None:
    copied(once["1e-3", 6], folder)
    (folder / "optuna.journal").unlink()
    assert "32 trials, 24 of them in the store already" in run(folder, "1e-3", "1", 8)
    other = folder / "other"
    copied(once["1e-3", 6], other)
    run(other, "1e-3", "1", 8)

    def key(t: TrialRecord) -> tuple[Any, ...]:
        return t.cell, t.number, t.together, t.params["optimizer.lr"], t.objectives

    assert sorted(map(key, trials(folder))) == sorted(map(key, trials(other)))


def test_the_exact_lr_is_on_the_trials_own_page(once: dict[tuple[str, int], Path]) -> None:
    folder = once["1e-3", 4]
    client = Store.existing(f"sqlite:///{folder}/mlflow.db").client
    for trial in trials(folder):
        tags = client.get_run(trial.run_id).data.tags
        lr = trial.params["optimizer.lr"]
        assert json.loads(tags["lrscale.config"])["optimizer"]["lr"] == lr
        assert f"lr: {lr!r}" in tags["mlflow.note.content"] and f"optimizer.lr={lr!r}" in tags["mlflow.note.content"]
