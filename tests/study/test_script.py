"""What a script's function may return, and what its cells tell."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lrscale.errors import Refusal
from lrscale.study.config import identity, job_id, make_training
from lrscale.study.families import answer_cell, answer_family
from lrscale.study.plan import Cell
from lrscale.study.script import Returned, WrongReturn, homogeneity, mean_curves, own_words, returned, returned_loss
from lrscale.study.twins import LR_KEY, with_twins

CONFIG: dict[str, Any] = {
    "script": {"data": {"batch_size": 8}, "epochs": 1},
    "roles": {"lr": "optim.lr", "batch_size": "data.batch_size", "seed": "seed"},
    "task": {"name": "train"},
    "optimizer": {"name": "sgd", "lr": 0.1},
    "reduction": "mean",
    "batch_size": 8,
    "accumulation": 1,
    "objective": "objective",
    "seeds": [0, 1, 2],
}


def cell(**changes: Any) -> Cell:
    config = {**CONFIG, **changes}
    return Cell(identity(config, [LR_KEY]), str(changes), {"reduction": config["reduction"]}, config)


@given(st.floats(), st.dictionaries(st.text(max_size=5), st.lists(st.floats(), max_size=4), max_size=3))
def test_what_is_returned_survives_its_file(objective: float, curves: dict[str, list[float]]) -> None:
    result = returned({"objective": objective, "curves": curves})
    again = Returned.from_json(result.as_json())
    assert repr(again) == repr(result)  # nan included


@pytest.mark.parametrize("value", [1, 1.0, np.float32(1), np.int64(1), np.array(1.0), torch.tensor(1.0), torch.tensor([1.0])])
def test_scalars_are_floats(value: object) -> None:
    assert returned(value) == Returned(1.0, {}) == returned({"objective": value})


@pytest.mark.parametrize(
    "value",
    [
        "1", b"1", True, None, [1.0], (1.0,), np.zeros(2), torch.zeros(2), {}, {"loss": 1.0}, {"objective": "1"}, object(),
        {"objective": 1.0, "more": 1}, {"objective": 1.0, "curves": [1.0]}, {"objective": 1.0, "curves": {"a": "12"}},
        {"objective": 1.0, "curves": {"a": [None]}}, {"objective": 1.0, "curves": {"a": 1.0}}, 1j,
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_what_to_return(value: object) -> None:
    with pytest.raises(WrongReturn, match="Return a float, or a dict with `objective`"):
        returned(value)


def test_with_roles_an_objective_is_a_loss() -> None:
    assert returned_loss(0.0).objective == 0 and math.isnan(returned_loss(float("nan")).objective)
    with pytest.raises(WrongReturn, match="1 - accuracy"):
        returned_loss(-0.1)


def test_curves_are_means_as_far_as_all_seeds_have_them() -> None:
    assert mean_curves([{"a": [1, 2, 3]}, {"a": [3, 4]}]) == {"a": (2, 3)}
    assert mean_curves([{"a": [1, math.nan, 3]}, {"a": [1, 2, 3]}]) == {"a": (1,)}
    assert mean_curves([{"a": [1]}, {}]) == {"a": ()} and mean_curves([]) == {}


@pytest.mark.parametrize(("name", "p"), [("sgd", 1), ("adamw", 0), ("unknown", None), ("my own", None)])
def test_twins_need_a_known_p_and_are_never_the_same_run(name: str, p: float | None) -> None:
    optimizer = {"name": name, "lr": 0.1}
    cells = with_twins([cell(optimizer=optimizer), cell(optimizer=optimizer, reduction="sum")], [LR_KEY], "as_given")
    assert homogeneity(cells[0].training) == p
    if p is None:
        assert [c.twin for c in cells] == [None, None]
    else:
        twin = cells[1].twin
        assert twin is not None and twin.r == 8 and twin.factors == {LR_KEY: 8.0**-p} and not twin.is_same_run
    family = answer_family([answer_cell(c, []) for c in cells])
    assert family.homogeneity == p and [ratio.expected for ratio in family.ratios] == [None if p is None else -p]


def test_more_seeds_are_another_cell_of_the_same_jobs() -> None:
    more = {**CONFIG, "seeds": [0, 1, 2, 3]}
    assert identity(more, [LR_KEY]) != identity(CONFIG, [LR_KEY]) and job_id(more) == job_id(CONFIG)
    other = {**CONFIG, "script": {**CONFIG["script"], "epochs": 2}}
    assert job_id(other) != job_id(CONFIG)


@pytest.mark.parametrize(
    "changes",
    [
        {"script": 1}, {"roles": {}}, {"roles": {"lr": "a\\1"}}, {"roles": {"lr": ""}}, {"task": {"name": "a\n"}},
        {"reduction": "max"}, {"optimizer": {"name": "sgd"}}, {"batch_size": 0}, {"seeds": []}, {"seeds": [0.5]}, {"more": 1},
        {"objective": "train_loss"},
    ],
)  # fmt: skip
def test_a_record_of_a_script_is_checked(changes: dict[str, Any]) -> None:
    with pytest.raises(Refusal):
        make_training({**CONFIG, **changes})


def test_ways_out_have_the_script_s_own_keys() -> None:
    assert (
        own_words(CONFIG, "raise hydra.sweeper.n_trials or seeds")
        == "raise hydra.sweeper.n_trials or the number of values of seed"
    )
    assert own_words(CONFIG, "raise seeds to 18") == "take seed=range(18)"
    assert own_words({}, "take smaller lrs in optimizer.lr") == "take smaller lrs in optimizer.lr"
