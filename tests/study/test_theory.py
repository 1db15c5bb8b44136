"""Theory beside what is measured: it stands where the two are the same quantity, and says why where they are not."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lrscale.spec import Training
from lrscale.study.theory import NEGLIGIBLE, displacement, theory_of
from lrscale.tasks.registry import make_task, population
from lrscale.training.engine import train
from tests.configs import make

LINEAR: dict[str, Any] = {"task": "linear", "task__features": 8, "task__examples": 256, "batch_size": 16}
OWN = {"data_seeds": "own"}
SEEDS, LRS = 100, 40


def start_of(training: Training) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The eigenvalues and the second moments at the start, whose initial weights add little."""
    source = population(training)
    assert source is not None
    return source.eigenvalues.numpy(), source.weights.numpy() ** 2


def risks_of(objective: str, noise: float, epochs: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Measures the risk at the end: the lrs, and the risk at each lr on each of many data draws, [lr, draw]."""
    theory = population_lr(epochs, noise)
    lrs = np.exp(np.linspace(math.log(theory / 8), math.log(min(theory * 200, 0.6)), LRS))
    common = {**LINEAR, **OWN, "task__noise": noise, "budget__epochs": epochs, "seeds": SEEDS, "points": 2}
    training = make(**common, optimizer__lr=lrs.tolist())
    risks = getattr(train(training, make_task(training)), objective)[-1].reshape(LRS, SEEDS)
    return lrs, np.where(np.isfinite(risks), risks, np.inf)


def log_ratio(objective: str, noise: float, epochs: int) -> float:
    """Measures ln(best lr / theory) of the mean over data draws; theory is that of the population."""
    theory = population_lr(epochs, noise)
    lrs, by_draw = risks_of(objective, noise, epochs)
    risks = by_draw.mean(1)
    k = int(np.argmin(risks))
    around = slice(k - 1, k + 2)
    curvature, tilt, _ = np.polyfit(np.log(lrs[around]), np.log(risks[around]), 2)
    return float(-tilt / 2 / curvature - math.log(theory))


def population_lr(epochs: int, noise: float) -> float:
    """The best lr of as many fresh examples."""
    fresh = {**LINEAR, **OWN, "task__examples": 256 * epochs, "task__noise": noise, "budget__epochs": 1}
    best = theory_of(make(**fresh, objective="population_risk"), 1).best_lr
    assert best is not None
    return best


@pytest.mark.parametrize("noise", [0.01, 1.0, 100.0])
def test_theory_is_right_for_the_population_in_one_epoch_whatever_the_noise(noise: float) -> None:
    assert abs(log_ratio("population_risk", noise, 1)) < 0.1
    assert theory_of(make(**LINEAR, **OWN, task__noise=noise, budget__epochs=1, objective="population_risk"), 1).note == ""


def test_theory_stands_where_excess_risk_agrees_with_it() -> None:
    loudest = 1.4
    training = make(**LINEAR, task__noise=loudest, budget__epochs=1)
    assert NEGLIGIBLE / 2 < displacement(256, loudest, *start_of(training)) < NEGLIGIBLE
    assert theory_of(training, 1).best_lr == population_lr(1, loudest)
    assert abs(log_ratio("excess_risk", loudest, 1)) < 0.1


@pytest.mark.parametrize(("objective", "epochs"), [("excess_risk", 1), ("excess_risk", 3), ("population_risk", 3)])
def test_theory_is_withheld_where_it_is_wrong(objective: str, epochs: int) -> None:
    theory = theory_of(make(**LINEAR, **OWN, task__noise=100.0, budget__epochs=epochs, objective=objective), 1)
    assert theory.best_lr is None and theory.edge is not None
    assert "noise 100" in theory.note
    assert abs(log_ratio(objective, 100.0, epochs)) > 0.7


def test_theory_of_the_mean_over_draws_is_withheld_where_one_draw_decides() -> None:
    theory = theory_of(make(**LINEAR, task__noise=100.0, budget__epochs=1, objective="population_risk"), 1)
    assert theory.best_lr is None and "Take data_seeds=own" in theory.note
    lrs, by_draw = risks_of("population_risk", 100.0, 1)
    off = np.abs(np.log(lrs[by_draw.argmin(0)] / population_lr(1, 100.0)))
    assert np.median(off) > math.log(2)


@pytest.mark.parametrize("bias", [False, True])
def test_the_displacement_is_that_of_drawn_optima(bias: bool) -> None:
    common: dict[str, Any] = {**LINEAR, "task__noise": 3.0, "task__bias": bias, "task__spectrum": "power_law"}
    training = make(**common, seeds=256, data_seeds="own")
    task = make_task(training)
    assert task.population is not None and task.optimum is not None
    eigenvalues, start = start_of(training)
    measured = float(task.population.excess([task.optimum.weights]).mean()) / float(eigenvalues @ start / 2)
    assert displacement(256, 3.0, eigenvalues, start) == pytest.approx(
        measured, rel=0.15
    )  # N - k - 1 instead of N, and 256 draws


@pytest.mark.parametrize("task", ["d2l", "linear"])
@pytest.mark.parametrize("epochs", [1, 3, 10])
def test_theory_stands_in_the_studies_that_are_published(task: str, epochs: int) -> None:
    for objective in ("excess_risk", "population_risk"):
        theory = theory_of(make(task=task, budget__epochs=epochs, batch_size=16, objective=objective), 16)
        assert theory.note == "" and theory.best_lr is not None and theory.edge is not None
        assert theory.best_lr < theory.edge


TARGET: dict[str, Any] = {**LINEAR, "budget": "target", "objective": "steps_to_target", "budget__target": 0.1}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"optimizer": "adam"}, "SGD on least squares only"),
        ({"optimizer__momentum": 0.9}, ""),
        ({"optimizer__momentum": 0.9, "optimizer__weight_decay": 0.1}, "without weight decay and dampening only"),
        ({**TARGET, "task__noise": 0.01, "optimizer__momentum": 0.9}, "without momentum only"),
        ({"task": "digits"}, "SGD on least squares only"),
        ({"objective": "valid_loss"}, "objective valid_loss"),
        ({**TARGET, "task__noise": 0.3}, "noise 0.3 is not small against the target loss 0.1"),
        ({**TARGET, "task__noise": 0.01}, ""),
    ],
)
def test_what_theory_does_not_know_is_said(changes: dict[str, Any], says: str) -> None:
    theory = theory_of(make(**{"batch_size": 16, **changes}), 1)
    assert (theory.best_lr is None) == bool(theory.note) == bool(says)
    assert says in theory.note and "\n" not in theory.note
