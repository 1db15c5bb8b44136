"""The Optuna study of a sweep without roles: what is asked, told, retried and refused."""

import math
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from lrscale.errors import Refusal
from lrscale.search.sweep import Sweep
from lrscale.study.space import Choices, Numbers

SPACE = {"x": Numbers(-5.0, 5.0), "n": Numbers(1, 9, whole=True, step=2), "y": Choices((0, "a", None))}


def make(storage: optuna.storages.BaseStorage, **changes: Any) -> Sweep:
    ways: dict[str, Any] = {
        "name": "study", "storage": storage, "space": SPACE, "direction": "minimize", "sampler": {"name": "tpe"},
        "fixed_config": {"epochs": 1}, "fixed_values": {},
    }  # fmt: skip
    return Sweep(**{**ways, **changes})


@pytest.fixture
def storage() -> optuna.storages.BaseStorage:
    return optuna.storages.InMemoryStorage()


def value(params: Any) -> float:
    return float(params["x"] ** 2 + params["n"])


@given(st.lists(st.sampled_from(["tell", "fail", "kill", "nan"]), min_size=1, max_size=12))
@settings(max_examples=25)
def test_every_trial_ends_once_whatever_happens(events: list[str]) -> None:
    storage = optuna.storages.InMemoryStorage()
    sweep = make(storage)
    for event in events:
        trial = (sweep.running() or sweep.ask(1))[0]
        if event == "kill":
            sweep = make(storage)
            assert [t.number for t in sweep.running()] == [trial.number]  # it is run again under its number
            assert sweep.running()[0].params == trial.params
        elif event == "fail":
            sweep.fail(trial.number)
        else:
            sweep.tell(trial.number, math.nan if event == "nan" else value(trial.params))
    complete = events.count("tell") + events.count("nan")
    assert len(sweep.complete()) == complete
    assert len(sweep.running()) == (events[-1] == "kill")
    best, told = sweep.best(), [t.value for t in sweep.complete()]
    assert (best is None) == ("tell" not in events) and (best is None or best.value == min(told))


def test_what_failed_is_asked_first_at_the_next_start(storage: optuna.storages.BaseStorage) -> None:
    sweep = make(storage)
    failed = [trial.params for trial in sweep.ask(3)]
    for number in range(3):
        sweep.fail(number)
    assert sweep.held() == sweep.failed() == 3
    again = make(storage)
    assert again.held() == 0
    assert [trial.params for trial in again.ask(4)][:3] == failed
    assert [trial.params for trial in make(storage).running()][:3] == failed  # and not a second time


def test_a_trial_that_was_killed_while_it_was_asked_is_not_run(storage: optuna.storages.BaseStorage) -> None:
    sweep = make(storage)
    sweep.study.ask()
    assert make(storage).running() == []
    assert [trial.state for trial in sweep.study.get_trials()] == [TrialState.FAIL]


def test_a_study_that_another_sweeper_began_goes_on(storage: optuna.storages.BaseStorage) -> None:
    study = optuna.create_study(storage=storage, study_name="study")
    for end in (1.0, 2.0, None):  # the last is left RUNNING, as a killed sweep leaves it
        trial = study.ask()
        params = {"x": trial.suggest_float("x", -5, 5), "n": trial.suggest_int("n", 1, 9, step=2)}
        params["y"] = trial.suggest_categorical("y", (0, "a", None))
        if end is not None:
            study.tell(trial, end)
    sweep = make(storage)
    assert sweep.held() == 2 and sweep.running() == [] and sweep.remarks == []
    assert len(sweep.ask(2)) == 2 and {t.state.name for t in study.get_trials()} == {"COMPLETE", "FAIL", "RUNNING"}


