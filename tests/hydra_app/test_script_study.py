"""The sweeper `lrscale` with roles: a stranger's training script gets lrscale's answer, also after a kill."""

import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lrscale.run.script_jobs import ScriptJobs
from tests.configs import ROOT
from tests.hydra_app.test_script_sweep import SECRET, assert_hidden, hide
from tests.program import here
from tests.scripts import best, command, install, runs, sweep, sweep_apart, sweep_dir


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the app `plain`, swept to its end."""
    folder = tmp_path_factory.mktemp("plain")
    install("plain", folder)
    sweep(folder)
    return folder


def report(folder: Path, study: str = "train") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(here(folder, "report", study, "--format", "json"))
    return found


def of_stores(document: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key != "command"}


def test_sgd_s_best_lr_falls_as_one_over_c(done: Path) -> None:
    answer = report(done)
    assert [(c["batch_size"], c["reduction"], c["c"]) for c in answer["cells"]] == [
        (4, "mean", 1), (4, "sum", 4), (16, "mean", 1), (16, "sum", 16),
    ]  # fmt: skip
    ratio = answer["ratio"]
    assert ratio["expected"] == -1 and ratio["verdict"] == "holds" and not ratio["same_runs"]
    assert ratio["ci"][0] - 0.001 <= -1 <= ratio["ci"][1] + 0.001
    assert all(c["n_trials"] == 7 and c["n_runs"] == 14 and c["lr_best_ci"] for c in answer["cells"])
    assert "of a training script" in answer["remarks"][0] and "the seeds of the script" in answer["intervals_cover"]


def test_the_program_shows_the_study(done: Path) -> None:
    status = here(done, "status", "train")
    assert "finished" in status and "4/4 cells, 28/28 trials, 56 trainings" in status
    text = here(done, "report", "train")
    assert "lr_sum* = lr_mean* x c^-1.000" in text
    page = (done / "studies" / "train" / "report.html").read_text()
    assert "training script train; optimizer sgd; seeds: 2 per trial" in page
    assert (done / "studies" / "train" / "figures" / "best_lr_against_batch_size.png").exists()
    (parent,) = runs(done, "study")
    assert "lr_sum∗" in parent["tags"]["mlflow.note.content"]


def test_each_trial_and_seed_is_one_job_with_a_run_of_its_own(done: Path) -> None:
    jobs, trials = runs(done, "job"), runs(done, "trial")
    assert len(jobs) == 56 and len({job["tags"]["lrscale.job_key"] for job in jobs}) == 56
    assert sorted(int(path.name) for path in sweep_dir(done).iterdir() if path.name.isdecimal()) == list(range(56))
    keys = {"data.batch_size", "loss.reduction", "optim.lr", "seed"}
    assert all(set(job["params"]) == keys and job["status"] == "FINISHED" for job in jobs)
    trial = next(t for t in trials if t["params"] == {**t["params"], "reduction": "sum", "batch_size": "16"})
    own = [
        float(job["tags"]["lrscale.returned"])
        for job in jobs
        if float(job["params"]["optim.lr"]) == json.loads(trial["tags"]["lrscale.params"])["optimizer.lr"]
        and (job["params"]["loss.reduction"], job["params"]["data.batch_size"]) == ("sum", "16")
    ]
    assert json.loads(trial["tags"]["lrscale.objectives"]) == own
    assert "optim.lr=" in trial["tags"]["mlflow.note.content"] and "train_loss" in trial["metrics"]


def test_the_best_parameters_have_the_script_s_own_keys(done: Path) -> None:
    found = best(done)
    assert found["best_params"].keys() == {"data.batch_size", "loss.reduction", "optim.lr"}
    assert found["best_value"] == min(cell["objective"] for cell in report(done)["cells"])


def test_a_study_that_is_killed_and_goes_on_in_slots_ends_like_one_that_is_not(done: Path, folder: Path) -> None:
    install("plain", folder)
    half = "data.batch_size=4"  # its cells are the same as in the whole study
    process = subprocess.Popen(command(half), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list(folder.glob("multirun/*/*/12")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    said = sweep(folder, half, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweeper.n_jobs=3")
    assert "in the store already" in said
    whole = [cell for cell in report(done)["cells"] if cell["batch_size"] == 4]
    assert report(folder)["cells"] == [
        {**{key: value for key, value in cell.items() if key != "batch_size"}, "label": cell["reduction"]} for cell in whole
    ]
    finished = [job for job in runs(folder, "job") if job["status"] == "FINISHED"]
    assert len(finished) == 28 and len(runs(folder, "job")) <= 29


def test_more_seeds_train_only_what_is_new(folder: Path) -> None:
    install("plain", folder)
    ways = ("data.batch_size=8", "loss.reduction=mean", "hydra.sweeper.n_trials=3", "epochs=1")
    sweep(folder, *ways, "seed=0,1")
    said = sweep(folder, *ways, "seed=0,1,2")
    assert "3 recorded trials of other settings" in said
    assert [job["params"]["seed"] for job in runs(folder, "job")] == ["0", "1"] * 3 + ["2"] * 3
    assert [cell["n_runs"] for cell in report(folder)["cells"]] == [9]


def test_without_the_optimizer_s_name_the_exponent_is_measured(folder: Path) -> None:
    install("plain", folder)
    sweep(folder, "hydra.sweeper.optimizer=null", "hydra.sweeper.n_trials=8", "data.batch_size=8")
    answer = report(folder)
    ratio = answer["ratio"]
    assert ratio["expected"] is None and ratio["verdict"] == "measured"
    assert ratio["ci"][0] <= -1 <= ratio["ci"][1] and ratio["ci"][1] < -0.5
    assert "Theory expects no number" in " ".join(answer["law"])


def test_one_lr_that_crashes_fails_its_own_trial_alone(folder: Path) -> None:
    install("plain", folder)
    script = (folder / "train.py").read_text()
    (folder / "train.py").write_text(script.replace("    losses = []\n", "    losses = []\n    assert cfg.optim.lr < 1\n"))
    ways = ("data.batch_size=8", "loss.reduction=mean", "hydra.sweeper.n_trials=5", "seed=0", "epochs=1")
    said = sweep(folder, *ways, "optim.lr=tag(log,interval(1e-3,4))", "hydra.sweeper.max_failure_rate=0.5")
    failed = len(runs(folder, "crash"))
    assert failed and f"{failed} crashed" in said and len(runs(folder, "trial")) == 5 - failed
    assert "Take seed=range(8)" in said


def test_a_job_is_found_again_where_only_mlflow_is_left(done: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(done, folder, dirs_exist_ok=True)
    for name in ("optuna.journal", "optuna.journal.lock"):
        (folder / name).unlink(missing_ok=True)
    launched = []
    monkeypatch.setattr(ScriptJobs, "_launch", lambda self, jobs: launched.append(jobs))
    sweep(folder)
    assert not launched and of_stores(report(folder)) == of_stores(report(done))


def test_lightning_and_its_autologging_land_in_the_runs_of_the_jobs(folder: Path) -> None:
    install("lit", folder)
    sweep_apart(folder, "hydra.sweeper.n_trials=5", "model.lr=tag(log,interval(1e-2,1))", "seed=0")
    jobs = runs(folder, "job")
    assert len(jobs) == 10 and all(job["params"]["optimizer_name"] == "AdamW" for job in jobs)
    assert all("train_loss" in job["metrics"] for job in jobs)
    cells = report(folder, "lit")["cells"]
    assert [cell["reduction"] for cell in cells] == ["mean", "sum"]
    assert cells[0]["lr_best"] == pytest.approx(cells[1]["lr_best"], rel=0.5)  # of AdamW, p = 0


def test_a_script_s_study_is_run_again_by_its_own_command(done: Path, folder: Path) -> None:
    shutil.copytree(done, folder, dirs_exist_ok=True)
    (parent,) = runs(folder, "study")
    said = here(folder, "reproduce", "--from", parent["run"], status=2)
    assert "Run it again with its own command: python train.py -m" in said


def test_the_example_of_the_document_runs(folder: Path) -> None:
    install("plain", folder)
    text = (ROOT / "src" / "lrscale" / "hydra_app" / "README.md").read_text()
    example = re.search(r"```yaml\n# conf/config.yaml\n(.*?)```", text, re.S)
    assert example is not None
    (folder / "conf" / "config.yaml").write_text(example[1])
    hide(folder)
    ways = ("+epochs=1", "+wandb_token=" + SECRET, "seed=0", "hydra/job_logging=disabled")
    said = sweep(folder, "hydra.sweeper.n_trials=1", *ways)
    assert_hidden(folder)
    assert "train: 6 cells, 6 trials" in said and len(runs(folder, "job")) == 6


def test_a_study_keeps_hydras_folder_says_details_and_works_in_the_folder_of_each_job(folder: Path) -> None:
    install("plain", folder)
    script = (folder / "train.py").read_text()
    says = 'logging.getLogger("mine").debug("a detail"), Path("made.txt").write_text(os.getcwd())'
    (folder / "train.py").write_text(
        "import logging, os\nfrom pathlib import Path\n" + script.replace("    data = torch", f"    {says}\n    data = torch", 1)
    )
    asked = ["hydra.sweep.dir=out", "hydra.job.chdir=true", "hydra.verbose=true"]
    logs = ["hydra/job_logging=default", "hydra/hydra_logging=default"]
    small = ["hydra.sweeper.n_trials=1", "data.batch_size=4", "loss.reduction=sum", "seed=0"]
    said = sweep_apart(folder, *small, *asked, *logs)
    job = folder / "out" / "0"
    assert {file.name for file in job.iterdir()} == {".hydra", "train.log", "made.txt"}
    assert (job / "made.txt").read_text() == str(job.resolve()) and "a detail" in (job / "train.log").read_text()
    assert {"overrides.yaml", "config.yaml", "hydra.yaml"} == {file.name for file in (job / ".hydra").iterdir()}
    assert (folder / "mlflow.db").is_file() and (folder / "studies" / "train" / "report.html").is_file()
    assert "[mine][DEBUG] - a detail" in said and "findfont" not in said and "IDAT" not in said and "acquire" not in said
