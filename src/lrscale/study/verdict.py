"""The three verdicts. One rule says whether what was measured holds a claim or a law, fails it, or cannot tell.

An interval that lies wholly in the allowed range holds, one that lies wholly outside fails, and any other cannot tell. A
number without an interval counts as an interval of width zero. A verdict of `cannot tell` names its reason and a way out:
what to change in the study, so that it can be told.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from lrscale.estimate.fits import TradeOff, TurnOver
from lrscale.estimate.intervals import Interval
from lrscale.study.families import CellAnswer, Family

HOLDS, FAILS, CANNOT_TELL = "holds", "fails", "cannot tell"
NO_THEORY = "measured"
"""What is said of a law for which theory expects no number: its interval is narrow enough to tell laws apart."""
MOST_RESIDUAL = 0.2
"""The largest root-mean-square residual, in ln, with which a fitted form still counts as fitting."""
LAW_TOLERANCE = 0.05
"""The tolerance of an exponent in a law for which no claim states one."""
COARSE = 0.1
"""A distance between the lrs tried around the best, in ln lr, above which more trials narrow an interval."""
MOST_FACTOR = 4.0
"""A way out asks for an interval at most this many times narrower, which takes the square of it in seeds."""
EQUAL_WITHIN = 1e-9
"""Relative difference from the expected value that rounding may cause in an interval of width zero."""


class Judgement(NamedTuple):
    """A verdict, with the reason and the way out where it is not `holds`."""

    verdict: str
    reason: str = ""
    way_out: str = ""


NOTHING = Judgement(CANNOT_TELL, "nothing was measured", "run the study to its end")
ONE_SEED = Judgement(CANNOT_TELL, "one seed gives no interval that speaks of seeds", "take seeds=8")
NOT_TUNED = Judgement(
    CANNOT_TELL,
    "the lr was not tuned, and its values are cells of their own",
    "take 'optimizer.lr=tag(log,interval(1e-4,1))'",
)
NO_STEPS = Judgement(CANNOT_TELL, "no steps to a target were counted", "take objective=steps_to_target and budget=target")
TOO_FEW = Judgement(CANNOT_TELL, "too few batch sizes were measured", "add batch sizes")
TOO_FEW_CELLS = Judgement(CANNOT_TELL, "too few cells were measured", "add values to the axes of the study")


class Bound(NamedTuple):
    """What is allowed: `expected`, with or without a `tolerance`, or else `at_least`, `at_most` or both."""

    expected: float | None = None
    tolerance: float | None = None
    at_least: float | None = None
    at_most: float | None = None

    @property
    def ends(self) -> tuple[float, float]:
        """The ends of the allowed range. An expected value without a tolerance is a range of width zero."""
        if self.expected is not None:
            return self.expected - (self.tolerance or 0), self.expected + (self.tolerance or 0)
        low, high = self.at_least, self.at_most
        return -math.inf if low is None else low, math.inf if high is None else high

    @property
    def words(self) -> str:
        """The bound in words, as in `-1 ± 0.02`."""
        if self.expected is not None:
            return f"{self.expected:g}" + (f" ± {self.tolerance:g}" if self.tolerance is not None else "")
        limits = ((">=", self.at_least), ("<=", self.at_most))
        return " and ".join(f"{sign} {limit:g}" for sign, limit in limits if limit is not None)


def _say_more(factor: float) -> str:
    """Returns the way out for what a probe measures."""
    return "raise seeds"


def judge(interval: Interval, bound: Bound, apart: Sequence[float] = (), more: Callable[[float], str] = _say_more) -> Judgement:
    """Returns the verdict on an interval: the one rule that all tables, sentences and exit statuses follow.

    An expected value without a tolerance must lie in the interval.

    Args:
      interval: what was measured, with its 95 % interval.
      bound: what is allowed.
      apart: values of different laws; an interval that holds two of them supports neither.
      more: returns the way out for an interval that must become narrower by a factor.

    Example:
      >>> judge(Interval(-1.0, -1.01, -0.99), Bound(-1, 0.02)).verdict
      'holds'
      >>> judge(Interval(-1.0, -1.01, -0.98), Bound(-1, 0.005)).reason
      'its interval is wider than the tolerance of 0.005'
      >>> judge(Interval(0.0, -8.0, 8.0), Bound(-1), apart=(0, -1)).reason
      'its interval holds both -1 and 0'
    """
    if any(math.isnan(end) for end in interval):
        return NOTHING
    both = sorted(number for number in set(apart) if interval.holds(number))
    if len(both) > 1:
        way_out = more(max(1.0, interval.high - interval.low))
        return Judgement(CANNOT_TELL, f"its interval holds both {both[0]:g} and {both[1]:g}", way_out)
    low, high = bound.ends
    if bound.expected is not None and bound.tolerance is None:
        is_held = interval.holds(bound.expected) or math.isclose(interval.value, bound.expected, rel_tol=EQUAL_WITHIN)
        return Judgement(HOLDS) if is_held else Judgement(FAILS, f"its interval does not hold {bound.expected:g}")
    if low <= interval.low and interval.high <= high:
        return Judgement(HOLDS)
    if interval.high < low or interval.low > high:
        return Judgement(FAILS, f"it lies outside {bound.words}")
    reason = f"its interval reaches across the bound of {bound.words}"
    if bound.tolerance is not None and interval.high - interval.low > high - low:
        reason = f"its interval is wider than the tolerance of {bound.tolerance:g}"
    return Judgement(CANNOT_TELL, reason, more(_factor(interval, low, high)))


def _factor(interval: Interval, low: float, high: float) -> float:
    """Returns by how much an interval must become narrower so that it lies on one side of each bound."""
    sides = [(interval.low, low), (interval.low, high), (interval.high, low), (interval.high, high)]
    crossed = [(end, bound) for end, bound in sides if math.isfinite(bound) and (end - bound) * (interval.value - bound) <= 0]
    factors = [abs(end - interval.value) / abs(bound - interval.value) if bound != interval.value else math.inf
               for end, bound in crossed if end != interval.value]  # fmt: skip
    return max(factors, default=1.0)


def more_runs(cells: Sequence[CellAnswer]) -> Callable[[float], str]:
    """Returns what gives the cells narrower intervals: more trials where their lrs are far apart, or else more seeds."""

    def way_out(factor: float) -> str:
        if any(cell.best is not None and cell.best.spacing > COARSE for cell in cells):
            return f"raise hydra.sweeper.n_trials to {max(16, 2 * max(len(cell.trials) for cell in cells))}"
        seeds = max((len(trial.objectives) for cell in cells for trial in cell.trials), default=8)
        return f"raise seeds to {math.ceil(seeds * min(max(factor, 1.2), MOST_FACTOR) ** 2)}"

    return way_out


def has_one_seed(cells: Sequence[CellAnswer]) -> bool:
    """Returns whether the trials of some of the cells ran one seed alone."""
    return any(len(trial.objectives) == 1 for cell in cells for trial in cell.trials)


def why_unsure(cells: Sequence[CellAnswer]) -> Judgement | None:
    """Returns why the intervals of these cells cannot be relied on: one seed, or lrs too far apart; None where they can."""
    if has_one_seed(cells):
        return ONE_SEED
    if any(cell.best is not None and cell.fits and cell.best.is_unsure for cell in cells):
        way_out = f"raise hydra.sweeper.n_trials to {max(16, 2 * max(len(cell.trials) for cell in cells))}"
        return Judgement(CANNOT_TELL, "the lrs that were tried around the best lie more than an octave apart", way_out)
    return None


def why_missing(cells: Sequence[CellAnswer]) -> Judgement:
    """Returns why an estimate from these cells is missing, and the way out.

    Args:
      cells: the cells that the estimate is made from.
    """
    if not cells:
        return Judgement(CANNOT_TELL, "the study has no cells for it", "add reductions or batch sizes")
    if not any(cell.trials for cell in cells):
        return NOTHING
    if not any(cell.tuned for cell in cells):
        return NOT_TUNED
    if not all(cell.trials for cell in cells):
        return NOTHING._replace(reason="some cells have no trials")
    if any(cell.best is None for cell in cells):
        reason = "in some cells a run diverged at every lr that was tried"
        return Judgement(CANNOT_TELL, reason, "take smaller lrs in optimizer.lr")
    if has_one_seed(cells):
        return ONE_SEED
    if not all(cell.fits for cell in cells):
        more = "widen the interval of optimizer.lr, or take hydra.sweeper.widen=true"
        return Judgement(CANNOT_TELL, "in some cells the best lr is at an edge of the lrs that were tried", more)
    return why_unsure(cells) or TOO_FEW


def missing_steps(cells: Sequence[CellAnswer]) -> Judgement:
    """Returns why an estimate from the steps to a target in these cells is missing, and the way out."""
    counted = not cells or any(cell.training.objective == "steps_to_target" for cell in cells)
    return why_missing(cells) if counted else NO_STEPS


def missing_ratio(family: Family, reductions: Sequence[str] = ()) -> Judgement:
    """Returns why a family has no ratio of best lrs, and the way out.

    Args:
      family: the family.
      reductions: those that the ratio is of.
    """
    absent = [reduction for reduction in reductions if reduction not in family.reductions()]
    if absent and any(cell.tuned for cell in family.cells):
        return Judgement(CANNOT_TELL, f"no cell has the reduction {absent[0]}", "take reduction=sum,mean")
    if family.cells and max(cell.step_examples for cell in family.cells) == 1:
        return Judgement(CANNOT_TELL, "at batch size 1 sum and mean are the same", "add batch sizes above 1")
    return why_missing(family.cells)


def turn_over_obstacle(family: Family) -> Judgement | None:
    """Returns why the fit of lr_sum* = eta_max/(B + B_c) says nothing of B_c; None where it does."""
    return _obstacle(family.turn_over, [c for c in family.cells if c.training.reduction == "sum"], "B_c", "ln lr")


def trade_off_obstacle(family: Family) -> Judgement | None:
    """Returns why the fit of S = S_min (1 + B_crit/B) says nothing of B_crit; None where it does."""
    if family.trade_off is None:
        return missing_steps(family.cells)
    return _obstacle(family.trade_off, family.cells, "B_crit", "ln S")


def _obstacle(fit: TurnOver | TradeOff | None, cells: Sequence[CellAnswer], name: str, unit: str) -> Judgement | None:
    """Returns why a fitted form says nothing of its half-value point; None where it does.

    Args:
      fit: the fit; None where there is none.
      cells: the cells that were fitted.
      name: what the half-value point is called.
      unit: the unit of the residual.
    """
    if fit is None:
        return why_missing(cells)
    if (unsure := why_unsure(cells)) is not None:
        return unsure
    fits = judge(fit.residual, Bound(at_most=MOST_RESIDUAL), more=more_runs(cells)).verdict
    if fits != HOLDS:
        of = f"{fit.residual.value:.2g} [{fit.residual.low:.2g}, {fit.residual.high:.2g}] rms in {unit}"
        reason = "the form does not fit" if fits == FAILS else "whether the form fits is not known"
        return Judgement(fits, f"{reason}: its residual is {of}", "raise seeds, or take a narrower range of batch sizes")
    if fit.at_bound:
        return Judgement(CANNOT_TELL, f"{name} lies far outside the batch sizes", "add smaller and larger batch sizes")
    return None


def turn_over_judgement(family: Family) -> Judgement:
    """Returns whether lr_sum* = eta_max/(B + B_c) fits, with B_c among the batch sizes that were tried."""
    half = family.turn_over and family.turn_over.b_c
    sizes = [cell.step_examples for cell in family.cells if cell.training.reduction == "sum"]
    return turn_over_obstacle(family) or _among(half, sizes, "B_c")


def trade_off_judgement(family: Family) -> Judgement:
    """Returns whether S = S_min (1 + B_crit/B) fits, with B_crit among the batch sizes that were tried."""
    half = family.trade_off and family.trade_off.b_crit
    return trade_off_obstacle(family) or _among(half, [cell.step_examples for cell in family.cells], "B_crit")


def _among(half: Interval | None, sizes: Sequence[int], name: str) -> Judgement:
    """Returns whether a half-value point lies among the batch sizes: elsewhere it is not measured, but extrapolated."""
    assert half is not None
    low, high = min(sizes, default=0), max(sizes, default=math.inf)
    if low <= half.low and half.high <= high:
        return Judgement(HOLDS)
    where = f"above {high}" if half.high > high else f"below {low}"
    is_outside = half.low > high or half.high < low
    reason = f"{name} lies {where}, outside the batch sizes" if is_outside else f"the interval of {name} reaches {where}"
    return Judgement(
        CANNOT_TELL, reason, "none, as no batch size is smaller" if where == "below 1" else f"add batch sizes {where}"
    )
