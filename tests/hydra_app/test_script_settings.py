"""The settings of the sweeper `lrscale`: what it registers, and what it refuses before anything is written."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from lrscale.errors import Refusal
from lrscale.hydra_app.script_overrides import parameter
from lrscale.hydra_app.script_settings import RULES, check_settings
from lrscale.study.space import Choices, Numbers, Parameter
from tests.configs import ROOT
from tests.scripts import install, runs, sweep

DEFAULTS: dict[str, Any] = {
    "direction": "minimize", "storage": "optuna.journal", "n_trials": 20, "n_jobs": 1, "max_failure_rate": 0.0, "retries": 0,
    "n_retries": 1,
    "tracking": "sqlite:///mlflow.db",
}  # fmt: skip
ROLES = {"lr": "optim.lr", "batch_size": "data.batch_size"}


@pytest.mark.parametrize(
    ("sampler", "found"),
    [
        (None, {"name": "tpe"}),
        ({"_target_": "auto", "seed": None}, {"name": "tpe"}),
        ({"_target_": "auto", "seed": 3}, {"name": "tpe", "seed": 3}),
        ("random", {"name": "random"}),
        ({"name": "tpe", "n_startup_trials": 5}, {"name": "tpe", "n_startup_trials": 5}),
        ({"_target_": "optuna.samplers.TPESampler", "seed": 1, "gamma": None}, {"name": "tpe", "seed": 1}),
        ({"_target_": "optuna.samplers.GridSampler", "_partial_": True}, {"name": "grid"}),
    ],
)
def test_a_sampler_is_named_in_any_of_the_known_ways(sampler: object, found: dict[str, Any]) -> None:
    assert check_settings({**DEFAULTS, "sampler": sampler}).sampler == found


def test_with_roles_the_sampler_is_the_ladder() -> None:
    assert check_settings({**DEFAULTS, "sampler": {"_target_": "auto", "seed": None}, "roles": ROLES}).sampler == {
        "name": "ladder"
    }


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"sampler": {"_target_": "os.system", "command": "touch here"}}, "must be one of optuna.samplers"),
        ({"sampler": {"_target_": "optuna.samplers.BaseSampler"}}, "must be one of optuna.samplers"),
        ({"direction": ["minimize", "maximize"]}, "must be one direction, got minimize, maximize"),
        ({"direction": "up"}, "must be one of minimize, maximize"),
        ({"n_trials": 0}, "must be a whole number"),
        ({"max_failure_rate": 1.5}, "must be >= 0 and <= 1"),
        ({"pruner": {}}, "`hydra.sweeper.pruner` is not known"),
        ({"roles": {"lr": "lr"}}, "`hydra.sweeper.roles.batch_size` is missing"),
        ({"roles": {**ROLES, "rate": "x"}}, "must be one of lr, batch_size"),
        ({"roles": {**ROLES, "seed": "optim.lr"}}, "must name different keys"),
        ({"roles": ROLES, "direction": "maximize"}, "1 - accuracy"),
        ({"roles": ROLES, "custom_search_space": "a.b"}, "must be null with `roles`"),
        ({"roles": {**ROLES, "optimizer": "o"}, "optimizer": "SGD"}, "Leave out one of them"),
        ({"reductions": {"avg": "average"}}, "must be one of mean, sum"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(Refusal, match=text.replace("(", r"\(")):
        check_settings({**DEFAULTS, **changes})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("x=interval(-5,5)", Numbers(-5.0, 5.0)),
        ("x=int(interval(1,9))", Numbers(1, 9, whole=True)),
        ("x=tag(log,interval(0.001,1))", Numbers(0.001, 1.0, log=True)),
        ("x=tag(log,int(interval(1,100)))", Numbers(1, 100, log=True, whole=True)),
        ("x=range(3)", Numbers(0, 2, step=1, whole=True)),
        ("x=range(0,10,4)", Numbers(0, 8, step=4, whole=True)),
        ("x=range(5,0,-2)", Numbers(1, 5, step=2, whole=True)),
        ("x=range(0,1,0.1)", Numbers(0, 0.9, step=0.1)),
        ("x=range(0,1,0.25)", Numbers(0, 0.75, step=0.25)),
        ("x=shuffle(range(1,4))", None),
        ("x=a,b", Choices(("a", "b"))),
        ("x=1,2.5,false,null,'a b'", Choices((1, 2.5, False, "null", "'a b'"))),
        ("x=[1,2],[3]", Choices(("[1,2]", "[3]"))),
    ],
)  # fmt: skip
def test_overrides_become_parameters(text: str, found: Parameter | None) -> None:
    made = parameter(OverridesParser.create().parse_override(text))
    if found is None:
        assert isinstance(made, Choices) and sorted(made.values) == [1, 2, 3]
    else:
        assert made == found


@pytest.mark.parametrize("text", ["x=interval(5,1)", "x=tag(log,interval(0,1))", "x=range(5,1)", "x=a,a", "x=1,1.0"])
def test_empty_parameters_are_refused(text: str) -> None:
    with pytest.raises(Refusal):
        parameter(OverridesParser.create().parse_override(text))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["optim.lr=0.1"], "`optim.lr` must be tuned in an interval"),
        (["optim.lr=0.1,0.2"], "`optim.lr` must be tuned in an interval"),
        (["optim.lr=interval(-1,1)"], "`optim.lr` must be > 0"),
        (["optim.lr=interval(0.1,1)"], "Take hydra/sweeper/sampler=tpe, or optim.lr='tag(log,interval(1e-4,1))'"),
        (["data.batch_size=4.5"], "`data.batch_size` must be a whole number"),
        (["loss.reduction=average"], r"Say which it is with hydra.sweeper.reductions: {average: sum}"),
        (["seed=-1,2"], "Take seed=range(8) or seed=3,14,15."),
        (["epochs=interval(1,2)"], "With `roles` only the lr is tuned in an interval"),
        (["data.batch_size=4,4"], "must be swept over values that differ"),
        (["hydra.sweeper.roles.batch_size=batch"], "must be a key of the app's config with a value, got batch"),
        (["hydra.sweeper.roles.lr=optim.rate"], "`hydra.sweeper.roles.lr` must be a key of the app's config with a value"),
        (["hydra.sweeper.direction=[minimize,maximize]"], "must be one direction"),
        (["hydra.sweeper.tracking=nowhere"], "`hydra.sweeper.tracking` must start with"),
    ],
)
def test_a_study_that_cannot_be_is_refused_in_one_line_and_writes_nothing(folder: Path, arguments: list[str], text: str) -> None:
    install("plain", folder)
    (folder / "mlflow.db").unlink()
    before = sorted(folder.rglob("*"))
    said = sweep(folder, *arguments, status=2)
    (line,) = said.splitlines()
    assert line.startswith("lrscale: ") and text.replace("\\", "") in line
    assert sorted(folder.rglob("*")) == before


def test_the_values_of_a_role_can_have_other_names(folder: Path) -> None:
    install("plain", folder)
    script = (folder / "train.py").read_text()
    (folder / "train.py").write_text(script.replace('== "sum"', '== "total"'))
    names = ("hydra.sweeper.reductions={avg:mean,total:sum}", "loss.reduction=avg,total", "hydra.sweeper.optimizer=null")
    sweep(folder, *names, "data.batch_size=8", "hydra.sweeper.n_trials=2", "seed=0", "epochs=1", "+optim.name=AdamW",
          "+hydra.sweeper.roles.optimizer=optim.name")  # fmt: skip
    trials = runs(folder, "trial")
    assert {trial["params"]["reduction"] for trial in trials} == {"mean", "sum"}
    lrs = {name: {t["params"]["lr"] for t in trials if t["params"]["reduction"] == name} for name in ("mean", "sum")}
    assert lrs["mean"] == lrs["sum"]  # p = 0: the name of the optimizer is that of its key
    assert {job["params"]["loss.reduction"] for job in runs(folder, "job")} == {"avg", "total"}


def test_every_setting_has_a_rule_and_a_line_in_the_document() -> None:
    from hydra_plugins.lrscale_sweeper import SAMPLERS, SWEEPER

    keys = {key for key in SWEEPER if not key.startswith("_") and key != "defaults"}
    text = (ROOT / "src" / "lrscale" / "hydra_app" / "README.md").read_text()
    assert keys == set(RULES)
    assert all(f"| `{key}` |" in text for key in (*keys, "sampler"))
    assert all(name in text for name in SAMPLERS)


def test_another_app_in_the_same_installation_does_not_change(folder: Path) -> None:
    (folder / "conf").mkdir()
    (folder / "conf" / "config.yaml").write_text("x: 1\n")
    (folder / "train.py").write_text(
        "import sys\nimport hydra\n"
        "@hydra.main(version_base='1.3', config_path='conf', config_name='config')\n"
        "def main(cfg):\n    print(sorted({'torch', 'mlflow', 'optuna', 'lrscale'} & set(sys.modules)))\n"
        "main()\n"
    )
    said = subprocess.run(
        [sys.executable, "train.py", "-m", "x=1,2"], cwd=folder, capture_output=True, text=True, check=True
    ).stdout
    assert said.count("[]") == 2 and not list(folder.glob("*.journal")) and not list(folder.glob("*.db"))
    shown = subprocess.run(
        [sys.executable, "train.py", "--cfg", "hydra"], cwd=folder, capture_output=True, text=True, check=True
    ).stdout
    assert yaml.safe_load(shown)["hydra"]["sweeper"]["_target_"].endswith("BasicSweeper")


def test_configs_that_are_stored_already_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    from hydra.core.config_store import ConfigStore

    from hydra_plugins import lrscale_sweeper

    store = ConfigStore.instance()
    samplers = dict(store.repo["hydra"]["sweeper"]["sampler"])
    monkeypatch.setitem(store.repo["hydra"]["sweeper"], "sampler", {**samplers, "tpe.yaml": "of Hydra's Optuna sweeper"})
    lrscale_sweeper._register()
    assert store.repo["hydra"]["sweeper"]["sampler"]["tpe.yaml"] == "of Hydra's Optuna sweeper"
