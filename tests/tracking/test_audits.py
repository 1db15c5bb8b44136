"""An audit in MLflow: one run with its verdict, its numbers and its files, which a view of its experiment shows."""

import hashlib
import json
from pathlib import Path

import pytest

from lrscale.errors import Refusal
from lrscale.mlflow_ui.audit_view import AUDIT_COLUMNS, AUDIT_VIEW, show_audits
from lrscale.tracking.schema import AUDIT_KINDS, AUDIT_SOURCE, AUDIT_VERDICT, KIND, NOTE, SAVED_VIEW
from lrscale.tracking.store import Store
from tests.program import here

MINE = """
import torch

weight = torch.ones(3, requires_grad=True)
optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.5)
batch, model, accumulation = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), [weight], 2


def step(micro_batches):
    optimizer.zero_grad()
    for x in micro_batches:
        (x @ weight).square().sum().backward()
    optimizer.step()
"""


@pytest.fixture
def recorded(folder: Path) -> tuple[Store, str]:
    (folder / "mine.py").write_text(MINE)
    said = here(folder, "audit", "mine.py:step", "--record", status=1)
    assert "recorded in sqlite:///mlflow.db, experiment audits, run " in said
    run_id = said.rpartition("run ")[2].partition(";")[0]
    return Store("sqlite:///mlflow.db"), run_id


def test_an_audit_is_one_run_with_all_that_was_found(recorded: tuple[Store, str], tmp_path: Path) -> None:
    store, run_id = recorded
    run = store.client.get_run(run_id)
    assert run.info.run_name == "mine.py:step" and run.info.status == "FINISHED"
    assert store.client.get_experiment(run.info.experiment_id).name == "audits"
    tags, params, metrics = run.data.tags, run.data.params, run.data.metrics
    assert (tags[KIND], tags[AUDIT_VERDICT]) == ("audit", "not invariant") and "sum" in tags[AUDIT_KINDS].split(", ")
    assert tags[AUDIT_SOURCE] == hashlib.sha256(MINE.encode()).hexdigest()
    assert tags[NOTE].startswith("The update depends on") and "**sum**: " in tags[NOTE]
    assert params == {"optimizer": "SGD", "lr": "0.1", "momentum": "0.5", "weight_decay": "0", "accumulation": "2", "ranks": "1"}
    assert {key: metrics[key] for key in ("growth", "accumulation_factor", "p")} == pytest.approx(
        {"growth": 1.0, "accumulation_factor": 1.0, "p": 1.0}, abs=1e-3
    )
    assert metrics["runs"] > 10
    files = {file.path for file in store.client.list_artifacts(run_id)}
    assert files == {"audit.txt", "audit.json", "audit.png", "audit.svg"}
    document = json.loads(Path(store.client.download_artifacts(run_id, "audit.json", str(tmp_path))).read_text())
    assert document["ok"] is False and document["numbers"]["growth"] == pytest.approx(1.0)


def test_a_view_shows_the_verdicts(recorded: tuple[Store, str]) -> None:
    store, run_id = recorded
    experiment = store.audits()
    show_audits(store, experiment)
    assert SAVED_VIEW + AUDIT_VIEW in store.experiment_tags(experiment)
    run = store.client.get_run(run_id)
    known = {f"tags.{key}" for key in run.data.tags} | {f"params.{key}" for key in run.data.params}
    known |= {f"metrics.{key}" for key in run.data.metrics}
    assert set(AUDIT_COLUMNS) - known == {"metrics.c", "metrics.clip_threshold"}  # not measured here


def test_a_store_without_audits_is_refused(folder: Path) -> None:
    here(folder, "audit", "gone.py:step", status=2)  # puts an empty store there
    with pytest.raises(Refusal, match=r"got audits, and there are none. Record one with lrscale audit STEP --record"):
        Store("sqlite:///mlflow.db").audits()
