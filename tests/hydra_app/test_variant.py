"""The name of a study: a sweep file that is run with other values than its own is a variant, and has a name of its own."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from lrscale.hydra_app.variant import NAME_LENGTH, variant_name
from lrscale.study.plan import Plan
from tests.program import here

LR = "optimizer.lr=tag(log,interval(0.001,0.1))"
LONG = ["seeds=[3,14,15]", LR, "task=linear", "task.noise=1"]


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """The plans that would be run."""
    made: list[Plan] = []

    def noted(plan: Plan, *_: Any) -> None:
        made.append(plan)

    monkeypatch.setattr("lrscale.run.study.run_study", noted)
    return made


def plan_of(plans: list[Plan], folder: Path, *arguments: str) -> Plan:
    here(folder, "run", "-m", *arguments)
    return plans[-1]


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["batch_size=2,8"], "quickstart batch_size=2,8"),
        ([LR], f"quickstart {LR}"),
        (["optimizer=adam"], "quickstart optimizer=adam"),
        (["hydra.sweeper.sampler=tpe", "batch_size=2"], "quickstart batch_size=2 sampler=tpe"),
        (["hydra.sweeper.companions=as_given"], "quickstart companions=as_given"),
        (["hydra.sweeper.widen=true"], "quickstart widen=true"),
        (["hydra.sweeper.params.seeds=3"], "quickstart params.seeds=3"),
        (["++drop_last=false"], "quickstart drop_last=false"),
        (["study.claims=null"], "quickstart study.claims=null"),
        (["study.question='Is it?'"], "quickstart study.question='Is it?'"),
        (["seeds=8", "seeds=3"], "quickstart seeds=3"),
        # digits has float32 unless told otherwise, so here float64 is a change, though the file has it too
        (["task=digits", "dtype=float64"], "quickstart task=digits dtype=float64"),
        (["task=digits", "dtype=float32"], "quickstart task=digits"),
    ],
)
def test_what_changes_the_question_is_in_the_name(arguments: list[str], name: str, plans: list[Plan], folder: Path) -> None:
    assert plan_of(plans, folder, "sweeps=quickstart", *arguments).study == name


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["hydra.sweeper.n_trials=40", "hydra.sweeper.max_failure_rate=0.5", "hydra.sweeper.profile=true"],
        ["compute.threads=2", "tracking.uri=sqlite:///other.db", "hydra.sweeper.storage=other.journal"],
        ["hydra/launcher=joblib", "hydra.sweeper.n_jobs=2"],
        ["batch_size=1,4,16,64,256"],
        ["batch_size=1, 4, 16, 64, 256", "optimizer.lr=tag(log,interval(2e-4,1.0))"],
        ["seeds=8", "drop_last=true", "task=d2l", "dtype=float64", "budget.epochs=3"],
        ["hydra.sweeper.sampler=ladder", "hydra.sweeper.widen=false", "hydra.sweeper.companions=scaled"],
        ["seeds=3", "seeds=8"],
    ],
    ids=" ".join,
)
def test_what_the_file_says_anyway_is_no_variant(arguments: list[str], plans: list[Plan], folder: Path) -> None:
    assert plan_of(plans, folder, "sweeps=quickstart", *arguments).study == "quickstart"


def test_a_name_on_the_command_line_is_taken_as_it_is(plans: list[Plan], folder: Path) -> None:
    arguments = ["batch_size=2,8", "hydra.sweeper.study_name=mine"]
    assert plan_of(plans, folder, "sweeps=quickstart", *arguments).study == "mine"
    assert plan_of(plans, folder, "batch_size=2,8", LR).study == "d2l-batch_size"


def test_a_name_in_the_file_is_the_name_of_its_variants_too(plans: list[Plan], folder: Path) -> None:
    (folder / "sweeps").mkdir()
    text = "# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {study_name: ours, params: {batch_size: '4,16'}}}\n"
    (folder / "sweeps/mine.yaml").write_text(text)
    assert plan_of(plans, folder, "sweeps=mine").study == "ours"
    assert plan_of(plans, folder, "sweeps=mine", "batch_size=2").study == "ours batch_size=2"


def test_long_names_are_cut_and_differ(plans: list[Plan], folder: Path) -> None:
    names = [plan_of(plans, folder, "sweeps=quickstart", *LONG[:-1], f"task.noise={noise}").study for noise in (1, 2)]
    assert names[0] != names[1] and max(map(len, names)) <= NAME_LENGTH
    assert all(name.startswith(f"quickstart {LONG[0]} {LR[:20]}") for name in names)
    assert plan_of(plans, folder, "sweeps=quickstart", *LONG).study == names[0]


def test_no_character_ends_a_line_or_a_quotation() -> None:
    names = [variant_name("mine", [f"study.question=a{sign}b"]) for sign in ("\n", "\x1b", "\u202e", "`", "_")]
    assert all(name.isprintable() and "`" not in name for name in names) and len(set(names)) == len(names)


def test_the_command_of_a_plan_repeats_it(plans: list[Plan], folder: Path) -> None:
    arguments = ["sweeps=quickstart", "study.question='Is it?'", "hydra.sweeper.sampler=tpe", "hydra.sweeper.n_trials=5"]
    machine = ["hydra.sweeper.storage=secret.journal", "hydra.sweeper.profile=true"]
    plan = plan_of(plans, folder, *arguments, *machine)
    assert shlex.split(plan.command) == ["lrscale", "run", "-m", *arguments, *machine]
    assert plan_of(plans, folder, *shlex.split(plan.command)[3:]) == plan


def test_the_whole_command_of_a_study_is_recorded_without_passwords(plans: list[Plan], folder: Path) -> None:
    of_hydra = ["hydra.sweeper.storage='postgresql://me:secret@host/x'", "hydra.sweeper.n_jobs=1", "hydra.job.name=mine"]
    typed = ["batch_size=4,16", LR, *of_hydra]
    here(folder, "run", "-m", *typed)
    command = shlex.split(plans[0].command)
    assert command[:3] == ["lrscale", "run", "-m"]
    assert sorted(command[3:]) == sorted(text.replace("secret", "***") for text in typed)
