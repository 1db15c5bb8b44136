"""Publishing a study and running it again: bit for bit, by intervals elsewhere, and never a stranger's code."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lrscale.errors import Refusal
from lrscale.provenance import NUMBERS
from lrscale.published import compare
from lrscale.published.files import TABLE, read, tables
from lrscale.published.side_by_side import show_answers
from lrscale.spec import Compute
from lrscale.study.document import compute_of, read_document
from lrscale.tracking.store import Store
from tests.configs import ROOT
from tests.program import STUDY, TINY, here

RESULTS = ROOT / "sweeps" / "results"
Change = Callable[[Any], object]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the tiny study and a single training have been run, and the study published."""
    folder = tmp_path_factory.mktemp("published")
    here(folder, "run", "-m", *TINY)
    here(folder, "run", "optimizer.lr=0.03", "seeds=2")
    (folder / TABLE).parent.mkdir()
    (folder / TABLE).write_text("before\n<!-- studies -->\nold\n<!-- /studies -->\nafter\n")
    assert f"{TABLE} has the table" in here(folder, "publish", STUDY)
    return folder


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal in which a table's row is one line."""
    monkeypatch.setenv("COLUMNS", "300")


@pytest.fixture
def place(published: Path, folder: Path) -> Path:
    """A working folder with the published files, to spoil."""
    shutil.copytree(published / "sweeps", folder / "sweeps")
    return folder / "sweeps" / "results" / STUDY


def said(folder: Path, *arguments: str, status: int = 0) -> str:
    return " ".join(here(folder, *arguments, status=status).split())


def change(file: Path, how: Change) -> None:
    value = json.loads(file.read_text())
    how(value)
    file.write_text(json.dumps(value))


def test_the_files_hold_the_study(published: Path) -> None:
    folder = published / "sweeps" / "results" / STUDY
    assert sorted(file.name for file in folder.iterdir()) == [
        "cells.csv",
        "figure.svg",
        "record.json",
        "report.json",
        "trials.csv",
    ]
    head, *rows = (folder / "trials.csv").read_text().splitlines()
    assert head == "cell,round,lr,seed,objective,diverged" and len(rows) == 24 * 2
    assert len(set(rows)) == len(rows)
    record = json.loads((folder / "record.json").read_text())
    assert record["seconds"] > 0 and {"processor", "torch", "commit", "platform"} <= set(record["made_by"])
    assert (folder / "figure.svg").stat().st_size < 150_000
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    here(published, "publish")
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert (published / TABLE).read_text().startswith("before\n<!-- studies -->\n\n### Other studies\n\n| question,")


def test_a_published_study_reproduces_bit_for_bit(published: Path, folder: Path, place: Path) -> None:
    text = said(folder, "reproduce", STUDY)
    assert "promise every number bit for bit" in text and f"reproduced {STUDY}" in text
    assert text.index("law, published and here: ") < text.index(f"reproduced {STUDY}")
    assert not list(folder.glob("mlflow.db")) and (folder / "studies" / "reproduce" / STUDY / "mlflow.db").is_file()