def test_what_cannot_be_compared_is_refused(storage: optuna.storages.BaseStorage) -> None:
    sweep = make(storage)
    sweep.tell(sweep.ask(1)[0].number, 1.0)
    for changes, text in (
        ({"fixed_config": {"epochs": 2}}, "holds 1 trials of other settings: epochs was 1 and is 2"),
        ({"fixed_config": {"epochs": 1, "new": 0}}, "new is new: 0"),
        ({"space": {**SPACE, "epochs": Choices((1, 2))}, "fixed_config": {}}, "epochs was 1 and is swept"),
        ({"space": {"x": SPACE["x"], "y": SPACE["y"]}, "fixed_config": {"epochs": 1, "n": 3}}, "n was swept and is 3"),
        ({"direction": "maximize"}, "must be minimize"),
        ({"space": {**SPACE, "y": Choices((0,))}}, "must keep its choices"),
        ({"space": {**SPACE, "y": Numbers(0, 1)}}, "must keep its choices"),
        ({"sampler": {"name": "ladder"}}, "without `roles`"),
        ({"sampler": {"name": "tpe", "speed": 1}}, "`hydra.sweeper.sampler.speed` is not known"),
        ({"sampler": {"name": "grid"}}, "with the sampler grid, got an interval"),
        ({"sampler": {"name": "qmc", "qmc_type": "none"}}, "cannot be used with"),
    ):
        with pytest.raises(Refusal, match=text):
            make(storage, **changes)
    assert len(make(storage).complete()) == 1


def test_choices_in_another_order_are_the_same_choices(storage: optuna.storages.BaseStorage) -> None:
    make(storage).ask(1)
    sweep = make(storage, space={**SPACE, "y": Choices((None, 0, "a"))})
    assert sweep.remarks == [] and set(sweep.ask(1)[0].params) == set(SPACE)


def test_a_wider_space_goes_on_and_a_narrower_one_counts_what_lies_inside(storage: optuna.storages.BaseStorage) -> None:
    sweep = make(storage)
    for trial in sweep.ask(6):
        sweep.tell(trial.number, value(trial.params))
    wider = make(storage, space={**SPACE, "x": Numbers(-9.0, 9.0)})
    assert wider.held() == 6 and "All trials lie inside" in wider.remarks[0]
    inside = [t for t in sweep.complete() if t.params["x"] >= 0]
    narrower = make(storage, space={**SPACE, "x": Numbers(0.0, 9.0)})
    coarser = make(storage, space={**SPACE, "n": Numbers(1, 9, whole=True, step=4)})
    assert coarser.held() == sum(t.params["n"] in (1, 5, 9) for t in sweep.complete()) < 6
    assert narrower.held() == len(inside) < 6 and f"{6 - len(inside)} trials lie outside" in narrower.remarks[0]


def test_a_grid_has_each_point_once_also_in_two_parts(storage: optuna.storages.BaseStorage) -> None:
    space = {"n": Numbers(1, 5, whole=True, step=2), "x": Numbers(0.0, 0.5, step=0.25), "y": Choices((0, "a"))}
    points = []
    for _ in range(2):
        sweep = make(storage, space=space, sampler={"name": "grid"})
        for trial in sweep.ask(9):
            points.append(tuple(trial.params.values()))
            sweep.tell(trial.number, 0.0)
    assert sweep.most() == 18 == len(set(points))


def test_not_finite_is_the_worst_in_both_directions() -> None:
    for direction, worst in (("minimize", math.inf), ("maximize", -math.inf)):
        sweep = make(optuna.storages.InMemoryStorage(), direction=direction)
        for trial, bad in zip(sweep.ask(3), (math.nan, math.inf, -math.inf), strict=True):
            sweep.tell(trial.number, bad)
        assert [trial.value for trial in sweep.complete()] == [worst] * 3
        sweep.tell(sweep.ask(1)[0].number, 7.0)
        best = sweep.best()
        assert best is not None and best.value == 7.0


def test_a_parameter_with_a_fixed_value_is_not_drawn(storage: optuna.storages.BaseStorage) -> None:
    sweep = make(storage, fixed_values={"z": "1"}, extend=lambda trial: trial.suggest_float("+z", 0, 1))
    with pytest.raises(Refusal, match="must not draw what has a fixed value, got z"):
        sweep.ask(1)


def test_a_sampler_without_its_package_is_refused_before_anything_is_asked(
    storage: optuna.storages.BaseStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lrscale.search.sweep.find_spec", lambda name: None)
    with pytest.raises(Refusal, match="needs the package cmaes"):
        make(storage, sampler={"name": "cmaes"})
    assert optuna.get_all_study_names(storage) == []
