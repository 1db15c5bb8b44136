"""What a plan cannot answer is said before it starts, with the number that would do."""

from typing import Any

from lrscale.study.foresight import foresight
from lrscale.study.plan import Cell, TunedInterval
from tests.configs import config
from tests.studies import make_plan

WIDE = {"optimizer.lr": TunedInterval(2**-12, 1.0, True)}


def cell(name: str, **changes: Any) -> Cell:
    return Cell(name, name, {}, config(**changes))


def test_what_cannot_be_told_is_said_with_the_number_that_would_do() -> None:
    enough = [cell("a", seeds=8, batch_size=4), cell("b", seeds=8, batch_size=8)]
    assert foresight(make_plan(enough, intervals=WIDE, n_trials=14)) == []
    (apart,) = foresight(make_plan(enough, intervals=WIDE, n_trials=13))
    assert apart.endswith("take hydra.sweeper.n_trials=14 or more.")
    one = [cell("a", seeds=1, batch_size=4), cell("b", seeds=1, batch_size=4, reduction="sum")]
    seeds, sizes = foresight(make_plan(one, intervals=WIDE, n_trials=14))
    assert "take seeds=8" in seeds and "one batch size 4" in sizes
    (draws,) = foresight(
        make_plan(enough[:1], intervals={"optimizer.lr": TunedInterval(0.1, 1.0, True)}, n_trials=8, sampler={"name": "gp"})
    )
    assert "hydra.sweeper.n_trials=20" in draws
    assert foresight(make_plan(one, intervals={}, n_trials=1)) == []
