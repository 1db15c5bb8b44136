"""Twins: which cells go together, what is scaled, and that same runs are the same."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from lrscale.study.config import identity
from lrscale.study.plan import Cell, TunedInterval, cell_label, with_values
from lrscale.study.twins import knobs_left, knobs_scaled, scaled_companions, with_twins
from lrscale.tasks.registry import make_task
from lrscale.training.engine import train
from lrscale.training.results import results, same_run
from tests import configs, studies

TUNED = ("optimizer.lr",)
EPOCHS = {"budget__epochs": 2}


def cell(scientific: dict[str, Any], **changes: Any) -> Cell:
    config = configs.config(**{**EPOCHS, **changes, **{key.replace(".", "__"): v for key, v in scientific.items()}})
    return Cell(identity(config, TUNED), cell_label(scientific), scientific, config)


def pair(size: int, companions: str = "scaled", **changes: Any) -> tuple[Cell, ...]:
    cells = [cell({"reduction": reduction, "batch_size": size}, **changes) for reduction in ("sum", "mean")]
    return with_twins(scaled_companions(cells, TUNED) if companions == "scaled" else cells, TUNED, companions)


def test_the_reference_is_mean_and_the_interval_of_sum_is_divided_by_b() -> None:
    by_sum, by_mean = pair(64, drop_last=True)
    assert by_mean.twin is None and by_sum.twin is not None
    assert by_sum.twin.of == by_mean.id and by_sum.twin.r == 64 and by_sum.twin.is_same_run
    plan = studies.make_plan([by_sum, by_mean], intervals={"optimizer.lr": TunedInterval(0.01, 1, True)})
    assert plan.interval_of(by_sum, "optimizer.lr") == TunedInterval(0.01 / 64, 1 / 64, True)
    assert plan.interval_of(by_mean, "optimizer.lr") == TunedInterval(0.01, 1, True)


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"drop_last": True}, True),
        ({"drop_last": False}, False),  # 1000 = 15 x 64 + 40: a short last step
        ({"drop_last": True, "optimizer": "adam"}, True),
        ({"drop_last": True, "optimizer__weight_decay": 0.1}, True),
    ],
)
def test_twins_are_one_run_where_no_step_is_short(changes: dict[str, Any], same: bool) -> None:
    twin = pair(64, **changes)[0].twin
    assert twin is not None and twin.is_same_run is same


def test_a_gradient_scale_that_is_no_power_of_two_gives_runs_of_their_own() -> None:
    twin = pair(50)[0].twin
    assert twin is not None and twin.r == 50 and not twin.is_same_run


def test_knobs_given_as_they_are_make_another_optimizer() -> None:
    with_decay = {"drop_last": True, "optimizer__weight_decay": 0.1}
    by_sum, by_mean = pair(64, "as_given", **with_decay)
    assert by_sum.config["optimizer"]["weight_decay"] == 0.1 and by_sum.twin is not None and not by_sum.twin.is_same_run
    nothing_to_scale = pair(64, "as_given", drop_last=True)[0].twin
    assert nothing_to_scale is not None and nothing_to_scale.is_same_run
    scaled, reference = pair(64, **with_decay)
    assert scaled.config["optimizer"]["weight_decay"] == 6.4 and reference.config["optimizer"]["weight_decay"] == 0.1
    assert scaled.values == {"optimizer.weight_decay": 6.4}  # a job that composes the config anew sets it, too
    assert knobs_scaled([scaled, reference]) == {"optimizer.weight_decay": 1}
    assert len({c.id for c in (by_sum, by_mean, scaled)}) == 3 and reference.id == by_mean.id


def test_a_tuned_weight_decay_goes_with_the_lr_unless_it_is_as_given() -> None:
    tuned = ("optimizer.lr", "optimizer.weight_decay")
    cells = [cell({"reduction": reduction}, batch_size=64, drop_last=True) for reduction in ("mean", "sum")]
    scaled, given = (with_twins(cells, tuned, companions)[1].twin for companions in ("scaled", "as_given"))
    assert scaled is not None and given is not None
    assert scaled.factors == {"optimizer.lr": 1 / 64, "optimizer.weight_decay": 64} and scaled.is_same_run
    assert given.factors == {"optimizer.lr": 1 / 64, "optimizer.weight_decay": 1} and not given.is_same_run
    assert knobs_left(with_twins(cells, tuned, "as_given")) == ["optimizer.weight_decay"]


def test_without_mean_the_smallest_c_is_the_reference_and_alone_a_cell_has_no_twin() -> None:
    alone = with_twins(scaled_companions([cell({"batch_size": b}, reduction="sum") for b in (8, 64)], TUNED), TUNED, "scaled")
    assert [c.twin for c in alone] == [None, None]
    nominal = [cell({"reduction": r}, batch_size=8, drop_last=True) for r in ("sum", "sum_over_nominal")]
    by_sum, by_nominal = with_twins(nominal, TUNED, "scaled")
    assert by_nominal.twin is None and by_sum.twin is not None and by_sum.twin.r == 8


def test_accumulated_micro_batches_are_twins_of_one_large_batch() -> None:
    cells = [cell({"accumulation": k, "batch_size": 32 // k}, drop_last=True) for k in (1, 4)]
    large, accumulated = with_twins(cells, TUNED, "scaled")
    assert large.twin is None and accumulated.twin is not None
    assert (accumulated.twin.of, accumulated.twin.r, accumulated.twin.is_same_run) == (large.id, 4, True)


@pytest.mark.parametrize("name", ["adadelta", "radam", "adafactor"])
def test_an_optimizer_whose_steps_are_only_nearly_the_same_has_no_same_runs(name: str) -> None:
    by_sum, _ = pair(64, optimizer=name, drop_last=True)
    assert by_sum.twin is not None and by_sum.twin.factors == {"optimizer.lr": 1.0} and not by_sum.twin.is_same_run


def test_a_decoupled_decay_of_nadam_stays_and_the_decay_of_asgd_is_scaled() -> None:
    coupled, decoupled = (
        pair(64, optimizer="nadam", optimizer__weight_decay=0.1, optimizer__decoupled_weight_decay=d, drop_last=True)[0]
        for d in (False, True)
    )
    assert (coupled.config["optimizer"]["weight_decay"], decoupled.config["optimizer"]["weight_decay"]) == (6.4, 0.1)
    assert pair(64, optimizer="asgd", drop_last=True)[0].config["optimizer"]["lambd"] == 0.0064


def test_a_probe_and_a_fixed_lr_have_no_twins() -> None:
    cells = [cell({"reduction": r}) for r in ("mean", "sum")]
    assert all(c.twin is None for c in with_twins(cells, (), "scaled"))


def random_case(seed: int) -> dict[str, Any]:
    """A task, an optimizer with knobs, and seeds, drawn at random."""
    draw = np.random.default_rng(seed)
    optimizer = draw.choice(["sgd", "momentum", "adam", "adamw", "rmsprop", "adagrad"])
    case: dict[str, Any] = {"task": draw.choice(["d2l", "linear", "digits_mlp"]), "optimizer": str(optimizer), "drop_last": True}
    case["dtype"] = "float64"  # in float32 the gradients of a confident network underflow, under mean before under sum
    case["seeds"] = [int(s) for s in draw.choice(100, 2, replace=False)]
    if draw.random() < 0.7:
        case["optimizer__weight_decay"] = float(10 ** draw.uniform(-4, -1))
    if optimizer in ("adam", "adamw", "rmsprop", "adagrad"):
        case["optimizer__eps"] = float(10 ** draw.uniform(-10, -2))
    if optimizer == "adagrad":
        case["optimizer__initial_accumulator_value"] = float(draw.uniform(0, 1))
    if optimizer in ("sgd", "momentum"):
        case["optimizer__momentum"] = float(draw.uniform(0.1, 0.95))
        case["optimizer__nesterov"] = bool(draw.random() < 0.5)
    case["task"] = str(case["task"])
    return case


@pytest.mark.parametrize("seed", range(12))
def test_twins_at_one_point_are_one_run(seed: int) -> None:
    """Bit for bit where c is a power of two and no number underflows, to rounding elsewhere."""
    case, draw = random_case(seed), np.random.default_rng(100 + seed)
    for size in (int(2 ** draw.integers(0, 8)), int(draw.integers(3, 100))):
        by_sum, by_mean = pair(size, **case)
        lrs = (10 ** draw.uniform(-4, -2, 3)).tolist()
        outcomes = []
        for each in (by_mean, by_sum):
            own = [lr * each.factor("optimizer.lr") for lr in lrs]
            training = replace(each, config=with_values(each.config, {"optimizer.lr": own})).training
            outcomes.append(list(results(training, train(training, make_task(training)))))
        r = 1.0 if by_sum.twin is None else by_sum.twin.r
        expected = [same_run(result, r) for result in outcomes[0]]
        if by_sum.twin is not None and by_sum.twin.is_same_run:
            assert outcomes[1] == expected
        else:
            assert_allclose([o.objectives for o in outcomes[1]], [o.objectives for o in expected], rtol=1e-3)
