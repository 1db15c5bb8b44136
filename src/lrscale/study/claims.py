"""Compares a study's claims with what was measured. Claims state what is expected, and are fixed before the study runs.

A claim has a name, a measure and a bound. The bound is `expected`, or else `at_least`, `at_most` or both. `expected`
has a `tolerance`; without one, the measured interval must contain the expected value.

Measures of a study that tunes the lr. Each is computed for every family of cells that `where` selects:

    ratio_slope    slope of log(lr_sum*/lr_mean*) over log c
    slope          slope of log lr* over log B under a `reduction`, in a `range` of batch sizes
    theory         largest |ln(lr*/theory)| in a `range`
    steps_slope    slope of log steps at the best lr over log B, in a `range`
    b_crit         B_crit of the trade-off of steps S against examples
    b_c            B_c of the fit lr_sum* = eta_max/(B + B_c)
    form_residual  root-mean-square residual of the fit of b_c, in ln lr
    trade_off_residual   root-mean-square residual of the fit of b_crit, in ln S

Measures of a study that runs a probe. Each is computed for one `quantity`, over all cells that `where` selects:

    deviation      largest |value - expected|
    log_deviation  largest |ln(value/expected)|
    least          smallest value
    largest        largest value
    coverage       share of cells whose interval contains the expected value
    slope_of       slope of log value over log `against`, a numeric axis; each combination of the other axes has an
                   intercept of its own
    form_residual  largest root-mean-square residual of ln value against v_max/(1 + B_c/B), where B is the axis `against`
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lrscale.errors import Refusal
from lrscale.estimate.best_lr import pooled_slope
from lrscale.estimate.fits import form_residual
from lrscale.estimate.intervals import Interval
from lrscale.rules import Rule, check, is_number
from lrscale.study.families import Family, Measurement, batch_ranges
from lrscale.study.plan import Plan, has_value
from lrscale.training.reduction import REDUCTIONS

BOUNDS = ("expected", "at_least", "at_most")
CLAIM_KEYS = ("name", "measure", *BOUNDS, "tolerance", "reduction", "range", "quantity", "where", "against")
AGAINST = ("slope_of", "form_residual")
"""The measures of a probe that use the key `against`."""
FINITE = Rule("must be a finite number", is_number)


@dataclass(frozen=True)
class Verdict:
    """A claim with its outcome.

    `measured` and `interval` are None where nothing could be measured; the claim then fails.
    """

    name: str
    expected: float | None
    tolerance: float | None
    at_least: float | None
    at_most: float | None
    measured: float | None
    interval: Interval | None

    @property
    def holds(self) -> bool:
        """Whether the claim holds. An expected value without a tolerance must lie in the interval."""
        if self.measured is None:
            return False
        if self.expected is None:
            low, high = self.at_least, self.at_most
            return bool((low is None or self.measured >= low) and (high is None or self.measured <= high))
        if self.tolerance is not None:
            return bool(abs(self.measured - self.expected) <= self.tolerance)
        return self.interval is not None and self.interval.holds(self.expected)

    @property
    def bound(self) -> str:
        """The bound in words, as in `-1 ± 0.02`."""
        if self.expected is not None:
            return f"{self.expected:g}" + (f" ± {self.tolerance:g}" if self.tolerance is not None else "")
        limits = ((">=", self.at_least), ("<=", self.at_most))
        return " and ".join(f"{sign} {limit:g}" for sign, limit in limits if limit is not None)


def _ratio_slope(plan: Plan, family: Family, claim: Mapping[str, Any]) -> Interval | None:
    return family.ratio


def _slope(plan: Plan, family: Family, claim: Mapping[str, Any]) -> Interval | None:
    low, high = batch_ranges(plan)[claim.get("range", "all")]
    return family.slope(claim["reduction"], low, high)


def _theory(plan: Plan, family: Family, claim: Mapping[str, Any]) -> Interval | None:
    low, high = batch_ranges(plan)[claim.get("range", "all")]
    cells = [cell for cell in family.cells if low <= cell.step_examples <= high]
    pairs = [(cell.best.log_lr, cell.theory_lr) for cell in cells if cell.best and cell.fits and cell.theory_lr]
    return _point_interval([abs(log_lr - math.log(lr)) for log_lr, lr in pairs], max)


def _steps_slope(plan: Plan, family: Family, claim: Mapping[str, Any]) -> Interval | None:
    return family.steps_slope(*batch_ranges(plan)[claim.get("range", "all")])


def _b_crit(plan: Plan, family: Family, claim: Mapping[str, Any]) -> Interval | None:
    return family.trade_off.b_crit if family.trade_off and not family.trade_off.at_bound else None


def _trade_off_residual(plan: Plan, family: Family, claim: Mapping[str, Any]) -> Interval | None:
    return _point_interval([family.trade_off.residual] if family.trade_off else [], max)


def _b_c(plan: Plan, family: Family, claim: Mapping[str, Any]) -> Interval | None:
    return family.turn_over.b_c if family.turn_over and not family.turn_over.at_bound else None


def _turn_over_residual(plan: Plan, family: Family, claim: Mapping[str, Any]) -> Interval | None:
    return _point_interval([family.turn_over.residual] if family.turn_over else [], max)


def _point_interval(values: Sequence[float], choose: Callable[[Sequence[float]], float]) -> Interval | None:
    """Returns the value that `choose` takes from the values, as an interval of width zero; None where there is no value."""
    return Interval(*(choose(values),) * 3) if values else None


def _deviation(measurements: Sequence[Measurement], claim: Mapping[str, Any]) -> Interval | None:
    return _point_interval([abs(q.value - q.expected) for _, q in measurements if q.expected is not None], max)


def _log_deviation(measurements: Sequence[Measurement], claim: Mapping[str, Any]) -> Interval | None:
    pairs = [(q.value, q.expected) for _, q in measurements if q.expected is not None]
    return _point_interval(
        [abs(math.log(value / expected)) if value * expected > 0 else math.inf for value, expected in pairs], max
    )


def _least(measurements: Sequence[Measurement], claim: Mapping[str, Any]) -> Interval | None:
    return _point_interval([q.value for _, q in measurements], min)


def _largest(measurements: Sequence[Measurement], claim: Mapping[str, Any]) -> Interval | None:
    return _point_interval([q.value for _, q in measurements], max)


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
    residuals = [form_residual(*np.array(pairs).T) for pairs in groups.values()]
    return _point_interval([residual for residual in residuals if residual is not None], max)


OfFamily = Callable[[Plan, Family, Mapping[str, Any]], Interval | None]
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


def check_claims(plan: Plan) -> None:
    """Raises Refusal unless every claim and every range of a plan is well formed. The plan may come from a record."""
    for name, ends in plan.ranges.items():
        if not (isinstance(ends, list | tuple) and len(ends) == 2 and all(is_number(e) for e in ends) and ends[0] < ends[1]):
            raise Refusal(f"`study.ranges.{name}` must be two numbers, low < high, got {ends!r:.60}.")
    probed = plan.is_probed
    measures = PROBE_MEASURES if probed else MEASURES
    for i, claim in enumerate(plan.claims):
        field = f"study.claims[{i}]"
        if not isinstance(claim, Mapping) or not isinstance(claim.get("name"), str):
            raise Refusal(f"`{field}` must have a name, got {claim!r:.60}.")
        for key in claim:
            if key not in CLAIM_KEYS:
                raise Refusal(f"`{field}.{key}` is not known. Known: {', '.join(CLAIM_KEYS)}.")
        if claim.get("measure") not in measures:
            raise Refusal(f"`{field}.measure` must be one of {', '.join(measures)}, got {claim.get('measure')!r:.60}.")
        _check_bound(field, claim)
        _check_selection(field, claim, plan, probed)
        if claim["measure"] == "slope" and claim.get("reduction") not in REDUCTIONS:
            raise Refusal(f"`{field}.reduction` must be one of {', '.join(REDUCTIONS)}, got {claim.get('reduction')!r:.60}.")
        if claim.get("range", "all") not in (*plan.ranges, "all"):
            raise Refusal(f"`{field}.range` must be one of {', '.join([*plan.ranges, 'all'])}, got {claim['range']!r:.60}.")


def _check_bound(field: str, claim: Mapping[str, Any]) -> None:
    bounds = [key for key in BOUNDS if claim.get(key) is not None]
    if not bounds or ("expected" in bounds and len(bounds) > 1):
        raise Refusal(
            f"`{field}` must have a bound: expected alone, or at_least, at_most or both, got {', '.join(bounds) or 'none'}."
        )
    for key in (*bounds, *(["tolerance"] if claim.get("tolerance") is not None else [])):
        check(f"{field}.{key}", FINITE, claim[key])


def _check_selection(field: str, claim: Mapping[str, Any], plan: Plan, probed: bool) -> None:
    """Raises Refusal unless a claim selects something that the study has.

    A claim on a probe names a quantity, and may select by every axis of the study. A claim on the lr may select only
    by axes that the cells of a family share. An overridden axis with a single value is no axis of the study; claims
    that select by it are not refused, but `verdicts` leaves them out.
    """
    if probed and not isinstance(claim.get("quantity"), str):
        raise Refusal(f"`{field}.quantity` must name a quantity of the probe, got {claim.get('quantity')!r:.60}.")
    axes = [axis for axis in plan.cells[0].scientific if probed or axis not in ("reduction", "batch_size")]
    where = claim.get("where") or {}
    if not isinstance(where, Mapping):
        raise Refusal(f"`{field}.where` must give values of axes, as in {{batch_size: [1, 2]}}, got {where!r:.60}.")
    config = plan.cells[0].config
    for key in (*where, *([claim.get("against")] if probed and claim["measure"] in AGAINST else [])):
        narrowed = key not in plan.cells[0].scientific and (key in config or has_value(config, str(key)))
        if key not in axes and not narrowed:
            raise Refusal(f"`{field}` must select by axes of the study ({', '.join(axes) or 'none'}), got {key!r:.60}.")


def verdicts(plan: Plan, families: Sequence[Family], measurements: Sequence[Measurement]) -> list[Verdict]:
    """Returns the outcome of a plan's claims. Claims on the lr have one verdict for each family that they select.

    Args:
      plan: the plan, whose claims are checked.
      families: the families of cells; empty for a probe.
      measurements: what the probe measured; empty where the lr was tuned.
    """
    shared = [family.of for family in families] or [m.cell.scientific for m in measurements]
    axes = {key for values in shared for key in values}
    claims = [c for c in plan.claims if {*(c.get("where") or {}), *filter(None, [c.get("against")])} <= axes]
    if not families:
        of_probe = [claim for claim in claims if claim["measure"] in PROBE_MEASURES]
        return [_verdict(str(c["name"]), c, PROBE_MEASURES[c["measure"]](selected(measurements, c), c)) for c in of_probe]
    outcomes = []
    for family in families:
        for claim in claims:
            if not _selects(claim, family.of):
                continue
            name = f"{claim['name']} ({family.name})" if family.name else str(claim["name"])
            outcomes.append(_verdict(name, claim, MEASURES[claim["measure"]](plan, family, claim)))
    return outcomes


def selected(measurements: Sequence[Measurement], claim: Mapping[str, Any]) -> list[Measurement]:
    """Returns the measurements that a claim on a probe is about: those of its quantity, in the cells that it selects."""
    return [m for m in measurements if m.quantity.name == claim["quantity"] and _selects(claim, m.cell.scientific)]


def _selects(claim: Mapping[str, Any], axes: Mapping[str, Any]) -> bool:
    """Returns whether a claim's `where` selects the cells that have these axis values."""
    where = {key: v if isinstance(v, list | tuple) else [v] for key, v in (claim.get("where") or {}).items()}
    return all(str(axes.get(key)) in map(str, values) for key, values in where.items())


def _verdict(name: str, claim: Mapping[str, Any], measured: Interval | None) -> Verdict:
    expected, tolerance, least, most = (claim.get(key) for key in ("expected", "tolerance", "at_least", "at_most"))
    return Verdict(name, expected, tolerance, least, most, None if measured is None else measured.value, measured)
