"""A trial's page shows the config that it ran, with exact values, and says where the trial is another's run."""

import json
from pathlib import Path

import pytest

from lrscale.study.plan import exact_label
from lrscale.tracking.schema import CONFIG, NOTE, OUTCOME, SAME_RUN
from lrscale.tracking.store import Store
from tests.program import here


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The store of a study of a reference, a twin that is the same run (batch size 4), and two that are not (3)."""
    folder = tmp_path_factory.mktemp("notes")
    sweep = ("batch_size=3,4", "reduction=sum,mean", "seeds=2", "drop_last=true", "hydra.sweeper.n_trials=3")
    here(folder, "run", "-m", *sweep, "optimizer.lr=tag(log,interval(3e-3,0.7))")
    return Store.existing(f"sqlite:///{folder}/mlflow.db")


def test_the_page_shows_the_exact_values(store: Store) -> None:
    trials = store.trials(store.study(None).experiment_id)
    assert any(f"{trial.params['optimizer.lr']:.4g}" != repr(trial.params["optimizer.lr"]) for trial in trials)
    for trial in trials:
        tags, lr = store.run_tags(trial.run_id), trial.params["optimizer.lr"]
        objective = sum(trial.objectives) / 2
        assert f"Exact values: `optimizer.lr={lr!r} objective={objective!r}`" in tags[NOTE]
        assert f"\n  lr: {lr!r}\n" in tags[NOTE]
        assert json.loads(tags[CONFIG])["optimizer"]["lr"] == lr


def test_only_a_trial_that_was_trained_for_its_twin_names_it(store: Store) -> None:
    study = store.study(None)
    cells, trials = {cell.id: cell for cell in study.plan.cells}, store.trials(study.experiment_id)
    names = {exact_label(cells[trial.cell].label, trial.params): trial for trial in trials}
    told = 0
    for trial in trials:
        tags, twin = store.run_tags(trial.run_id), cells[trial.cell].twin
        if twin is None or not twin.is_same_run:
            assert SAME_RUN not in tags and "The same run as" not in tags[NOTE]
            continue
        told += 1
        other = names[tags[SAME_RUN]]
        assert other.cell == twin.of and other.objectives == trial.objectives
        assert f"The same run as `{tags[SAME_RUN]}`: trained once, recorded for both." in tags[NOTE]
    assert told == 3


def test_a_diverged_trial_says_so_and_has_no_value_in_place_of_infinity(tmp_path: Path) -> None:
    sweep = (
        "batch_size=4",
        "reduction=sum,mean",
        "seeds=2",
        "optimizer.lr=tag(log,interval(0.1,20))",
        "hydra.sweeper.n_trials=4",
    )
    here(tmp_path, "run", "-m", *sweep)
    store = Store.existing(f"sqlite:///{tmp_path}/mlflow.db")
    diverged = [trial for trial in store.trials(store.study(None).experiment_id) if any(trial.diverged)]
    assert diverged
    for trial in diverged:
        run = store.client.get_run(trial.run_id)
        assert run.data.tags[OUTCOME] == f"{sum(trial.diverged)} of 2 seeds diverged"
        assert "**diverged**, objective infinite" in run.data.tags[NOTE].splitlines()[0]
        assert not {"objective", "log10_objective"} & run.data.metrics.keys()
        assert {"task": "d2l", "optimizer": "sgd", "batch_size": "4"}.items() <= run.data.params.items()
    params = store.client.get_run(store.study(None).run_id).data.params
    assert params.items() >= {"task": "d2l", "optimizer": "sgd", "reduction": "sum, mean", "batch_size": "4"}.items()


def test_a_single_training_says_how_it_ended(tmp_path: Path) -> None:
    here(tmp_path, "run", "optimizer.lr=5", "batch_size=8")
    store = Store.existing(f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = store.client.search_runs([store.experiment("lrscale")])
    lines = run.data.tags[NOTE].splitlines()
    assert lines[0] == "mean b8 lr5e0: **diverged**, objective infinite, 1 of 1 seeds diverged"
    assert lines[2].startswith("Its curves, which are means over seeds, end at step 1: after it")
    assert "Exact values: `optimizer.lr=5.0 objective=inf`" in lines and "  lr: 5" in lines
    assert run.info.end_time > run.info.start_time  # the time of the training, and not 0 ms


def test_a_cell_of_a_probe_says_what_was_measured_and_no_objective(tmp_path: Path) -> None:
    here(tmp_path, "run", "-m", "sweeps=homogeneity", "probe.optimizer=sgd", "probe.size=1")
    store = Store.existing(f"sqlite:///{tmp_path}/mlflow.db")
    (trial,) = store.trials(store.study(None).experiment_id)
    note = store.run_tags(trial.run_id)[NOTE]
    assert ": p_first 1 (expected 1), p_step_50 1 (expected 1), p_first_50 1 (expected 1)." in note.splitlines()[0]
    exact = " ".join(f"{quantity.name}={quantity.value!r}" for quantity in trial.quantities)
    assert f"Exact values: `{exact}`" in note
    assert not [word for word in ("objective=", "seeds diverged", "[Optuna]") if word in note]
