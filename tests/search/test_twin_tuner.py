"""Twins are tuned together: what one has tried the others try, whichever sampler asks, also after kills and crashes."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lrscale.search.storage import open_storage
from lrscale.search.tuner import Tuner
from lrscale.search.twin_tuner import TwinTuner, twin_tuners
from lrscale.study.plan import Cell, Plan, TunedInterval, Twin
from lrscale.study.records import TrialRecord
from lrscale.study.settings import asked_for
from tests import studies

LR = "optimizer.lr"
MEAN = Cell("mean id", "mean b48", {}, {})
SAMPLERS = ["ladder", "tpe", "qmc", "random", "grid", "gp"]


def by_sum(same: bool) -> Cell:
    return Cell("sum id", "sum b48", {}, {}, twin=Twin(MEAN.id, 48, {LR: 1 / 48}, same))


def make_plan(sampler: str = "ladder", n_trials: int = 12, same: bool = False, **changes: Any) -> Plan:
    settings = {"intervals": {LR: TunedInterval(1e-3, 1, True)}, "sampler": {"name": sampler}, "n_trials": n_trials}
    return studies.make_plan(**{"cells": [by_sum(same), MEAN], **settings, **changes})


def objectives(tuner: Tuner, lr: float) -> list[float]:
    """Two valleys; the cells of the test differ in which of them is deeper."""
    log_lr = math.log(lr / tuner.cell.factor(LR))
    depth = 0.2 if tuner.cell.id == MEAN.id else -0.2
    value = min(0.3 + depth + (log_lr + 5) ** 2, 0.3 - depth + 4 * (log_lr + 2) ** 2)
    return [value, value * 1.01]


def rounds(twins: TwinTuner) -> Iterator[tuple[Tuner, int, dict[str, float]]]:
    while asked := twins.next_round():
        for tuner, asks in asked:
            for ask in asks:
                yield tuner, ask.number, ask.params


def tune(plan: Plan, journal: str, at_most: int = 10**6) -> TwinTuner:
    """Tunes twins, and stops as a kill does after some trials were told."""
    (twins,) = twin_tuners(plan, open_storage(journal))
    for tuner in twins.tuners:
        for params in tuner.complete().values():
            tuner.learn(params, objectives(tuner, params[LR]))
    for told, (tuner, number, params) in enumerate(rounds(twins)):
        if told == at_most:
            break
        values = objectives(tuner, params[LR])
        tuner.learn(params, values)
        tuner.tell(number, values)
    return twins


def points(tuner: Tuner) -> list[Any]:
    return sorted(tuner.point(params) for params in tuner.complete().values())


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("same", [True, False])
def test_twins_try_the_same_points_within_the_interval(folder: Path, sampler: str, same: bool) -> None:
    twins = tune(make_plan(sampler, same=same), "journal")
    by_mean, of_sum = twins.tuners
    assert by_mean.cell is twins.reference.cell and len(set(points(by_mean))) == 12
    assert points(by_mean) == points(of_sum)
    for tuner in twins.tuners:
        low, high = 1e-3 * tuner.cell.factor(LR), tuner.cell.factor(LR)
        assert all(low * (1 - 1e-8) <= params[LR] <= high * (1 + 1e-8) for params in tuner.complete().values())


def test_what_is_the_same_run_is_trained_once(folder: Path) -> None:
    (twins,) = twin_tuners(make_plan(same=True), open_storage("journal"))
    assert [t.cell.id for t in twins.trained] == ["mean id"]
    assert [t.cell.id for t in twins.recording(twins.reference)] == ["mean id", "sum id"]
    (twins,) = twin_tuners(make_plan(same=False), open_storage("other"))
    assert [[r.cell.id for r in twins.recording(t)] for t in twins.trained] == [["mean id"], ["sum id"]]


def test_samplers_that_learn_are_asked_for_each_twin_in_turn(folder: Path) -> None:
    twins = tune(make_plan("tpe"), "journal")
    chosen = [[points is None for *_, points in tuner._rounds()] for tuner in twins.tuners]
    assert chosen[0] == [not own for own in chosen[1]] and set(chosen[0]) == {True, False}


def test_the_ladder_refines_the_valley_of_each_twin(folder: Path) -> None:
    twins = tune(make_plan(n_trials=16), "journal")
    places = sorted(math.log(params[LR]) for params in twins.reference.complete().values())
    for valley in (-5, -2):
        assert sum(abs(place - valley) < 0.35 for place in places) >= 3


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_twins_that_are_killed_end_like_twins_that_are_not(folder: Path, sampler: str) -> None:
    whole = tune(make_plan(sampler), "whole")
    for kill in (0, 1, 3, 4, 7, 2):
        tune(make_plan(sampler), "parts", at_most=kill)
    parts = tune(make_plan(sampler), "parts")
    assert [list(t.complete().values()) for t in parts.tuners] == [list(t.complete().values()) for t in whole.tuners]


def test_a_twin_that_is_added_later_tries_what_the_first_has_tried_round_by_round(folder: Path) -> None:
    alone = tune(make_plan(cells=[MEAN]), "journal")
    both = tune(make_plan(), "journal")
    assert points(both.reference) == points(alone.reference) == points(both.tuners[1])
    sizes = [[len(asks) for asks in tuner.rounds()] for tuner in both.tuners]
    assert sizes[0] == sizes[1] and len(sizes[0]) > 1


def test_recorded_trials_keep_their_rounds_where_the_journal_is_gone(folder: Path) -> None:
    plan = make_plan(n_trials=12)
    before = tune(plan, "journal").trained[0]
    records = [
        TrialRecord("", MEAN.id, ask.number, ask.params, (1.0,), (False,), asks[0].number, (), asked_for(plan, MEAN))
        for asks in before.rounds()
        for ask in asks
    ]
    after = Tuner(plan, before.cell, open_storage("another"))
    after.adopt(records)
    assert max(len(asks) for asks in after.rounds()) > 1
    assert after.rounds() == before.rounds()


def test_a_crash_of_one_twin_is_asked_again_in_the_next_execution_and_not_in_this(folder: Path) -> None:
    (twins,) = twin_tuners(make_plan(n_trials=4), open_storage("journal"))
    crashed = 0
    for tuner, number, params in rounds(twins):
        tuner.learn(params, objectives(tuner, params[LR]))
        if tuner is twins.reference:
            tuner.tell(number, objectives(tuner, params[LR]))
        else:
            crashed += 1
            tuner.fail(number)
    assert crashed == 4
    again = tune(make_plan(n_trials=4), "journal")
    assert points(again.tuners[0]) == points(again.tuners[1]) and len(points(again.tuners[1])) == 4


def test_a_narrow_interval_ends_with_the_points_that_it_has(folder: Path) -> None:
    twins = tune(make_plan(intervals={LR: TunedInterval(0.1, 0.15, True)}), "journal")
    assert 1 <= len(points(twins.reference)) < 12
    assert all(0.1 <= params[LR] <= 0.15 for params in twins.reference.complete().values())
    assert tune(make_plan(intervals={LR: TunedInterval(0.1, 0.15, True)}), "journal").next_round() == []
