"""The sweeper `lrscale` without roles, in a stranger's app: it continues, loses nothing and does nothing twice."""

import itertools
import math
import os
import signal
import subprocess
import time
from pathlib import Path

import optuna
import pytest
from omegaconf import OmegaConf

from lrscale.hydra_app.script_overrides import sweep_folders
from lrscale.locks import folder_lock
from lrscale.run.sweep import _Loop
from lrscale.search.journal import Journal
from tests.program import here
from tests.scripts import best, calls, command, install, runs, sweep, sweep_dir

SECRET = "hunter-1234"


@pytest.fixture
def app(folder: Path) -> Path:
    """A folder with the app `numbers`."""
    install("numbers", folder)
    return folder


def trials(folder: Path, name: str = "numbers") -> list[optuna.trial.FrozenTrial]:
    storage = optuna.storages.JournalStorage(Journal(str(folder / "optuna.journal")))
    return optuna.load_study(study_name=name, storage=storage).get_trials()


def states(folder: Path) -> list[str]:
    return [trial.state.name for trial in trials(folder)]


def hide(app: Path) -> None:
    """Gives the app's own config passwords."""
    with (app / "conf/config.yaml").open("a") as file:
        file.write(f"db: {{password: {SECRET}, url: 'postgresql://me:{SECRET}@host/db'}}\n")


