"""A variant of a study stands beside the study as its file says: in the store, in the files and in every command."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from lrscale.report.html import as_html
from lrscale.study.answer import answer
from lrscale.tracking.store import Store
from tests.program import here

SWEEP = """\
# @package _global_
hydra:
  mode: MULTIRUN
  sweeper:
    n_trials: 5
    params:
      seeds: 2
      reduction: mean,sum
      batch_size: 4,16
      optimizer.lr: tag(log,interval(0.001,1))
study:
  question: Is it so?
"""
VARIANT = "small batch_size=2,8"
QUOTED = """small study.question='Is it "so"?'"""


def record_of(folder: Path, name: str) -> dict[str, Any]:
    """All that a working folder holds of a study: files, and its experiment with tags and runs."""
    store = Store.existing(f"sqlite:///{folder}/mlflow.db")
    experiment = store.client.get_experiment_by_name(name)
    assert experiment is not None
    runs = {run.info.run_id: run.to_dictionary() for run in store._runs(experiment.experiment_id, "")}
    files = [path for top in (f"studies/{name}", f"mlartifacts/{name}") for path in (folder / top).rglob("*") if path.is_file()]
    assert len(runs) > 20 and len(files) > 10
    return {"tags": dict(experiment.tags), "runs": runs, "files": {str(path): path.read_bytes() for path in files}}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study, and two variants that were run after it; `before.json` is the study's report before them."""
    folder = tmp_path_factory.mktemp("both")
    (folder / "sweeps").mkdir()
    (folder / "sweeps/small.yaml").write_text(SWEEP)
    here(folder, "run", "-m", "sweeps=small")
    here(folder, "run", "-m", "sweeps=small", "study.question='Is it \"so\"?'", "hydra.sweeper.n_trials=2")
    here(folder, "publish", "small")
    (folder / "before.json").write_text(here(folder, "report", "small", "--format", "json"))
    before = record_of(folder, "small")
    (folder / "said.txt").write_text(here(folder, "run", "-m", "sweeps=small", "batch_size=2,8"))
    assert record_of(folder, "small") == before
    return folder


def sizes(folder: Path, *arguments: str) -> list[int]:
    report = json.loads(here(folder, "report", *arguments, "--format", "json"))
    return [cell["batch_size"] for cell in report["cells"]]


def test_both_reports_are_there_and_the_latest_is_the_default(both: Path) -> None:
    assert here(both, "report", "small", "--format", "json") == (both / "before.json").read_text()
    assert (sizes(both, "small"), sizes(both, VARIANT), sizes(both)) == ([4, 16, 4, 16], [2, 8, 2, 8], [2, 8, 2, 8])
    assert here(both, "report").startswith(f"study    {VARIANT}\n") and here(both, "report", "small").startswith(
        "study    small\n"
    )
    assert here(both, "status").startswith(f"{VARIANT}: finished") and here(both, "status", "small").startswith("small: finished")


def test_both_have_files_that_name_them(both: Path) -> None:
    folders = [path.parent for path in (both / "studies").glob("*/report.json")]
    names = {json.loads((folder / "report.json").read_text())["study"]: folder.name for folder in folders}
    assert set(names) == {"small", VARIANT, QUOTED} and names["small"] == "small"
    assert names[VARIANT].startswith("small_batch_size_2_8-")
    page = (both / "studies" / names[VARIANT] / "report.html").read_text()
    assert f"<title>{VARIANT}: Is it so?</title>" in page
    store = Store.existing(f"sqlite:///{both}/mlflow.db")
    study = store.study(VARIANT)
    assert {"figures", "images", "report.html"} <= {file.path for file in store.client.list_artifacts(study.run_id)}
    assert store.client.get_run(study.run_id).info.run_name == f"study {VARIANT}"


@pytest.mark.parametrize("name", [VARIANT, QUOTED])
def test_every_printed_command_can_be_copied(both: Path, name: str) -> None:
    store = Store.existing(f"sqlite:///{both}/mlflow.db")
    study = store.study(name)
    trials = store.trials(study.experiment_id)
    notes = [store.run_tags(run)["mlflow.note.content"] for run in (study.run_id, trials[0].run_id)]
    commands = [text for note in notes for text in re.findall(r"`(lrscale (?:ui|report) [^`]*)`", note)]
    page = as_html(answer(study, trials), {})
    commands += re.findall(
        r"^lrscale (?:ui|report) .*$", page.replace("&#39;", "'").replace("&#34;", '"').split("</pre>")[0], re.M
    )
    assert len(commands) >= 4 and {shlex.split(command)[2] for command in commands} == {name}


def test_the_end_prints_a_command_in_one_line(both: Path) -> None:
    (line,) = [line for line in (both / "said.txt").read_text().splitlines() if line.startswith("browse")]
    assert shlex.split(line)[1:] == ["lrscale", "ui", VARIANT]


def test_an_unknown_name_is_told_what_is_there(both: Path) -> None:
    said = here(both, "report", "small batch_size=3", status=2)
    assert f"There: small, {shlex.quote(VARIANT)}, {shlex.quote(QUOTED)}." in said and said.count("\n") == 1


def test_a_variant_is_published_under_a_name_of_its_own_alone(both: Path) -> None:
    before = {path: path.read_bytes() for path in (both / "sweeps").rglob("*.*")}
    said = here(both, "publish", VARIANT, status=2)
    assert said.count("\n") == 1 and "into a file of its own, sweeps/NAME.yaml" in said and VARIANT in said
    assert {path: path.read_bytes() for path in (both / "sweeps").rglob("*.*")} == before
    here(both, "run", "-m", "sweeps=small", "batch_size=2,8", "hydra.sweeper.study_name=mine")
    assert "published sweeps/results/mine" in here(both, "publish", "mine")


def test_a_variant_reproduces_from_its_run(both: Path) -> None:
    run = Store.existing(f"sqlite:///{both}/mlflow.db").study(VARIANT).run_id
    assert f"reproduced {VARIANT}" in " ".join(here(both, "reproduce", "--from", run).split())


def test_more_trials_extend_a_variant(both: Path) -> None:
    said = here(both, "run", "-m", "sweeps=small", "batch_size=2,8", "hydra.sweeper.n_trials=6")
    assert f"{VARIANT}: 4 cells, 24 trials, 20 of them in the store already" in said
