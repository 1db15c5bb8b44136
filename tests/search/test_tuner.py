"""Optuna's part: rounds, what counts, and that an interrupted cell goes on as if nothing had happened."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lrscale.errors import Refusal
from lrscale.search.samplers import make_sampler
from lrscale.search.storage import check_storage, open_storage
from lrscale.search.tuner import Ask, Tuner
from lrscale.search.twin_tuner import TwinTuner
from lrscale.study.plan import Cell, Plan, TunedInterval
from tests import studies

CELL = Cell("abc", "sum b8", {}, {}, (), {})
LR = TunedInterval(1e-4, 1.0, True)


def make_plan(sampler: str = "ladder", n_trials: int = 14, **changes: Any) -> Plan:
    settings = {"cells": [CELL], "intervals": {"optimizer.lr": LR}, "sampler": {"name": sampler}, "n_trials": n_trials}
    return studies.make_plan(**{**settings, **changes})


def objective(params: dict[str, float]) -> float:
    lr = params["optimizer.lr"]
    return math.inf if lr > 0.2 else (math.log(lr / 0.03)) ** 2


class Killed(Exception):
    pass


def tune(plan: Plan, journal: str, between: Callable[[], None] = lambda: None) -> dict[int, dict[str, float]]:
    """Runs a cell to its end; `between` is called before anything is told. Objectives are known from another store."""
    twins = TwinTuner(plan, [CELL], open_storage(journal))
    for params in twins.reference.complete().values():
        twins.reference.learn(params, [objective(params)])
    while rounds := twins.next_round():
        for tuner, asks in rounds:
            for ask in asks:
                between()
                tuner.learn(ask.params, [objective(ask.params)])
                tuner.tell(ask.number, [objective(ask.params)])
    return twins.reference.complete()


def killer(after: int) -> Callable[[], None]:
    calls = iter(range(after))

    def between() -> None:
        if next(calls, None) is None:
            raise Killed

    return between


SAMPLERS = ["ladder", "tpe", "qmc", "random", "grid", "gp"]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_interrupted_cell_ends_like_an_uninterrupted_one(folder: Path, sampler: str) -> None:
    plan = make_plan(sampler, n_trials=9)
    whole = tune(plan, "whole.journal")
    assert len(whole) == 9
    for after in (0, 1, 2, 3, 1, 0):
        with pytest.raises(Killed):
            tune(plan, "parts.journal", killer(after))
    assert list(tune(plan, "parts.journal").values()) == list(whole.values())
    assert len({params["optimizer.lr"] for params in whole.values()}) == 9


def test_a_round_killed_while_it_was_asked_is_asked_to_its_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tune(make_plan(), "whole.journal")
    twins = TwinTuner(make_plan(), [CELL], open_storage("parts.journal"))
    tuner = twins.reference
    ask, asked = tuner.study.ask, []

    def dying(space: Any) -> Any:
        if len(asked) == 3:
            ask()  # a trial without hyperparameters, as a kill inside Optuna leaves it
            raise Killed
        asked.append(ask(space))

    monkeypatch.setattr(tuner.study, "ask", dying)
    with pytest.raises(Killed):
        twins.next_round()
    assert list(tune(make_plan(), "parts.journal").values()) == list(whole.values())


def test_no_trial_is_left_running_and_none_is_asked_twice(folder: Path) -> None:
    tune(make_plan(), "optuna.journal")
    trials = Tuner(make_plan(), CELL, open_storage("optuna.journal")).study.trials
    assert {t.state.name for t in trials} == {"COMPLETE"}
    lrs = [t.params["optimizer.lr"] for t in trials]
    assert len(set(lrs)) == len(lrs) == 14
    assert any(t.value == math.inf for t in trials)


def test_n_trials_counts_what_the_study_holds(folder: Path) -> None:
    assert len(tune(make_plan(n_trials=6), "optuna.journal")) == 6
    assert len(tune(make_plan(n_trials=11), "optuna.journal")) == 11
    assert TwinTuner(make_plan(n_trials=11), [CELL], open_storage("optuna.journal")).next_round() == []


def test_crashed_trials_count_in_their_execution_and_are_asked_again_in_the_next(folder: Path) -> None:
    plan = make_plan(n_trials=4)
    twins = TwinTuner(plan, [CELL], open_storage("optuna.journal"))
    tuner = twins.reference
    while rounds := twins.next_round():
        for _, asks in rounds:
            for ask in asks:
                tuner.fail(ask.number)
    assert tuner.held() == 4 and tuner.complete() == {}
    assert len(tune(plan, "optuna.journal")) == 4


def test_a_cell_without_intervals_has_one_trial(folder: Path) -> None:
    twins = TwinTuner(make_plan(intervals={}, n_trials=1), [CELL], open_storage("optuna.journal"))
    assert [asks for _, asks in twins.next_round()] == [[Ask(0, {})]]


@pytest.mark.parametrize(
    ("sampler", "says"),
    [
        ({"name": "ladders"}, "must be one of ladder, tpe"),
        ({"name": None}, "must be one of"),
        ({"name": "ladder", "seed": 1}, "no option but widen"),
        ({"name": "tpe", "n_startup": 1}, "does not take these options"),
    ],
)
def test_unknown_samplers_and_options_are_refused(sampler: dict[str, Any], says: str) -> None:
    with pytest.raises(Refusal, match=says):
        make_sampler(replace(make_plan(), sampler=sampler), CELL, 0)


def test_the_ladder_tunes_lr_alone() -> None:
    both = {"optimizer.lr": LR, "optimizer.momentum": TunedInterval(0, 0.9, False)}
    with pytest.raises(Refusal, match="lr alone"):
        make_sampler(make_plan(intervals=both), CELL, 0)
    make_sampler(make_plan("tpe", intervals=both), CELL, 0)


@pytest.mark.parametrize("url", ["/nowhere/optuna.journal", "sqlite:////nowhere/optuna.db", ".", "nosuch://x"])
def test_a_storage_that_cannot_be_is_refused_and_nothing_written(folder: Path, url: str) -> None:
    with pytest.raises(Refusal, match="storage"):
        check_storage(url)
    assert list(folder.iterdir()) == []


def test_a_database_works_as_storage(folder: Path) -> None:
    assert len(tune(make_plan(n_trials=5), "sqlite:///optuna.db")) == 5


def test_random_draws_of_tpe_scale_with_the_number_of_trials() -> None:
    few = make_sampler(replace(make_plan("tpe"), n_trials=6), CELL, 0)
    assert few._n_startup_trials == 2
