"""The three verdicts: one rule for every interval, and why an estimate says nothing."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrscale.errors import Failure
from lrscale.estimate.best_lr import BestLr
from lrscale.estimate.fits import TurnOver, turn_over
from lrscale.estimate.intervals import Interval
from lrscale.study.answer import answer_of
from lrscale.study.claims import in_count, ratio_judgement, require_held, strict_verdicts, verdicts
from lrscale.study.families import CellAnswer, Family, Ratio
from lrscale.study.plan import Cell
from lrscale.study.records import TrialRecord
from lrscale.study.statements import digits, laws
from lrscale.study.verdict import (
    Bound,
    Judgement,
    judge,
    missing_ratio,
    more_runs,
    turn_over_judgement,
    why_missing,
)
from tests.configs import config
from tests.studies import make_plan, make_record

WIDER, INF = "its interval is wider than the tolerance of", math.inf


@pytest.mark.parametrize(
    ("interval", "bound", "verdict", "reason"),
    [
        ((-1, -1.01, -0.99), Bound(-1, 0.02), "holds", ""),
        ((-1, -1.02, -0.98), Bound(-1, 0.02), "holds", ""),
        ((-1.3, -1.4, -1.2), Bound(-1, 0.05), "fails", "it lies outside -1 ± 0.05"),
        ((-1, -1.1, -0.9), Bound(-1, 0.02), "cannot tell", WIDER),
        ((-1.02, -1.05, -0.99), Bound(-1, 0.04), "cannot tell", "its interval reaches across the bound of -1 ± 0.04"),
        ((-1, -1.1, -0.9), Bound(-1), "holds", ""),
        ((-2, -2.1, -1.9), Bound(-1), "fails", "its interval does not hold -1"),
        ((-1 - 1e-13, -1 - 1e-13, -1 - 1e-13), Bound(-1), "holds", ""),
        ((0, 0, 0), Bound(0, 0), "holds", ""),
        ((1e-300, 1e-300, 1e-300), Bound(0, 0), "fails", "it lies outside 0 ± 0"),
        ((5, 4, 6), Bound(at_least=3), "holds", ""),
        ((5, 2, 6), Bound(at_least=3), "cannot tell", "its interval reaches across the bound of >= 3"),
        ((2, 1, 2.5), Bound(at_least=3), "fails", "it lies outside >= 3"),
        ((5, 4, 9), Bound(at_least=3, at_most=8), "cannot tell", "its interval reaches across the bound of >= 3 and <= 8"),
        ((INF, INF, INF), Bound(at_most=8), "fails", "it lies outside <= 8"),
        ((math.nan, math.nan, math.nan), Bound(at_most=8), "cannot tell", "nothing was measured"),
    ],
)
def test_the_rule(interval: tuple[float, float, float], bound: Bound, verdict: str, reason: str) -> None:
    found = judge(Interval(*interval), bound)
    assert found.verdict == verdict and found.reason.removesuffix(" 0.02") == reason
    assert bool(found.way_out) == (verdict == "cannot tell")


@pytest.mark.parametrize("bound", [Bound(-1, 2), Bound(-1), Bound(0, 5), Bound(at_least=-9)])
def test_an_interval_that_holds_two_laws_supports_neither(bound: Bound) -> None:
    found = judge(Interval(0, -8, 8), bound, apart=(0, -1))
    assert found[:2] == ("cannot tell", "its interval holds both -1 and 0")


@given(st.lists(st.floats(-10, 10), min_size=3, max_size=3), st.floats(-5, 5), st.floats(0, 5), st.floats(0, 3))
def test_a_wider_interval_tells_less_and_never_the_contrary(ends: list[float], expected: float, by: float, more: float) -> None:
    low, value, high = sorted(ends)
    bound = Bound(expected, by)
    narrow = judge(Interval(value, low, high), bound).verdict
    wide = judge(Interval(value, low - more, high + more), bound).verdict
    assert wide in (narrow, "cannot tell")
    inside, outside = (
        all(f(end) for end in (low, high)) for f in (lambda e: abs(e - expected) <= by, lambda e: e > expected + by)
    )
    assert not inside or narrow == "holds" or math.isclose(max(abs(low - expected), abs(high - expected)), by)
    assert not outside or narrow == "fails"


def test_the_counts_are_said_in_words() -> None:
    assert in_count([]) == "0 of 0 claims hold"
    assert in_count(["holds", "holds"]) == "2 of 2 claims hold"
    assert in_count(["fails", "fails", "cannot tell", "cannot tell", "holds"]) == "1 of 5 claims hold, 2 fail, 2 cannot be told"


def test_digits_follow_the_tolerance_and_rounding_moves_no_end_across_a_bound() -> None:
    assert digits(Interval(-1.001, -1.008, -0.992), Bound(-1, 0.02)) == 3
    assert digits(Interval(-1.001, -1.0204, -0.992), Bound(-1, 0.02)) == 4
    assert digits(Interval(0.5, 0.25, 0.75)) == 2


def best(lr: float, error: float = 0.01, spacing: float = 0.05, edge: bool = False) -> BestLr:
    draws = math.log(lr) + error * np.random.default_rng(3).normal(size=1000)
    return BestLr(math.log(lr), draws, spacing, 0.0, edge)


def cell(reduction: str, size: int, found: BestLr | None, seeds: int = 8, trials: int = 8, tuned: bool = True) -> CellAnswer:
    scientific = {"reduction": reduction, "batch_size": size}
    label = f"{reduction} b{size}"
    params = {"optimizer.lr": 0.1} if tuned else {}
    runs = [TrialRecord(f"r{i}", label, i, params, (1.0,) * seeds, (False,) * seeds, None) for i in range(trials)]
    plain = Cell(label, label, scientific, {**CONFIG, **scientific})
    return CellAnswer(plain, tuple(runs), float(size) if reduction == "sum" else 1.0, found, 0.1, None, "")


def ratios(slope: Interval | None) -> tuple[Ratio, ...]:
    return (Ratio("sum", "mean", slope, -1, False, False),)


CONFIG = config()
"""The config of every cell, but for reduction and batch size."""


def family(ratio: Interval | None, turn: TurnOver | None = None, **changes: Any) -> Family:
    cells = [cell(reduction, size, best(0.1), **changes) for reduction in ("sum", "mean") for size in (4, 16, 64)]
    return Family({}, tuple(cells), 1.0, ratios(ratio), turn, None)


CLAIM = {"name": "falls as 1/B", "measure": "ratio_slope", "expected": -1}


@pytest.mark.parametrize(
    ("ratio", "tolerance", "seeds", "verdict", "says"),
    [
        (Interval(-1.0, -1.01, -0.99), 0.02, 8, "holds", ": as theory says (c^-1)."),
        (Interval(-1.3, -1.4, -1.2), 0.02, 8, "fails", ": not as theory says (c^-1)."),
        (Interval(-1.3, -1.4, -1.2), None, 8, "fails", ": not as theory says (c^-1)."),
        (
            Interval(-1.6, -2.4, -0.7),
            0.02,
            8,
            "cannot tell",
            "this study cannot tell: its interval is wider than the ",
        ),
        (Interval(0.0, -8.0, 8.0), None, 8, "cannot tell", "this study cannot tell: its interval holds both -1 and 0; "),
        (Interval(-1.0, -1.0, -1.0), 0.02, 1, "cannot tell", "one seed gives no interval that speaks of seeds; take seeds=8."),
    ],
)
def test_the_law_and_the_claim_have_one_verdict(
    ratio: Interval, tolerance: float | None, seeds: int, verdict: str, says: str
) -> None:
    found = family(ratio, seeds=seeds)
    claim = CLAIM | ({"tolerance": tolerance} if tolerance is not None else {})
    plan = make_plan([c.cell for c in found.cells], claims=[claim])
    [of_claim], of_law = verdicts(plan, [found], ()), ratio_judgement(plan, found, found.ratios[0])
    assert (of_claim.verdict, of_claim.reason, of_claim.way_out) == of_law
    assert of_law.verdict == verdict
    [said] = laws(answer_of(make_record(plan.cells, claims=[claim]), (found,), ()))
    assert says in said and ("x c^" in said) == (verdict != "cannot tell")


def test_the_law_has_the_smallest_tolerance_of_its_claims_or_the_default() -> None:
    found = family(Interval(-1.0, -1.03, -0.97))
    assert ratio_judgement(make_plan(), found, found.ratios[0]).verdict == "holds"
    claims = [CLAIM | {"tolerance": 0.2}, CLAIM | {"tolerance": 0.01}, CLAIM | {"expected": 0, "tolerance": 0.001}]
    assert ratio_judgement(make_plan(claims=claims), found, found.ratios[0]).reason == f"{WIDER} 0.01"
    elsewhere = CLAIM | {"tolerance": 0.01, "where": {"optimizer": "adam"}}
    assert ratio_judgement(make_plan(claims=[elsewhere]), found, found.ratios[0]).verdict == "holds"


def test_why_an_estimate_is_missing() -> None:
    reasons = {
        "the study has no cells for it": [],
        "nothing was measured": [cell("sum", 4, None, trials=0)],
        "some cells have no trials": [cell("sum", 4, best(0.1)), cell("mean", 4, None, trials=0)],
        "the lr was not tuned, and its values are cells of their own": [cell("sum", 4, None, tuned=False)],
        "in some cells a run diverged at every lr that was tried": [cell("sum", 4, None)],
        "one seed gives no interval that speaks of seeds": [cell("sum", 4, best(0.1), seeds=1)],
        "in some cells the best lr is at an edge of the lrs that were tried": [cell("sum", 4, best(0.1, edge=True))],
        "too few batch sizes were measured": [cell("sum", 4, best(0.1))],
    }
    for reason, cells in reasons.items():
        found = why_missing(cells)
        assert found.reason == reason and found.verdict == "cannot tell" and found.way_out
    assert why_missing([cell("sum", 4, best(0.1, edge=True), trials=40)]).way_out.startswith("widen the interval of optimizer.lr")


def test_why_a_ratio_is_missing() -> None:
    one = [cell(reduction, 1, best(0.1)) for reduction in ("sum", "mean")]
    assert missing_ratio(Family({}, tuple(one), 1.0, (), None, None)).reason == "at batch size 1 sum and mean are the same"
    alone = Family({}, (cell("sum", 4, best(0.1)),), 1.0, (), None, None)
    assert missing_ratio(alone, ("sum", "mean")) == ("cannot tell", "no cell has the reduction mean", "take reduction=sum,mean")


def test_a_claim_on_sum_and_mean_is_told_by_their_ratio_alone() -> None:
    by_mean = tuple(cell("mean", size, best(0.1)) for size in (4, 16))
    other = Ratio("mean, accumulation 2", "mean, accumulation 1", Interval(-1, -1, -1), -1, True, False)
    found = Family({"accumulation": 2}, by_mean, 1.0, (other,), None, None)
    [verdict] = verdicts(make_plan([c.cell for c in by_mean], claims=[{**CLAIM, "tolerance": 0.02}]), [found], ())
    assert (verdict.verdict, verdict.reason) == ("cannot tell", "no cell has the reduction sum")


@pytest.mark.parametrize("slope", [Interval(-0.9, -0.92, -0.88), Interval(-0.986, -0.997, -0.973)])
def test_a_law_with_short_steps_does_not_say_what_theory_does_not(slope: Interval) -> None:
    found = family(slope)
    found = replace(found, ratios=(found.ratios[0]._replace(is_uneven=True),))
    [said] = laws(answer_of(make_record([c.cell for c in found.cells]), (found,), ()))
    assert "theory says c^-1 where all steps are full" in said and "as theory says" not in said


def test_a_claim_that_selects_by_what_does_not_vary_is_not_dropped() -> None:
    found = family(Interval(-1.0, -1.01, -0.99))
    plan = make_plan([c.cell for c in found.cells], claims=[{**CLAIM, "where": {"task": "digits"}}])
    [verdict] = verdicts(plan, [found], ())
    assert verdict.verdict == "cannot tell" and verdict.reason == "it selects by task, which this study does not vary"


def test_a_study_without_claims_is_held_by_its_laws() -> None:
    found = family(None)
    laws_of = strict_verdicts(make_plan([c.cell for c in found.cells]), [found], ())
    assert laws_of == ["cannot tell"]
    for nothing_held in (laws_of, []):
        with pytest.raises(Failure):
            require_held("it", nothing_held)


def test_the_way_out_asks_for_trials_where_lrs_are_far_apart_and_else_for_seeds() -> None:
    assert more_runs([cell("sum", 4, best(0.1, spacing=0.35), trials=12)])(2.0) == "raise hydra.sweeper.n_trials to 24"
    assert more_runs([cell("sum", 4, best(0.1))])(2.0) == "raise seeds to 32"
    assert more_runs([cell("sum", 4, best(0.1))])(math.inf) == "raise seeds to 128"
    halfway = judge(Interval(-1.0, -1.04, -0.96), Bound(-1, 0.02), more=more_runs([cell("sum", 4, best(0.1))]))
    assert halfway.way_out == "raise seeds to 32"  # half as wide, with four times as many


def test_lrs_more_than_an_octave_apart_tell_nothing() -> None:
    cells = tuple(cell(reduction, 4, best(0.1, spacing=1.4), trials=4) for reduction in ("sum", "mean"))
    found = Family({}, cells, 1.0, ratios(Interval(-1.3, -1.4, -1.2)), None, None)
    judgement = ratio_judgement(make_plan(), found, found.ratios[0])
    assert judgement.verdict == "cannot tell" and "more than an octave apart" in judgement.reason
    assert judgement.way_out == "raise hydra.sweeper.n_trials to 16"


def turn(b_c: tuple[float, float, float], residual: float = 0.05, at_bound: bool = False, low: float | None = None) -> TurnOver:
    low = residual if low is None else low
    return TurnOver(Interval(0.5, 0.4, 0.6), Interval(*b_c), Interval(residual, low, residual), at_bound)


@pytest.mark.parametrize(
    ("fit", "verdict", "reason", "says"),
    [
        (turn((16, 12, 20)), "holds", "", "lr_sum* is at half of its small-batch level at B = 16.0 [12.0, 20.0], residual 0.05"),
        (turn((16, 12, 20), residual=0.38), "fails", "does not fit", "lr_sum* does not go as eta_max/(B + B_c): residual 0.38"),
        (turn((16, 12, 20), 0.38, low=0.1), "cannot tell", "whether the form fits", "0.38 [0.1, 0.38] rms"),
        (turn((286, 200, 400)), "cannot tell", "B_c lies above 64", "Up to B = 64 lr_sum* stays above half of its small-batch"),
        (turn((60, 40, 90)), "cannot tell", "the interval of B_c reaches above 64", "cannot tell: the interval of B_c reaches"),
        (turn((3.9, 1, 9)), "cannot tell", "the interval of B_c reaches below 4", "reaches below 4; add batch sizes below 4."),
        (turn((0.3, 0.1, 0.5)), "cannot tell", "B_c lies below 4", "lr_sum* falls as 1/B over all batch sizes tried"),
        (turn((1900, 1900, 1900), at_bound=True), "cannot tell", "far outside", "Up to B = 64 lr_sum* stays above half"),
    ],
)
def test_where_lr_sum_turns_over(fit: TurnOver, verdict: str, reason: str, says: str) -> None:
    found = family(Interval(-1.0, -1.01, -0.99), fit)
    judgement = turn_over_judgement(found)
    assert judgement.verdict == verdict and reason in judgement.reason
    [said] = laws(answer_of(make_record([c.cell for c in found.cells]), (found,), ()))
    assert says in said and "level up to" not in said
    assert (f"B = {fit.b_c.value:.1f} [" in said) == (verdict == "holds")


def test_b_c_of_a_form_that_does_not_fit_cannot_be_told() -> None:
    sizes = np.array([4.0, 16.0, 64.0])
    wild = turn_over(sizes, [best(lr) for lr in (0.1, 0.001, 0.1)])
    assert wild is not None and wild.residual.low > 0.2
    found = family(Interval(-1.0, -1.01, -0.99), wild)
    claims = [{"name": "it", "measure": "b_c", "at_least": 1}, {"name": "fit", "measure": "form_residual", "at_most": 0.2}]
    of_b_c, of_fit = verdicts(make_plan([c.cell for c in found.cells], claims=claims), [found], ())
    assert of_b_c.verdict == "cannot tell" and of_b_c.reason.startswith("the form does not fit")
    assert of_fit.verdict == "fails"


@pytest.mark.parametrize(
    ("lr", "error", "verdict"),
    [(0.1, 0.01, "holds"), (0.1, 0.2, "cannot tell"), (0.13, 0.2, "cannot tell"), (0.2, 0.01, "fails")],
)
def test_theory_is_told_by_the_intervals_of_all_cells(lr: float, error: float, verdict: str) -> None:
    """The theory of each cell is lr 0.1; one of them has another best lr."""
    cells = (cell("sum", 4, best(0.1)), cell("sum", 16, best(lr, error)))
    claim = {"name": "it", "measure": "theory", "expected": 0, "tolerance": 0.2}
    plan = make_plan([c.cell for c in cells], claims=[claim])
    [found] = verdicts(plan, [Family({}, cells, 1.0, (), None, None)], ())
    assert found.verdict == verdict
    at_edge = Family({}, (cells[0], cell("sum", 64, best(0.1, edge=True))), 1.0, (), None, None)
    [found] = verdicts(plan, [at_edge], ())
    assert Judgement(found.verdict, found.reason).verdict == "cannot tell" and "at an edge" in found.reason