def test_what_can_be_reproduced_is_listed(folder: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = here(folder, "reproduce").splitlines()
    commands = [line.partition("  (") for line in lines if line.startswith("lrscale reproduce ")]
    seconds = json.loads((RESULTS / "quickstart" / "record.json").read_text())["seconds"]
    assert ("lrscale reproduce quickstart", "  (", f"{seconds:.0f} s)") in commands
    assert len(commands) == len(list(RESULTS.iterdir()))
    assert "lrscale reproduce cnn --trust sweeps/cnn.py" in [command for command, _, _ in commands]
    assert f"lrscale reproduce {STUDY}" in [command for command, _, _ in commands]
    assert "  Does the best lr fall as 1/B when gradients are summed?" in lines
    of_questions = [line for line in lines[1:-1] if line and not line.startswith("lrscale reproduce ")]
    assert all(line.startswith("  ") and len(line) <= 80 for line in of_questions)
    (place / "record.json").write_text("[")
    assert "must hold the files of published studies" in said(folder, "reproduce", status=2)


def test_each_claim_stands_as_published_beside_here(capsys: pytest.CaptureFixture[str]) -> None:
    reports = [json.loads((RESULTS / name / "report.json").read_text()) for name in ("eps", "eps")]
    reports[1]["law"] = ["another law"]
    failing = next(claim for claim in reports[0]["claims"] if claim["verdict"] == "fails")
    reports[1]["claims"][0] |= {"name": "a claim of here"}
    show_answers(*map(json.dumps, reports), read("eps").study.plan, Console())
    text = capsys.readouterr().out
    assert "law, here: another law" in text and f"law, published: {reports[0]['law'][0][:20]}" in text
    row = next(line for line in text.splitlines() if line.startswith(failing["name"]))
    assert row.count(f"{failing['measured']:.2f}") == 2 or "none" in row
    assert text.count("fails") == 2 and "a claim of here" in text and "none" in text


def test_a_probes_claims_say_in_words_what_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    plan, report = read("homogeneity").study.plan, (RESULTS / "homogeneity" / "report.json").read_text()
    show_answers(report, report.replace("p_first within", "p of the first update within"), plan, Console(width=200))
    text = capsys.readouterr().out
    assert f"law: {plan.law}" in text and "law, here" not in text and "p_first" not in text
    assert text.count("(p of the first update)") == 1 and "(largest p of the 50th update)" in text


def test_a_misspelt_study_is_answered_with_the_near_one(folder: Path) -> None:
    assert "Did you mean momentum_edge? There: " in said(folder, "reproduce", "momentum_edg", status=2)


def test_a_changed_number_is_named(folder: Path, place: Path) -> None:
    file = place / "trials.csv"
    head, first, *rows = file.read_text().splitlines()
    cell, of_round, lr, seed, objective, diverged = first.split(",")
    changed = ",".join([cell, of_round, lr, seed, repr(float(objective) * (1 + 1e-15)), diverged])
    assert changed != first
    file.write_text("\n".join([head, changed, *rows[:-1]]) + "\n")
    text = said(folder, "reproduce", STUDY, status=1)
    assert f"{cell} round {of_round} lr {lr} seed {seed}: objective" in text and objective in text
    assert "3 differences" in text and "did not reproduce" in text  # the changed one, and the two numbers of a lost row


def test_elsewhere_intervals_and_claims_must_agree(folder: Path, place: Path) -> None:
    change(place / "record.json", lambda record: record["made_by"].update(torch="2.12.0"))
    rows = (place / "trials.csv").read_text().splitlines()
    (place / "trials.csv").write_text("\n".join(rows[:-1]) + "\n")  # not promised there, so not compared
    text = said(folder, "reproduce", STUDY)
    assert "not every bit" in text and "2.12.0 there" in text and f"reproduced {STUDY}" in text


def test_what_agrees_within_intervals() -> None:
    report = {"cells": [{"label": "b4", "lr_best_ci": [0.1, 0.2]}], "ratios": [], "slopes": [], "turn_over": []}
    report |= {"claims": [{"name": "level", "verdict": "holds"}]}

    def found(how: Change) -> list[compare.Difference]:
        other = copy.deepcopy(report)
        how(other)
        return compare.within(json.dumps(report), json.dumps(other))[1]

    assert not found(lambda r: r["cells"][0].update(lr_best_ci=[0.19, 0.3]))
    (beside,) = found(lambda r: r["cells"][0].update(lr_best_ci=[0.21, 0.3]))
    assert beside == ("lr* of b4", "[0.1, 0.2]", "[0.21, 0.3]")
    assert found(lambda r: r["cells"][0].update(lr_best_ci=None))
    for verdict in ("fails", "cannot tell"):
        differing = found(lambda r, verdict=verdict: r["claims"][0].update(verdict=verdict))
        assert differing == [("claim level", "holds", verdict)]
    older = [{"name": "level", "holds": True}]
    assert not found(lambda r: r.update(claims=older)) and found(lambda r: r.update(claims=[{**older[0], "holds": False}]))
    assert found(lambda r: r["cells"].clear())
    with pytest.raises(Refusal, match=r"report\.json"):
        compare.within("[]", json.dumps(report))


def runs(published: Path) -> dict[str, list[str]]:
    """Ids of the runs in the store, by kind."""
    store = Store.existing(f"sqlite:///{published}/mlflow.db")
    found: dict[str, list[str]] = {}
    for experiment in store._experiments():
        for run in store._runs(experiment.experiment_id, ""):
            found.setdefault(run.data.tags["lrscale.kind"], []).append(run.info.run_id)
    return found


def test_any_run_of_a_store_reproduces(published: Path, folder: Path) -> None:
    store, kept = f"sqlite:///{published}/mlflow.db", runs(published)
    for run in (kept["study"][0], kept["trial"][3], kept["single"][0]):
        text = said(folder, "reproduce", "--from", run, "--tracking-uri", store)
        assert "promise every number bit for bit" in text and "reproduced" in text
    assert "must be the id of a run" in said(folder, "reproduce", "--from", "0" * 32, "--tracking-uri", store, status=2)


def test_a_changed_trial_does_not_reproduce(published: Path, folder: Path) -> None:
    for file in published.glob("mlflow.db*"):
        shutil.copy(file, folder / file.name)
    run = runs(published)["single"][0]
    store = Store("sqlite:///mlflow.db")
    objectives = json.loads(store.client.get_run(run).data.tags["lrscale.objectives"])
    store.client.set_tag(run, "lrscale.objectives", json.dumps([objectives[0], objectives[1] + 1e-9]))
    assert "was changed after it was recorded" in said(folder, "reproduce", "--from", run, status=2)
    store.client.delete_tag(run, "lrscale.checksum")  # older records have none
    text = said(folder, "reproduce", "--from", run, status=1)
    assert "seed 2 of 2: objective" in text and "1 differences" in text


HOSTILE: dict[str, tuple[Change, str]] = {
    "a newer version": (lambda r: r["made_by"].update(numbers=str(NUMBERS + 1)), "a newer lrscale made it"),
    "no version": (lambda r: r["made_by"].pop("numbers"), "made_by.numbers"),
    "an unknown key": (lambda r: r.update(_target_="os.system"), "`record._target_` is not known"),
    "a key less": (lambda r: r.pop("cells"), "`record.cells` is missing"),
    "no cells": (lambda r: r.update(cells=[]), "`record.cells` must be a list that is not empty"),
    "an unknown optimizer": (lambda r: r["cells"][0]["config"]["optimizer"].update(name="os.system"), "`optimizer.name`"),
    "code to import": (lambda r: r["cells"][0]["config"]["task"].update(_target_="os.system"), "`task._target_`"),
    "an axis that lies": (lambda r: r["cells"][0]["scientific"].update(batch_size=7), "must be what its config says"),
    "an unknown axis": (lambda r: r["cells"][0]["scientific"].update(__class__=1), "is not known"),
    "an axis to print": (lambda r: r["cells"][0]["scientific"].update(task="\x1b[2J"), "must be a name"),
    "one cell twice": (lambda r: r["cells"].append(r["cells"][0]), "must differ"),
    "an unknown interval": (lambda r: r["intervals"].update(seeds=[1, 2, True]), "`record.intervals`"),
    "an interval of nothing": (lambda r: r["intervals"].update({"optimizer.lr": [1, 1, True]}), "low < high"),
    "a name with control codes": (lambda r: r.update(study="\x1b[2J"), "printable"),
    "a question that is none": (lambda r: r.update(question=["why"]), "`record.question`"),
    "trials without end": (lambda r: r.update(n_trials=10**9), "`record.n_trials`"),
    "claims of another kind": (lambda r: r.update(claims={}), "`record.claims`"),
    "a machine that is none": (lambda r: r["compute"].update(threads=0), "`compute.threads`"),
    "seconds that are none": (lambda r: r.update(seconds=-1), "`record.seconds`"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_strangers_record_is_values_and_names_or_refused(published: Path, name: str) -> None:
    record = json.loads((published / "sweeps" / "results" / STUDY / "record.json").read_text())
    assert read_document(record).plan.cells
    how, refusal = HOSTILE[name]
    how(record)
    with pytest.raises(Refusal) as refused:
        read_document(record)
    assert refusal in str(refused.value) and "\x1b" not in str(refused.value)


def test_files_that_are_none_are_refused_and_nothing_is_written(folder: Path, place: Path) -> None:
    for file, text in (("record.json", "["), ("report.json", "{}"), ("trials.csv", "cell,objective\na,b\n"), ("cells.csv", "")):
        kept = (place / file).read_text()
        (place / file).write_text(text)
        assert said(folder, "reproduce", STUDY, status=2).startswith("lrscale:")
        (place / file).write_text(kept)
    (place / "record.json").write_text("[" * 100_000)
    assert said(folder, "reproduce", STUDY, status=2).startswith("lrscale:")
    assert "must be published" in said(folder, "reproduce", "../results", status=2)
    assert not (folder / "studies").exists()


@pytest.mark.parametrize("study", sorted(file.parent.name for file in RESULTS.glob("*/record.json")))
def test_what_is_published_can_be_run_again(study: str) -> None:
    """The plan of each published record is the one that was run, and its tables are those of its report."""
    record = json.loads((RESULTS / study / "record.json").read_text())
    report = json.loads((RESULTS / study / "report.json").read_text())
    plan = read_document(record).plan.renewed()
    assert plan.study == study
    for cell, recorded in zip(plan.cells, record["cells"], strict=True):
        machine = compute_of(recorded["config"])  # older versions counted it to a cell's id
        assert cell.label == recorded["label"] and (cell.id == recorded["id"]) == (machine == Compute())
    assert all((RESULTS / study / name).read_text() == text for name, text in tables(report).items())
    assert report["claims"] and sum(file.stat().st_size for file in (RESULTS / study).glob("figure*.svg")) > 5000
    most = 500_000 if "quantities.csv" in tables(report) else 150_000  # bytes; a probe's figure has a panel for each quantity
    assert all(file.stat().st_size < most for file in (RESULTS / study).glob("figure*.svg"))


def test_a_study_that_was_extended_reproduces_bit_for_bit(folder: Path) -> None:
    for n_trials in (4, 6):
        here(folder, "run", "-m", *TINY, f"hydra.sweeper.n_trials={n_trials}")
    here(folder, "publish", STUDY)
    rows = (folder / "sweeps" / "results" / STUDY / "trials.csv").read_text().splitlines()[1:]
    assert len({tuple(row.split(",")[:2]) for row in rows}) >= 8  # two rounds or more in each of four cells
    assert f"reproduced {STUDY}" in (said_here := said(folder, "reproduce", STUDY)) and "bit for bit" in said_here
    at_once = folder / "at_once"
    at_once.mkdir()
    here(at_once, "run", "-m", *TINY, "hydra.sweeper.n_trials=6")
    here(at_once, "publish", STUDY)
    other = (at_once / "sweeps" / "results" / STUDY / "trials.csv").read_text().splitlines()[1:]
    assert other != rows  # asked otherwise than at once, so only a replay can reproduce it


def test_rounds_that_nobody_published_are_refused(place: Path, folder: Path) -> None:
    file = place / "trials.csv"
    text = file.read_text()
    for bad in (text.replace("b4 sum", "no cell", 1), text.replace(",1,", ",1,x", 1), text.replace("lr,seed", "l,seed")):
        file.write_text(bad)
        assert "must be a file that lrscale publish has written" in said(folder, "reproduce", STUDY, status=2)
        assert not (folder / "studies").exists()


def test_a_file_that_comes_with_lrscale_is_found_from_any_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trusted: list[Path] = []
    monkeypatch.setattr("lrscale.published.reproduce.reproduce", lambda study, strict, files, device: trusted.extend(files))
    here(folder, "reproduce", "cnn", "--trust", "sweeps/cnn.py")
    (folder / "sweeps").mkdir()
    (folder / "sweeps" / "cnn.py").write_text("mine")
    here(folder, "reproduce", "cnn", "--trust", "sweeps/cnn.py", "--trust", "nowhere.py")
    assert trusted == [ROOT / "sweeps" / "cnn.py", Path("sweeps/cnn.py"), Path("nowhere.py")]
