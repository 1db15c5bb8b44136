"""Studies whose seeds have a data draw of their own: run, recorded and reported beside one draw for all."""

import json
import math
from pathlib import Path

import pytest

from lrscale.tracking.store import Store
from tests.program import here
from tests.run.test_study import lrs_of

SWEEP = ["batch_size=4,16", "hydra.sweeper.n_trials=4", "optimizer.lr=tag(log,interval(1e-3,0.1))"]


@pytest.fixture(scope="module")
def folder_of_draws(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which both kinds of data draws have been compared, at a noise that leaves no theory."""
    folder = tmp_path_factory.mktemp("draws")
    said = here(folder, "run", "-m", "task=linear", "task.noise=100", "seeds=3", "data_seeds=shared,own", *SWEEP)
    (folder / "said.txt").write_text(said)
    return folder


def test_data_draws_can_be_an_axis(folder_of_draws: Path) -> None:
    store = Store.existing(f"sqlite:///{folder_of_draws}/mlflow.db")
    study = store.study(None)
    assert [c.label for c in study.plan.cells] == ["shared b4", "shared b16", "own b4", "own b16"]
    runs = store.client.search_runs([study.experiment_id], "attributes.run_name ILIKE '%lr%'")
    assert sorted(run.data.params["data_seeds"] for run in runs) == ["own"] * 8 + ["shared"] * 8
    found = lrs_of(folder_of_draws)
    assert [lr for lr, _ in found["own b4"][:1]] == [lr for lr, _ in found["shared b4"][:1]]
    both = [{o for _, o in found[name] if math.isfinite(o[0])} for name in ("own b4", "shared b4")]
    assert min(map(len, both)) >= 2 and both[0].isdisjoint(both[1])


def test_a_table_without_theory_says_why_in_one_line(folder_of_draws: Path) -> None:
    said = " ".join((folder_of_draws / "said.txt").read_text().split())
    assert said.count("No theory: noise 100 moves the optimum of 1024 training examples") == 1
    assert "interval objective lrs" in said  # no column without values
    assert "other data only where data_seeds is own." in said
    found = json.loads(here(folder_of_draws, "report", "--format", "json"))
    assert "data_seeds is own" in found["intervals_cover"]
    assert all(c["lr_theory"] is None and "noise 100" in c["theory_note"] for c in found["cells"])
    page = here(folder_of_draws, "report", "--format", "html")
    assert page.count("No theory: noise 100") == page.count("other data only where") == 1


def test_own_draws_are_a_parameter_of_each_record(folder: Path) -> None:
    here(folder, "run", "-m", "seeds=2", "data_seeds=own", *SWEEP)
    here(folder, "run", "data_seeds=own", "optimizer.lr=0.03")
    here(folder, "run", "optimizer.lr=0.03")
    store = Store.existing(f"sqlite:///{folder}/mlflow.db")
    experiments = {e.name: e.experiment_id for e in store.client.search_experiments()}
    tuned = store.client.search_runs([experiments["d2l-batch_size"]], "params.data_seeds = 'own'")
    assert len(tuned) == 8
    assert all({"population_risk", "excess_risk", "train_loss"} <= set(run.data.metrics) for run in tuned)
    points = store.line(tuned[0].info.run_id, "population_risk")
    assert len(points.steps) == len(store.line(tuned[0].info.run_id, "excess_risk").steps) > 10
    singles = [r for name, i in experiments.items() if name != "d2l-batch_size" for r in store.client.search_runs([i])]
    assert sorted(run.data.params.get("data_seeds", "") for run in singles) == ["", "own"]


def test_own_draws_of_fixed_data_are_refused_in_one_line(folder: Path) -> None:
    said = here(folder, "run", "-m", "task=digits", "data_seeds=own", *SWEEP, status=2)
    assert "`data_seeds` own needs a task whose data are drawn (d2l, linear), got task digits" in said
    assert "Traceback" not in said and not (folder / "studies").exists()
