"""Sum and mean look at the same runs: whatever is swept, by whatever sampler, the algebra of their best lrs is never denied."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lrscale.run import job
from lrscale.spec import Compute
from lrscale.study.plan import Cell
from lrscale.study.records import TrialRecord
from lrscale.tracking.store import Store
from lrscale.training.results import Result
from tests.end_to_end.test_verdicts import LR, report
from tests.program import here

GRID_STEP = 2**0.125 * (1 + 1e-9)
"""The finest spacing of the ladder's lrs."""


def read(folder: Path) -> tuple[dict[str, Cell], dict[str, list[TrialRecord]]]:
    """The cells of the latest study by id, and the trials of each."""
    store = Store.existing(f"sqlite:///{folder}/mlflow.db")
    study = store.study(None)
    trials = store.trials(study.experiment_id)
    return {c.id: c for c in study.plan.cells}, {c.id: [t for t in trials if t.cell == c.id] for c in study.plan.cells}


def points(cell: Cell, trials: list[TrialRecord]) -> list[float]:
    """The lrs of a cell's trials in the units of its reference."""
    return sorted(t.params["optimizer.lr"] / cell.factor("optimizer.lr") for t in trials)


def assert_twins_agree(folder: Path) -> int:
    """Twins have tried the same points, and same runs have the same objectives; returns the number of twins."""
    cells, trials = read(folder)
    twins = [cell for cell in cells.values() if cell.twin]
    for cell in twins:
        assert cell.twin is not None
        reference = cells[cell.twin.of]
        np.testing.assert_allclose(points(cell, trials[cell.id]), points(reference, trials[reference.id]), rtol=1e-9)
        if cell.twin.is_same_run:
            assert sorted(t.objectives for t in trials[cell.id]) == sorted(t.objectives for t in trials[reference.id])
    return len(twins)


def test_momentum_with_several_valleys_has_no_impossible_ratio(folder: Path) -> None:
    said = here(folder, "run", "-m", "sweeps=quickstart", "optimizer=momentum", "seeds=4")
    assert assert_twins_agree(folder) == 5
    found = report(folder)
    best = {cell["label"]: np.array([cell["lr_best"], *(cell["lr_best_ci"] or ())]) for cell in found["cells"]}
    for size in (4, 16, 64, 256):
        np.testing.assert_allclose(size * best[f"sum b{size}"], best[f"mean b{size}"], rtol=1e-13)
    slopes = {(s["reduction"], s["range"]): s["slope"] for s in found["slopes"]}
    for name in ("small", "large", "all"):
        assert math.isclose(slopes["sum", name], slopes["mean", name] - 1, abs_tol=1e-6)
    assert found["ratio"]["same_runs"] and found["ratio"]["verdict"] == "holds"
    assert "they are the same runs, trained once" in " ".join(said.split())
    assert found["ratio"]["slope"] == -1 and found["ratio"]["ci"] == [-1, -1]  # not measured


def test_knobs_are_scaled_or_the_answer_says_that_the_optimizers_differ(folder: Path) -> None:
    sweep = ("reduction=sum,mean", "batch_size=16,64", "seeds=3", "hydra.sweeper.n_trials=10", "drop_last=true")
    adagrad = ("task=digits", "optimizer=adagrad", "optimizer.eps=0.5", "optimizer.lr=tag(log,interval(0.02,20))")
    scaled = here(folder, "run", "-m", *sweep, *adagrad, "hydra.sweeper.study_name=scaled")
    assert "Scaled with the lr: optimizer.eps x r" in scaled
    best = {cell["label"]: cell["lr_best"] for cell in report(folder, "scaled")["cells"]}
    assert best["sum b16"] == best["mean b16"] and best["sum b64"] == best["mean b64"]  # exactly 1, with eps x B
    given = here(folder, "run", "-m", *sweep, *adagrad, "hydra.sweeper.study_name=given", "hydra.sweeper.companions=as_given")
    assert "optimizer.eps as given: sum and mean are different optimizers, whose best objectives differ" in " ".join(
        given.split()
    )
    best = {cell["label"]: cell["lr_best"] for cell in report(folder, "given")["cells"]}
    assert best["mean b64"] > 1.2 * best["sum b64"]


def test_each_run_is_trained_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, trained = job.work, []

    def counting(config: Mapping[str, Any], compute: Compute) -> list[Result]:
        trained.extend((config["reduction"], config["batch_size"], lr) for lr in config["optimizer"]["lr"])
        return work(config, compute)

    monkeypatch.setattr(job, "work", counting)
    here(folder, "run", "-m", "reduction=sum,mean", "batch_size=8,10", "seeds=2", "hydra.sweeper.n_trials=8", LR)
    assert len(set(trained)) == len(trained)
    counts = {f"{reduction} {size}": sum(run[:2] == (reduction, size) for run in trained) for reduction, size, _ in trained}
    assert counts == {"mean 8": 8, "mean 10": 8, "sum 10": 8}  # sum at B = 8 is mean's runs


def random_study(seed: int) -> list[str]:
    draw = np.random.default_rng(seed)
    optimizer = str(draw.choice(["sgd", "momentum", "adam", "adamw", "rmsprop", "adagrad"]))
    task = str(draw.choice(["d2l", "linear", "digits"]))
    sizes = sorted({int(size) for size in 2 ** draw.uniform(0, 9, 2)} | {16})
    trials, seeds = int(draw.integers(4, 16)), int(draw.integers(1, 5))
    study = [f"task={task}", f"optimizer={optimizer}", f"batch_size={','.join(map(str, sizes))}", f"seeds={seeds}"]
    study += [f"hydra.sweeper.n_trials={trials}", f"reduction={draw.choice(['sum,mean', 'mean,sum,sum_over_nominal'])}"]
    study += [f"drop_last={str(draw.random() < 0.7).lower()}", "budget.epochs=2", "optimizer.lr=tag(log,interval(1e-4,2))"]
    study += [f"hydra.sweeper.sampler={draw.choice(['ladder', 'ladder', 'ladder', 'tpe', 'random'])}"]
    return study if draw.random() < 0.5 else [*study, f"optimizer.weight_decay={10 ** draw.uniform(-4, -2):.2g}"]


@pytest.mark.parametrize("seed", [0, 4])
def test_no_study_denies_the_algebra(folder: Path, seed: int) -> None:
    assert_algebra_not_denied(folder, seed)


def assert_algebra_not_denied(folder: Path, seed: int) -> None:
    """A study drawn at random tells of its twins what the algebra says, or that it cannot tell."""
    here(folder, "run", "-m", *random_study(seed), "hydra.sweeper.study_name=random")
    assert assert_twins_agree(folder) > 0
    found, (cells, _) = report(folder), read(folder)
    p, labels = -found["ratios"][0]["expected"], {cell.id: cell.label for cell in cells.values()}
    of = {cell["label"]: cell for cell in found["cells"]}
    for ratio in found["ratios"]:
        assert ratio["verdict"] != "fails"
    for cell in cells.values():
        if cell.twin is None or "cannot tell" in {r["verdict"] for r in found["ratios"]}:
            continue
        own, reference = of[cell.label], of[labels[cell.twin.of]]
        distance = own["lr_best"] * cell.twin.r**p / reference["lr_best"]
        assert 1 / GRID_STEP <= distance <= GRID_STEP or not cell.twin.is_same_run