def assert_hidden(folder: Path) -> None:
    """Only Hydra itself has written the passwords, and the app's own files have them."""
    files = [path for path in folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert {path.parent.name for path in files} == {".hydra", "conf"}


def test_a_sweep_calls_the_function_once_a_trial_and_writes_the_best(app: Path) -> None:
    hide(app)
    said = sweep(app)
    assert_hidden(app)
    found = trials(app)
    assert states(app) == ["COMPLETE"] * 6
    assert [(int(n), float(x), int(y)) for n, x, y, _ in calls(app)] == [(t.number, t.params["x"], t.params["y"]) for t in found]
    least = min(found, key=lambda trial: trial.value)
    assert best(app) == {"name": "optuna", "best_params": least.params, "best_value": least.value}
    assert f"in trial {least.number}" in said
    assert "which is a sweep without `roles`" in here(app, "status", "numbers", status=2)
    jobs = runs(app, "job")
    assert [float(job["tags"]["lrscale.returned"]) for job in jobs] == [trial.value for trial in found]
    assert [float(job["params"]["x"]) for job in jobs] == [trial.params["x"] for trial in found]
    assert {job["status"] for job in jobs} == {"FINISHED"}
    assert not (sweep_dir(app) / ".lrscale").exists()  # all that the jobs left is recorded


def test_the_same_command_goes_on_and_overwrites_nothing(app: Path) -> None:
    ways = ("hydra.sweep.subdir=${hydra.job.num}",)  # an interpolation that only a job can resolve
    sweep(app, "hydra.sweeper.n_trials=2", *ways)
    first = {path: path.read_text() for path in sweep_dir(app).glob("*/mine.txt")}
    said = sweep(app, "hydra.sweeper.n_trials=5", *ways)
    assert "5 trials, 2 of them in the store already" in said
    assert [int(n) for n, *_ in calls(app)] == [0, 1, 2, 3, 4]  # in the same folder, although its name holds the time
    assert all(path.read_text() == text for path, text in first.items())
    before = calls(app)
    sweep(app, "hydra.sweeper.n_trials=5")
    assert calls(app) == before and states(app) == ["COMPLETE"] * 5


def test_a_sweep_in_two_parts_draws_what_a_sweep_in_one_part_draws(app: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    whole = tmp_path_factory.mktemp("whole")
    install("numbers", whole)
    for sampler, option in (("tpe", "hydra.sweeper.sampler.n_startup_trials=2"), ("random", "epochs=2")):
        ways = (f"hydra/sweeper/sampler={sampler}", option, "hydra.sweeper.sampler.seed=3", f"hydra.sweeper.study_name={sampler}")
        sweep(whole, *ways, "hydra.sweep.dir=multirun/a/b", "hydra.sweeper.n_trials=5")
        sweep(app, *ways, "hydra.sweep.dir=multirun/a/b", "hydra.sweeper.n_trials=3")
        sweep(app, *ways, "hydra.sweep.dir=multirun/a/b", "hydra.sweeper.n_trials=5")
        assert [t.params for t in trials(app, sampler)] == [t.params for t in trials(whole, sampler)]
        assert len({t.params["x"] for t in trials(app, sampler)}) == 5  # no point is drawn again


@pytest.mark.parametrize("launcher", [[], ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweeper.n_jobs=2"]])
def test_a_sweep_that_is_killed_goes_on_where_it_was(app: Path, launcher: list[str]) -> None:
    process = subprocess.Popen(command("seconds=0.7", *launcher), cwd=app, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list(app.glob("multirun/*/*/2/mine.txt")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = [trial for trial in trials(app) if trial.state.name == "RUNNING"]
    done = [trial for trial in trials(app) if trial.state.name == "COMPLETE"]
    assert len(done) == 2 and len(left) == (2 if launcher else 1)
    sweep(app, "seconds=0.7")
    assert states(app) == ["COMPLETE"] * 6
    assert [trials(app)[trial.number].params for trial in left] == [trial.params for trial in left]  # under the same numbers
    times = {trial.number: [float(x) for _, x, *_ in calls(app)].count(trial.params["x"]) for trial in trials(app)}
    assert all(times[trial.number] == 1 for trial in done) and set(times.values()) <= {1, 2}
    assert len(calls(app)) <= 6 + len(left) and len({number for number, *_ in calls(app)}) == len(calls(app))
    written = [(sweep_dir(app) / number / "mine.txt").read_text() for number, *_ in calls(app)]
    assert written == [x for _, x, *_ in calls(app)]  # no folder is used twice


@pytest.mark.parametrize("moment", ["before it is recorded", "before Optuna is told"])
def test_a_job_that_has_ended_is_not_run_again(app: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    from lrscale.tracking.job_runs import JobRuns

    def die(*_: object) -> None:
        raise KeyboardInterrupt  # as a kill: nothing after this point is done

    with monkeypatch.context() as patch:
        if moment == "before it is recorded":
            patch.setattr(JobRuns, "finish", die)
        else:
            patch.setattr(_Loop, "_tell", die)
        sweep(app, status=130)
    assert len(calls(app)) == 1
    sweep(app)
    assert states(app) == ["COMPLETE"] * 6 and len(calls(app)) == 6
    assert [float(job["tags"]["lrscale.returned"]) for job in runs(app, "job")] == [trial.value for trial in trials(app)]
    assert all(set(job["params"]) == {"x", "y"} for job in runs(app, "job"))


def test_a_training_that_swallows_ctrl_c_is_not_recorded(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = (app / "train.py").read_text()
    swallow = (
        "    try:\n        os.kill(os.getpid(), 2)\n        time.sleep(5)\n    except KeyboardInterrupt:\n        return 0.0\n"
    )
    (app / "train.py").write_text(script.replace("    time.sleep(cfg.seconds)\n", swallow))
    assert "The same command goes on" in sweep(app, status=130)
    (app / "train.py").write_text(script)
    sweep(app)
    assert len(calls(app)) == 7 and all(trial.value > 0 for trial in trials(app))


def test_nan_and_inf_are_data_and_count_as_the_worst(app: Path) -> None:
    for direction, worst in (("minimize", math.inf), ("maximize", -math.inf)):
        name = f"hydra.sweeper.study_name={direction}"
        said = sweep(app, "nan_above=0", name, f"hydra.sweeper.direction={direction}", "hydra.sweep.dir=multirun/a/b")
        found = trials(app, direction)
        bad = [trial for trial in found if trial.params["x"] > 0]
        assert 0 < len(bad) < 6 and {trial.value for trial in bad} == {worst}
        assert f"{len(bad)} diverged" in said
        assert math.isfinite(best(app)["best_value"])
    returned = {job["tags"]["lrscale.returned"] for job in runs(app, "job") if float(job["params"]["x"]) > 0}
    assert returned <= {"nan", "inf"} and returned


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "nsgaii", "gp", "grid"])
def test_every_sampler_lives_with_nan(app: Path, sampler: str) -> None:
    space = ["x=range(-4,5,2)", "y=choice(0,1)"] if sampler == "grid" else []
    sweep(app, "nan_above=-9", f"hydra/sweeper/sampler={sampler}", "hydra.sweeper.n_trials=12", *space)
    assert states(app).count("COMPLETE") == (10 if space else 12)
    if space:
        assert len({(t.params["x"], t.params["y"]) for t in trials(app)}) == 10


def test_failures_count_over_the_whole_study_and_are_tried_again(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOWN", "yes")
    said = sweep(app, "hydra.sweeper.max_failure_rate=0.9")
    failed = [trial.params for trial in trials(app) if trial.state.name == "FAIL"]
    assert failed and states(app).count("COMPLETE") == 6 - len(failed) and f"{len(failed)} crashed" in said
    assert "the data server is away" not in said
    monkeypatch.setenv("DOWN", "no")
    sweep(app, "hydra.sweeper.max_failure_rate=0.9")
    done = [trial.params for trial in trials(app) if trial.state.name == "COMPLETE"]
    assert len(done) == 6 and all(params in done for params in failed)


@pytest.mark.parametrize(
    ("down", "error"), [("yes", "RuntimeError: the data server is away"), ("exit", "the training function called sys.exit(3)")]
)
def test_too_many_failures_end_the_sweep_with_the_traceback(
    app: Path, monkeypatch: pytest.MonkeyPatch, down: str, error: str
) -> None:
    monkeypatch.setenv("DOWN", down)
    said = sweep(app, "down_above=-9", status=1)
    assert "1 of 6 trials failed, more than hydra.sweeper.max_failure_rate=0.0 allows" in said
    assert error in said
    assert states(app) == ["FAIL"]


def test_a_folder_into_which_another_sweep_writes_is_refused(app: Path) -> None:
    with folder_lock([str(app / "shared")]):
        assert "`hydra.sweep.dir` must be a folder that no other sweep" in sweep(app, "hydra.sweep.dir=shared", status=2)
    sweep(app, "hydra.sweep.dir=shared", "hydra.sweeper.n_trials=1")


def test_a_sweep_that_begins_in_the_same_second_as_another_has_a_folder_of_its_own() -> None:
    config = OmegaConf.create({"hydra": {"sweep": {"dir": "multirun/${now:%Y}"}}})
    first, second, third = itertools.islice(sweep_folders(config, None), 3)
    assert (second, third) == (f"{first}_2", f"{first}_3")
    config = OmegaConf.create({"hydra": {"sweep": {"dir": "multirun"}}})
    assert list(sweep_folders(config, "earlier")) == ["multirun"]


def test_a_failed_job_is_tried_again_as_often_as_is_asked(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOWN", "yes")
    sweep(app, "down_above=-9", "hydra.sweeper.retries=2", status=1)
    assert [int(n) for n, *_ in calls(app)] == [0, 1, 2]
    assert len({x for _, x, *_ in calls(app)}) == 1 and states(app) == ["FAIL"]


def test_a_job_that_takes_too_long_is_tried_again_and_then_fails(app: Path) -> None:
    said = sweep(app, "seconds=30", "hydra.sweeper.job_timeout=0.2", "hydra.sweeper.n_retries=1", status=1)
    assert "2 times: TookTooLong: the job took longer than hydra.sweeper.job_timeout=0.2 seconds" in said
    assert [int(n) for n, *_ in calls(app)] == [0, 1] and states(app) == ["FAIL"]
    assert {job["status"] for job in runs(app, "job")} == {"FAILED"}


@pytest.mark.parametrize("wrong", ["text", "nothing", "list", "keys", "boolean"])
def test_anything_but_a_float_or_a_dict_is_refused_in_one_line(app: Path, wrong: str) -> None:
    said = sweep(app, f"wrong={wrong}", status=2)
    (line,) = [line for line in said.splitlines() if line.startswith("lrscale: ")]
    assert "Return a float, or a dict with `objective`" in line and "Traceback" not in said
    assert len(calls(app)) == 1
    sweep(app, "wrong=null", "hydra.sweeper.study_name=right", "hydra.sweep.dir=multirun/a/b", "hydra.sweeper.n_trials=1")


def test_changed_settings_are_noticed(app: Path) -> None:
    sweep(app, "hydra.sweeper.n_trials=3")
    said = sweep(app, "epochs=2", status=2)
    assert "holds 3 trials of other settings: epochs was 1 and is 2" in said
    said = sweep(app, "x=interval(-5,9)", "hydra.sweeper.n_trials=4")
    assert "The search space has changed: x was" in said and "All trials lie inside it and count" in said
    said = sweep(app, "x=interval(20,30)", "hydra.sweeper.n_trials=2")
    assert "4 trials lie outside it and do not count" in said
    assert all(20 <= trial.params["x"] <= 30 for trial in trials(app)[4:]) and len(trials(app)) == 6
    assert "`y` must keep its choices" in sweep(app, "y=0,1", status=2)
    assert "must be minimize, as in the study" in sweep(app, "hydra.sweeper.direction=maximize", status=2)
    assert "The sampler has changed" in sweep(app, "hydra/sweeper/sampler=random", "hydra.sweeper.n_trials=7")


def test_a_script_that_logs_by_itself_logs_into_the_runs_of_its_trials(folder: Path) -> None:
    install("own_mlflow", folder)
    sweep(folder, "hydra.sweeper.n_trials=2", "leave_open=true", "hydra.job.chdir=true")
    launcher = ("hydra/launcher=joblib", "hydra.sweeper.n_jobs=3", "hydra.launcher.n_jobs=2")
    sweep(folder, "leave_open=true", *launcher)
    jobs = runs(folder, "job")
    assert [int(job["tags"]["lrscale.job"]) for job in jobs] == [0, 1, 2, 3, 4]
    assert len(list(folder.rglob("mlflow.db"))) == 1
    for job in jobs:
        assert job["tags"]["written_by"] == "the script" and job["params"]["leave_open"] == "True"
        assert math.isclose(job["metrics"]["own_loss"], float(job["tags"]["lrscale.returned"]) + 1 / 3, rel_tol=1e-6)
        assert job["tags"]["mlflow.parentRunId"] == runs(folder, "sweep")[0]["run"]
    assert not {"MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"} & set(os.environ)


def test_a_user_s_function_may_draw_further_parameters(app: Path) -> None:
    (app / "space.py").write_text(
        "def configure(cfg, trial):\n"
        "    assert trial.user_attrs['epochs'] == '3'\n"
        "    trial.suggest_float('+z', trial.params['x'], trial.params['x'] + cfg.epochs)\n"
    )
    import sys

    sys.path.insert(0, str(app))
    try:
        sweep(app, "hydra.sweeper.custom_search_space=space.configure", "epochs=3")
    finally:
        sys.path.remove(str(app))
    assert all(t.params["x"] <= t.params["+z"] <= t.params["x"] + 3 for t in trials(app)) and states(app) == ["COMPLETE"] * 6
    assert set(best(app)["best_params"]) == {"x", "y", "+z"}
