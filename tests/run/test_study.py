"""Studies from end to end: the law of the quickstart, going on after kills, crashes, other samplers and launchers."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lrscale.run import job, progress
from lrscale.search.storage import open_storage
from lrscale.spec import Compute
from lrscale.study.answer import answer
from lrscale.study.settings import sort_trials
from lrscale.tracking.store import Store
from lrscale.training.results import Result
from tests.packed import unpacked
from tests.program import STUDY, TINY, here


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the quickstart has been run."""
    folder = tmp_path_factory.mktemp("quickstart")
    (folder / "said.txt").write_text(here(folder, "run", "-m", "sweeps=quickstart"))
    return folder


def report(folder: Path, study: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(here(folder, "report", study, "--format", "json"))
    return loaded


def lrs_of(folder: Path | str, name: str | None = None) -> dict[str, list[tuple[float, tuple[float, ...]]]]:
    """Every trial of a study in a folder or at a server, of the latest if none is named: lr and objectives by cell."""
    store = Store.existing(folder if isinstance(folder, str) else f"sqlite:///{folder}/mlflow.db")
    study = store.study(name)
    trials = store.trials(study.experiment_id)
    names = {cell.id: cell.label for cell in study.plan.cells}
    found: dict[str, list[tuple[float, tuple[float, ...]]]] = {}
    for trial in sort_trials(study.plan, trials).used:
        found.setdefault(names[trial.cell], []).append((trial.params["optimizer.lr"], trial.objectives))
    return {name: sorted(rows) for name, rows in found.items()}


def optuna_states(folder: Path) -> list[str]:
    storage = open_storage(str(folder / "optuna.journal"))
    return [t.state.name for study in storage.get_all_studies() for t in storage.get_all_trials(study._study_id)]


def test_the_quickstart_states_the_law(quickstart: Path) -> None:
    found = report(quickstart, "quickstart")
    assert found["ratio"]["slope"] == -1 and found["ratio"]["same_runs"]
    assert len(found["claims"]) == 4 and all(claim["verdict"] == "holds" for claim in found["claims"])
    assert len(found["cells"]) == 10
    for cell in found["cells"]:
        assert cell["n_trials"] == 16 and cell["n_runs"] == 128 and cell["at_edge"] is False
        assert cell["lr_best_ci"][0] < cell["lr_theory"] < cell["lr_best_ci"][1]


def test_sum_and_mean_are_the_same_trajectories_in_the_record(quickstart: Path) -> None:
    found = lrs_of(quickstart)
    for size in (1, 4, 16, 64, 256):
        by_mean = {lr / size: objectives for lr, objectives in found[f"mean b{size}"]}
        both = [(objectives, by_mean[lr]) for lr, objectives in found[f"sum b{size}"] if lr in by_mean]
        assert len(both) >= 8
        for by_sum, their_mean in both:  # not bit for bit: some processors round by the number of lrs in a round
            np.testing.assert_allclose(by_sum, their_mean, rtol=1e-9)


def test_the_end_shows_table_law_figure_and_command(quickstart: Path) -> None:
    said = (quickstart / "said.txt").read_text()
    for text in (
        "best lr",
        "95 % interval",
        "excess_risk",
        "objective",
        "diverged",
        "lr_sum* = lr_mean* x c^-1 exactly",
        "trainings/s",
    ):
        assert text in said
    assert (quickstart / "studies/quickstart/figures/best_lr_against_batch_size.png").stat().st_size > 10_000
    assert "lrscale ui quickstart" in said
    assert max(len(line) for line in said.splitlines() if not line.startswith("link ")) <= 80
    assert "viewStateShareKey=lrscale-summary&compareRunsMode=CHART" in said
    assert "…" not in said


def test_report_and_figures_are_on_the_studys_run(quickstart: Path) -> None:
    store = Store.existing(f"sqlite:///{quickstart}/mlflow.db")
    study = store.study("quickstart")
    names = {file.path for file in store.client.list_artifacts(study.run_id)}
    assert {"report.html", "report.json", "figures", "study.json"} <= names
    page = (quickstart / "studies/quickstart/report.html").read_text()
    assert page.count("data:image/svg+xml;base64,") == 1 and page.count("<script>") == 1
    program, *figures = unpacked(page)  # plotly.js names its makers' sites and asks none, as a browser test shows
    assert "Plotly.newPlot" in program and [figure[:5] for figure in figures] == ["<?xml"] * 2
    assert "http://" not in re.sub(r"<script>.*?</script>", "", page, flags=re.S).replace("http://www.w3.org", "")
    assert here(quickstart, "report", "--format", "html") == page
    assert store.client.get_run(study.run_id).info.status == "FINISHED"


def test_trials_are_named_tagged_and_nested(quickstart: Path) -> None:
    store = Store.existing(f"sqlite:///{quickstart}/mlflow.db")
    study = store.study("quickstart")
    runs = list(store._runs(study.experiment_id, "tags.`lrscale.kind` = 'trial'"))
    assert len(runs) == 160
    for run in runs:
        tags, metrics, params = run.data.tags, run.data.metrics, run.data.params
        assert tags["mlflow.parentRunId"] == study.run_id
        assert {"mlflow.user", "mlflow.source.name", "mlflow.runColor", "lrscale.config"} <= set(tags)
        assert run.info.run_name.startswith(f"{params['reduction']} b{params['batch_size']} lr")
        assert ("objective" in metrics) == (metrics["diverged"] == 0)
        assert all(abs(value) < 1e300 for value in metrics.values())
    assert store.line(runs[0].info.run_id, "train_loss").steps[0] == 0


def test_a_finished_study_only_reports(quickstart: Path) -> None:
    before = lrs_of(quickstart)
    said = here(quickstart, "run", "-m", "sweeps=quickstart")
    assert "160 of them in the store already" in said and "trainings/s" not in said
    assert lrs_of(quickstart) == before


def test_cells_that_are_known_are_not_run_again(tiny: Path, folder: Path) -> None:
    shutil.copytree(tiny, folder, dirs_exist_ok=True)
    said = here(folder, "run", "-m", *TINY, "batch_size=16,64")
    assert "24 trials, 12 of them in the store already" in said
    assert [cell["batch_size"] for cell in report(folder, STUDY)["cells"]] == [16, 16, 64, 64]
    here(folder, "run", "-m", *TINY)
    assert [cell["batch_size"] for cell in report(folder, STUDY)["cells"]] == [4, 4, 16, 16]


@pytest.mark.parametrize(("number", "moments"), [(signal.SIGKILL, (2, 15)), (signal.SIGTERM, (5,)), (signal.SIGINT, (5,))])
def test_a_killed_study_goes_on_and_ends_like_an_uninterrupted_one(
    tiny: Path, folder: Path, number: signal.Signals, moments: tuple[int, ...]
) -> None:
    for trials in moments:
        command = [sys.executable, "-m", "lrscale", "run", "-m", *TINY]
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        until = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < until and _recorded(folder) < trials:
            time.sleep(0.02)
        process.send_signal(number)
        said, _ = process.communicate(timeout=60)
        assert process.returncode in (-signal.SIGKILL, 130), said
        assert number == signal.SIGKILL or b"The same command goes on" in said
    here(folder, "run", "-m", *TINY)
    assert lrs_of(folder) == lrs_of(tiny)
    assert set(optuna_states(folder)) == {"COMPLETE"} and len(optuna_states(folder)) == 24
    ours, theirs = report(folder, STUDY), report(tiny, STUDY)
    assert ours["cells"] == theirs["cells"] and ours["ratio"] == theirs["ratio"]


def _recorded(folder: Path) -> int:
    import sqlite3

    try:
        with sqlite3.connect(f"file:{folder}/mlflow.db?mode=ro", uri=True) as db:
            return int(db.execute("select count(*) from runs where status = 'FINISHED'").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


@pytest.mark.parametrize("lost", ["optuna.journal", "mlflow.db"])
def test_a_store_that_was_lost_is_made_up_from_the_other(tiny: Path, folder: Path, lost: str) -> None:
    shutil.copytree(tiny, folder, dirs_exist_ok=True)
    for file in folder.glob(f"{lost}*"):
        file.unlink()
    said = here(folder, "run", "-m", *TINY)
    assert "24 of them in the store already" in said
    assert ("trainings/s" in said) == (lost == "mlflow.db")
    assert lrs_of(folder) == lrs_of(tiny)
    assert len(optuna_states(folder)) == 24


@pytest.mark.parametrize("launcher", ["cores", "processes"])
def test_another_launcher_gives_the_same_trials(tiny: Path, folder: Path, launcher: str) -> None:
    said = here(folder, "run", "-m", *TINY, f"hydra/launcher={launcher}", "hydra.sweeper.n_jobs=2", "hydra.sweeper.profile=true")
    assert lrs_of(folder) == lrs_of(tiny)
    slots = re.search(r"^slots .*training ([\d.]+) s .*start-up of jobs ([\d.]+) s .*without a job ([\d.]+) s", said, re.M)
    assert slots and float(slots[2]) > float(slots[1]) > 0  # such small cells mostly wait for their jobs to start


def test_a_crashed_cell_fails_its_trials_and_the_rest_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = job.work

    def dying(config: Mapping[str, Any], compute: Compute) -> list[Result]:
        if config["batch_size"] == 16 and config["reduction"] == "sum":
            raise RuntimeError("out of luck")
        return work(config, compute)

    monkeypatch.setattr(job, "work", dying)
    said = here(folder, "run", "-m", *TINY, status=1)
    assert "max_failure_rate" in said and "out of luck" in said
    here(folder, "run", "-m", *TINY, "hydra.sweeper.max_failure_rate=0.5")
    found = {cell["label"]: cell for cell in report(folder, STUDY)["cells"]}
    assert found["b16 sum"]["n_trials"] == 0 and found["b16 sum"]["lr_best"] is None
    assert found["b16 mean"]["n_trials"] == 6
    store = Store.existing(f"sqlite:///{folder}/mlflow.db")
    crashes = list(store._runs(store.study(None).experiment_id, "tags.`lrscale.kind` = 'crash'"))
    assert crashes and all(run.info.status == "FAILED" for run in crashes)
    path = store.client.download_artifacts(crashes[0].info.run_id, "traceback.txt", str(folder))
    assert "out of luck" in Path(path).read_text()
    monkeypatch.undo()
    here(folder, "run", "-m", *TINY)
    assert all(cell["n_trials"] == 6 for cell in report(folder, STUDY)["cells"])


@pytest.mark.parametrize("sampler", ["tpe", "gp", "qmc", "random", "grid", "{name:tpe,n_startup_trials:2}"])
def test_other_samplers_run_by_name(folder: Path, sampler: str) -> None:
    here(folder, "run", "-m", "batch_size=16", "reduction=sum,mean", *TINY[2:], f"hydra.sweeper.sampler={sampler}")
    assert {len(rows) for rows in lrs_of(folder).values()} == {6}


def test_a_study_in_which_everything_diverges_says_so(folder: Path) -> None:
    wild = ["optimizer.lr=tag(log,interval(1e20,1e25))", "batch_size=16,32", "reduction=sum,mean", "seeds=1"]
    said = here(folder, "run", "-m", *wild, "hydra.sweeper.n_trials=4")
    assert "4/4  diverged" in said and "a run diverged at every lr that was tried" in " ".join(said.split())
    assert all(cell["n_diverged"] == 4 for cell in report(folder, STUDY)["cells"])


def test_a_study_without_intervals_runs_each_combination_once(folder: Path) -> None:
    here(folder, "run", "-m", "batch_size=8,16", "optimizer.lr=0.01,0.02", "seeds=2")
    assert [cell["n_trials"] for cell in report(folder, "d2l-batch_size-lr")["cells"]] == [1] * 4


def test_every_scientific_hyperparameter_and_family_is_reported(folder: Path) -> None:
    arguments = ["batch_size=8,32", "reduction=sum,mean", "optimizer=sgd,adam", *TINY[2:]]
    here(folder, "run", "-m", *arguments)
    found = report(folder, "d2l-batch_size-reduction-optimizer")
    assert [ratio["of"] for ratio in found["ratios"]] == [{"optimizer": "sgd"}, {"optimizer": "adam"}]
    assert [ratio["expected"] for ratio in found["ratios"]] == [-1, 0]


def test_stores_can_be_set_on_the_command_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(progress, "LASTING_SECONDS", 0.0)
    (folder / "deep").mkdir()
    settings = ["tracking.uri=sqlite:///deep/m.db", "tracking.storage=deep/o.journal", "hydra.sweeper.study_name=mine"]
    told = here(folder, "run", "-m", *TINY, *settings).splitlines()
    assert sum(line.startswith("round 1: about ") and line.endswith(" left in this round") for line in told) == 1
    assert {path.name for path in folder.iterdir()} == {"mlflow.db", "deep", "studies"}
    said = here(folder, "report", "mine", "--tracking-uri", "sqlite:///deep/m.db")
    assert "lr_sum*" in said


def test_a_sweep_in_the_working_folder_is_found(folder: Path) -> None:
    (folder / "sweeps").mkdir()
    text = "# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {n_trials: 5, params: {seeds: 2, batch_size: [8, 16],"
    (folder / "sweeps/mine.yaml").write_text(text + " reduction: 'sum,mean', optimizer.lr: 'tag(log,interval(1e-3,1))'}}}\n")
    here(folder, "run", "sweeps=mine")
    assert report(folder, "mine")["study"] == "mine"


def test_the_answer_can_be_made_from_a_record_alone(quickstart: Path) -> None:
    store = Store.existing(f"sqlite:///{quickstart}/mlflow.db")
    record = store.study("quickstart")
    found = answer(record, store.trials(record.experiment_id))
    assert found.families[0].ratio is not None
