"""What a plan cannot answer is said before it starts, with the number that would do."""

import math
from typing import Any

import pytest

from lrscale.published.files import names, read
from lrscale.search.ladder import lr_at, next_rungs
from lrscale.study.claim_foresight import finest_spacing
from lrscale.study.foresight import foresight
from lrscale.study.plan import Cell, TunedInterval
from tests.configs import config
from tests.studies import make_plan, probe_cell

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


def tuned(name: str, *, by: str = "", **changes: Any) -> Cell:
    """A cell on the axes reduction, batch_size and, where it is given, optimizer."""
    axes = {"reduction": changes["reduction"], "batch_size": changes["batch_size"]}
    return Cell(name, name, {**axes, **({"optimizer": by} if by else {})}, config(seeds=8, **changes))


def claims(*lines: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": f"claim {i}", "expected": 0, **line} for i, line in enumerate(lines)]


def told(cells: list[Cell], *lines: dict[str, Any], **changes: Any) -> list[str]:
    settings = {"intervals": WIDE, "n_trials": 14, "ranges": {"small": [1, 4]}, **changes}
    return foresight(make_plan(cells, claims=claims(*lines), **settings))


BY_SUM = [tuned(f"s{size}", reduction="sum", batch_size=size) for size in (4, 16)]
BOTH = [*BY_SUM, *(tuned(f"m{size}", reduction="mean", batch_size=size) for size in (4, 16))]


@pytest.mark.parametrize(
    ("cells", "claim", "text"),
    [
        (BY_SUM, {"measure": "ratio_slope"}, "no cell has the reduction mean: take reduction=sum,mean."),
        (BY_SUM, {"measure": "slope", "reduction": "mean"}, "no cell has the reduction mean: take reduction=sum,mean."),
        (BOTH, {"measure": "slope", "reduction": "sum", "range": "small"}, "the range small, 1 to 4, and there is 1: add 1."),
        (BOTH, {"measure": "b_c"}, "3 batch sizes are needed, and there are 2: add 1."),
        (BOTH, {"measure": "form_residual"}, "3 batch sizes are needed, and there are 2: add 1."),
        (BOTH, {"measure": "b_crit"}, "no steps to a target are counted: take objective=steps_to_target and budget=target."),
        (BOTH, {"measure": "b_c", "where": {"optimizer": "adam"}}, "selects by optimizer, which this study does not vary"),
        (
            [tuned(f"m{i}", reduction="mean", batch_size=1, by="sgd") for i in "ab"],
            {"measure": "b_c", "where": {"optimizer": "adam"}},
            "`where` selects no cell; the study has optimizer=sgd.",
        ),
        (BOTH, {"measure": "theory", "tolerance": 0.15}, "take hydra.sweeper.n_trials=9 or more."),
        (BOTH, {"measure": "theory", "tolerance": 0.005}, "state a wider tolerance."),
    ],
)
def test_a_claim_that_cannot_be_told_is_named_with_what_would_do(cells: list[Cell], claim: dict[str, Any], text: str) -> None:
    trials = 7 if "tolerance" in claim else 14
    (line,) = [line for line in told(cells, claim, n_trials=trials) if "claim 0" in line]
    assert line.startswith("note: claim 'claim 0': ") and text in line


def test_what_can_be_told_is_not_warned_of() -> None:
    sound = [
        {"measure": "ratio_slope", "tolerance": 0.001},
        {"measure": "slope", "reduction": "sum", "tolerance": 0.1},
        {"measure": "theory", "tolerance": 0.2},
    ]
    assert told(BOTH, *sound, n_trials=20) == []


def test_claims_of_a_probe_need_cells_and_points() -> None:
    cells = [probe_cell(f"{size}", {"batch_size": size}) for size in (4, 16)]
    several = claims(
        {"measure": "largest", "quantity": "q", "where": {"batch_size": 8}},
        {"measure": "slope_of", "quantity": "q", "against": "batch_size"},
        {"measure": "form_residual", "quantity": "q", "against": "probe.fraction"},
        {"measure": "least", "quantity": "q", "where": {"batch_size": [4, 5]}},
    )
    no_cell, slope, form = foresight(make_plan(cells, claims=several))
    assert "the study has batch_size=4,16" in no_cell and "needs 3 values of batch_size, got 2" in slope
    assert "sweep probe.fraction" in form


def test_the_ladder_gets_no_finer_than_is_said() -> None:
    for octaves in (4, 9, 12):
        for trials in range(6, 24):
            tried: dict[int, list[float]] = {}
            while len(tried) < trials:
                rungs = next_rungs([tried], trials - len(tried), 2.0**-octaves, 1.0)
                if not rungs:
                    break
                tried |= {k: [1 + (math.log2(lr_at(k)) + octaves / 2.1) ** 2] for k in rungs}
            places = sorted(tried)
            best = min(range(1, len(places) - 1), key=lambda i: tried[places[i]][0])
            spacing = max(places[best] - places[best - 1], places[best + 1] - places[best]) * math.log(2) / 8
            assert spacing >= finest_spacing(octaves, trials) - math.log(2) / 8 - 1e-9, (octaves, trials)


@pytest.mark.parametrize("name", names())
def test_no_study_that_is_published_is_warned_of(name: str) -> None:
    assert foresight(read(name).study.plan) == []
