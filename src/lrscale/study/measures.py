"""The measures of claims: each takes one number with its interval from the results of a study, or says why there is none.

Measures of a study that tunes the lr. Each is computed for every family of cells that `where` selects:

    ratio_slope    slope of log(lr_sum*/lr_mean*) over log c
    slope          slope of log lr* over log B under a `reduction`, in a `range` of batch sizes
    theory         largest |ln(lr*/theory)| in a `range`; its interval reaches from the largest distance of a cell's interval
                   from theory to the largest distance of an interval's farther end
    steps_slope    slope of log steps at the best lr over log B, in a `range`
    b_crit         B_crit of the trade-off of steps S against examples
    b_c            B_c of the fit lr_sum* = eta_max/(B + B_c)
    form_residual  root-mean-square residual of the fit of b_c, in ln lr
    trade_off_residual   root-mean-square residual of the fit of b_crit, in ln S

The interval of a residual begins at the least one of a curve against the intervals of the points.

Measures of a study that runs a probe. Each is computed for one `quantity`, over all cells that `where` selects. It has an
interval where the quantities have; that of a deviation is made like that of `theory`:

    deviation      largest |value - expected|
    log_deviation  largest |ln(value/expected)|
    least          smallest value
    largest        largest value
    coverage       share of cells whose interval contains the expected value
    slope_of       slope of log value over log `against`, a numeric axis; each combination of the other axes has an
                   intercept of its own
    form_residual  largest root-mean-square residual of ln value against v_max/(1 + B_c/B), where B is the axis `against`

With the key `over`, they are computed from the ratio of the quantity to another one of the same cell.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lrscale.estimate.best_lr import pooled_slope
from lrscale.estimate.fits import form_fit
from lrscale.estimate.intervals import Interval
from lrscale.study.families import CellAnswer, Family, Measurement, batch_ranges
from lrscale.study.plan import Plan
from lrscale.study.verdict import (
    CANNOT_TELL,
    NOTHING,
    Judgement,
    missing_ratio,
    missing_steps,
    trade_off_obstacle,
    turn_over_obstacle,
    why_missing,
)
from lrscale.training.quantity import Quantity


def _ratio_slope(plan: Plan, family: Family, claim: Mapping[str, Any]) -> Interval | Judgement:
    return family.ratio or missing_ratio(family, ("sum", "mean"))


def _slope(plan: Plan, family: Family, claim: Mapping[str, Any]) -> Interval | Judgement:
    low, high = batch_ranges(plan)[claim.get("range", "all")]
    of_reduction = [c for c in _within(family, low, high) if c.training.reduction == claim["reduction"]]
    return family.slope(claim["reduction"], low, high) or why_missing(of_reduction)


def _theory(plan: Plan, family: Family, claim: Mapping[str, Any]) -> Interval | Judgement:
    within = _within(family, *batch_ranges(plan)[claim.get("range", "all")])
    cells = [cell for cell in within if cell.theory_lr]
    intervals = [(cell.best.interval, cell.theory_lr) for cell in cells if cell.best]
    logs = [[math.log(lr / theory) for lr in interval] for interval, theory in intervals if interval and theory]
    if not cells:
        note = next((cell.theory_note for cell in within if cell.theory_note), "")
        advice = "" if "Take " in note else "take SGD on least squares"
        return Judgement(CANNOT_TELL, f"theory makes no statement: {note}".rstrip(".: "), advice)
    if len(logs) < len(cells):  # of a cell without an interval, the distance from theory is not known
        return why_missing(cells)
    return _farthest(logs) or why_missing(cells)


def _farthest(distances: Sequence[Sequence[float]]) -> Interval | None:
    """Returns the largest distance from 0 of several estimates, each a value with the ends of its interval.

    The interval reaches from the largest distance of an interval to the largest distance of an interval's farther end.
    It is None where there is no estimate.
    """
    if not distances:
        return None
    nearest = [max(low, -high, 0.0) for _, low, high in distances]
    farthest = [max(-low, high) for _, low, high in distances]
    return Interval(max(abs(value) for value, _, _ in distances), max(nearest), max(farthest))


def _within(family: Family, low: float, high: float) -> list[CellAnswer]:
    """Returns the cells of a family with batch sizes from low to high."""
    return [cell for cell in family.cells if low <= cell.step_examples <= high]


def _steps_slope(plan: Plan, family: Family, claim: Mapping[str, Any]) -> Interval | Judgement:
    low, high = batch_ranges(plan)[claim.get("range", "all")]
    return family.steps_slope(low, high) or missing_steps(_within(family, low, high))


def _b_crit(plan: Plan, family: Family, claim: Mapping[str, Any]) -> Interval | Judgement:
    return _half_value(family.trade_off and family.trade_off.b_crit, trade_off_obstacle(family))


def _trade_off_residual(plan: Plan, family: Family, claim: Mapping[str, Any]) -> Interval | Judgement:
    return family.trade_off.residual if family.trade_off else missing_steps(family.cells)


def _b_c(plan: Plan, family: Family, claim: Mapping[str, Any]) -> Interval | Judgement:
    return _half_value(family.turn_over and family.turn_over.b_c, turn_over_obstacle(family))


def _half_value(half: Interval | None, obstacle: Judgement | None) -> Interval | Judgement:
    """Returns the half-value point of a form, or why the fit says nothing of it."""
    if obstacle is None and half is not None:
        return half
    return (obstacle or NOTHING)._replace(verdict=CANNOT_TELL)


def _turn_over_residual(plan: Plan, family: Family, claim: Mapping[str, Any]) -> Interval | Judgement:
    of_sum = [cell for cell in family.cells if cell.training.reduction == "sum"]
    return family.turn_over.residual if family.turn_over else why_missing(of_sum)


def _point_interval(values: Sequence[float], choose: Callable[[Sequence[float]], float]) -> Interval | None:
    """Returns the value that `choose` takes from the values, as an interval of width zero; None where there is no value."""
    return Interval(*(choose(values),) * 3) if values else None


def _deviation(measurements: Sequence[Measurement], claim: Mapping[str, Any]) -> Interval | None:
    return _farthest([[value - expected for value in value_and_ends(q)] for q, expected in _with_expected(measurements)])


def _log_deviation(measurements: Sequence[Measurement], claim: Mapping[str, Any]) -> Interval | None:
    pairs = _with_expected(measurements)
    return _farthest([[_log_ratio(value, expected) for value in value_and_ends(q)] for q, expected in pairs])


def _least(measurements: Sequence[Measurement], claim: Mapping[str, Any]) -> Interval | None:
    ends = [value_and_ends(q) for _, q in measurements]
    return Interval(*map(min, zip(*ends, strict=True))) if ends else None


def _largest(measurements: Sequence[Measurement], claim: Mapping[str, Any]) -> Interval | None:
    ends = [value_and_ends(q) for _, q in measurements]
    return Interval(*map(max, zip(*ends, strict=True))) if ends else None


def value_and_ends(quantity: Quantity) -> list[float]:
    """Returns the value of a quantity and the ends of its interval, which are the value where it has none."""
    return [quantity.value if end is None else end for end in (quantity.value, quantity.low, quantity.high)]


def _with_expected(measurements: Sequence[Measurement]) -> list[tuple[Quantity, float]]:
    """Returns the quantities that have an expected value, with this value."""
    return [(q, q.expected) for _, q in measurements if q.expected is not None]


def _log_ratio(value: float, expected: float) -> float:
    """Returns the log of value / expected; minus or plus infinity where it has none."""
    if value * expected > 0:
        return math.log(value / expected)
    return -math.inf if value * expected <= 0 else math.inf


def _coverage(measurements: Sequence[Measurement], claim: Mapping[str, Any]) -> Interval | None:
    hits = [float(q.holds_expected()) for _, q in measurements if q.expected is not None]
    return _point_interval(hits, lambda values: math.fsum(values) / len(values))


def _slope_of(measurements: Sequence[Measurement], claim: Mapping[str, Any]) -> Interval | None:
    against = claim["against"]  # values that have no logarithm are left out
    positive = [m for m in measurements if m.quantity.value > 0 and float(m.cell.scientific[against]) > 0]
    rows = [(m.cell.scientific, m.quantity.value) for m in positive]
    others = [repr(sorted((k, v) for k, v in axes.items() if k != against)) for axes, _ in rows]
    x = np.log([float(axes[against]) for axes, _ in rows])
    return pooled_slope(x, np.log([value for _, value in rows]), others)


def _form_residual(measurements: Sequence[Measurement], claim: Mapping[str, Any]) -> Interval | None:
    groups: dict[str, list[tuple[float, float]]] = {}
    for m in measurements:
        others = repr(sorted((k, v) for k, v in m.cell.scientific.items() if k != claim["against"]))
        groups.setdefault(others, []).append((float(m.cell.scientific[claim["against"]]), m.quantity.value))
    fits = [form_fit(*np.array(pairs).T) for pairs in groups.values()]
    return _point_interval([fit.residual for fit in fits if fit is not None], max)


OfFamily = Callable[[Plan, Family, Mapping[str, Any]], Interval | Judgement]
OfCells = Callable[[Sequence[Measurement], Mapping[str, Any]], Interval | None]
MEASURES: dict[str, OfFamily] = {
    "ratio_slope": _ratio_slope,
    "slope": _slope,
    "theory": _theory,
    "steps_slope": _steps_slope,
    "b_crit": _b_crit,
    "b_c": _b_c,
    "form_residual": _turn_over_residual,
    "trade_off_residual": _trade_off_residual,
}
PROBE_MEASURES: dict[str, OfCells] = {
    "deviation": _deviation,
    "log_deviation": _log_deviation,
    "least": _least,
    "largest": _largest,
    "coverage": _coverage,
    "slope_of": _slope_of,
    "form_residual": _form_residual,
}
SCALES = ("b_c", "b_crit")
"""The measures that are a batch size."""
EXPONENTS = ("slope", "steps_slope", "slope_of")
"""The measures that are an exponent, besides that of the ratio of sum to mean."""
