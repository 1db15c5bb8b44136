"""What the data do not show is not stated: the three verdicts, from the command line to every form of an answer."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from lrscale.tracking.store import Store
from lrscale.tracking.trial_note import escape_markdown
from tests.program import here

QUICK = ("run", "-m", "sweeps=quickstart")
VERDICTS = ("holds", "fails", "cannot tell")
CLAIMS = """\
study.claims=[{name: It is small, measure: slope, reduction: sum, expected: 0, tolerance: 9},
{name: It is large, measure: slope, reduction: sum, expected: 50, tolerance: 9},
{name: It is exactly so, measure: slope, reduction: mean, expected: 0.9, tolerance: 0.0001}]""".replace("\n", " ")
COUNT = "1 of 3 claims hold, 1 fails, 1 cannot be told"
STUDY = ("batch_size=4,16", "reduction=sum,mean", "seeds=2", "hydra.sweeper.n_trials=10", "hydra.sweeper.study_name=three")
LR = "optimizer.lr=tag(log,interval(1e-3,1))"


def words(text: str) -> str:
    return " ".join(text.split())


def report(folder: Path, *arguments: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(here(folder, "report", *arguments, "--format", "json"))
    return loaded


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["batch_size=2", "hydra.sweeper.n_trials=8", "seeds=1"], "one seed gives no interval that speaks of seeds"),
        (["batch_size=4,16", "hydra.sweeper.n_trials=2", "seeds=4"], ""),
        (["batch_size=4,16", "hydra.sweeper.n_trials=4", "seeds=4"], ""),
        (["batch_size=8,32", "hydra.sweeper.n_trials=8", "seeds=3"], ""),
    ],
)
def test_too_little_tells_nothing_of_the_law(arguments: list[str], reason: str, folder: Path) -> None:
    """Each of these once stated an exponent, or that it is as theory says."""
    said = words(here(folder, *QUICK, *arguments))
    found = report(folder)
    [claim] = [claim for claim in found["claims"] if claim["measure"] == "ratio_slope"]
    ratio = found["ratio"]
    for judged in (claim, ratio):
        assert judged["verdict"] == "cannot tell" and judged["way_out"] and reason in judged["reason"]
    assert f"this study cannot tell: {ratio['reason']}; {ratio['way_out']}." in said
    assert "as theory says" not in said and "x c^" not in said and "FAILS" not in said
    if reason:
        assert ratio["slope"] is None and all(slope["ci"] is None for slope in found["slopes"])


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a published study whose three claims have the three verdicts."""
    folder = tmp_path_factory.mktemp("three")
    (folder / "said.txt").write_text(here(folder, "run", "-m", *STUDY, LR, CLAIMS))
    here(folder, "publish", "three")
    return folder


def test_one_verdict_in_every_form_of_the_answer(three: Path) -> None:
    claims = report(three, "three")["claims"]
    assert tuple(claim["verdict"] for claim in claims) == VERDICTS
    assert [bool(claim["way_out"]) for claim in claims] == [False, False, True]
    rows = {line.split("  ")[0]: line for line in (three / "said.txt").read_text().splitlines() if line.startswith("It is")}
    page = here(three, "report", "three", "--format", "html")
    for claim, verdict in zip(claims, VERDICTS, strict=True):
        assert rows[claim["name"]].rstrip().endswith(verdict)
        (cells,) = re.findall(rf"<tr><td[^>]*>{claim['name']}</td>(.*?)</tr>", page)
        assert cells.endswith(f' class="{verdict.replace(" ", "-")}">{verdict}</td>')
    untold = claims[2]
    why = f"cannot tell: {untold['reason']}; {untold['way_out']}."
    assert why in words((three / "said.txt").read_text()) and why in page
    published = json.loads((three / "sweeps/results/three/report.json").read_text())
    assert [claim["verdict"] for claim in published["claims"]] == list(VERDICTS)
    store = Store.existing(f"sqlite:///{three}/mlflow.db")
    run = store.client.get_run(store.study("three").run_id)
    counts = {name: run.data.metrics[name] for name in ("claims", "claims_held", "claims_failed", "claims_untold")}
    assert counts == {"claims": 3, "claims_held": 1, "claims_failed": 1, "claims_untold": 1}
    law, note = report(three, "three")["law"], run.data.tags["mlflow.note.content"]
    assert law and all(escape_markdown(sentence) in note for sentence in law)
    assert f"{COUNT}: It is large (fails), It is exactly so (cannot tell)." in note


def test_strict_decides_the_exit_status(three: Path, folder: Path) -> None:
    assert COUNT not in here(three, "report", "three")
    assert here(three, "report", "three", "--strict", status=1).endswith(f"lrscale: three: {COUNT}.\n")
    said = here(three, "report", "three", "--strict", "--format", "json", status=1)
    assert said.endswith(f"lrscale: three: {COUNT}.\n")
    shutil.copytree(three / "sweeps", folder / "sweeps")
    said = here(folder, "reproduce", "three")
    assert "reproduced three" in said and f"claims   {COUNT}" in said
    assert here(folder, "reproduce", "three", "--strict", status=1).endswith(f"lrscale: three: {COUNT}.\n")


def test_strict_is_content_where_every_claim_holds(folder: Path) -> None:
    held = CLAIMS.partition(",\x20{name: It is large")[0] + "]"
    here(folder, "run", "-m", *STUDY, LR, held)
    here(folder, "report", "three", "--strict")


def test_a_training_makes_no_claims(three: Path) -> None:
    store = Store.existing(f"sqlite:///{three}/mlflow.db")
    trial = store.trials(store.study("three").experiment_id)[0]
    said = here(three, "reproduce", "--from", trial.run_id, "--strict", status=2)
    assert said.startswith("lrscale: `--strict` must be used with a study") and said.count("\n") == 1
