"""Compares a study's claims with what was measured. Claims state what is expected, and are fixed before the study runs.

A claim has a name, a measure and a bound. The bound is `expected`, or else `at_least`, `at_most` or both. `expected`
has a `tolerance`; without one, the measured interval must contain the expected value. What follows is one of three
verdicts, by the rule of `study/verdict.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lrscale.errors import Failure, Refusal
from lrscale.estimate.intervals import Interval
from lrscale.rules import Rule, check, is_number
from lrscale.study.families import CellAnswer, Family, Measurement, Ratio
from lrscale.study.measures import EXPONENTS, MEASURES, PROBE_MEASURES, SCALES, value_and_ends
from lrscale.study.plan import Plan, has_value
from lrscale.study.verdict import (
    CANNOT_TELL,
    FAILS,
    HOLDS,
    LAW_TOLERANCE,
    NO_THEORY,
    NOTHING,
    TOO_FEW_CELLS,
    Bound,
    Judgement,
    judge,
    missing_ratio,
    more_runs,
    why_unsure,
)
from lrscale.training.quantity import Quantity
from lrscale.training.reduction import REDUCTIONS

BOUNDS = ("expected", "at_least", "at_most")
CLAIM_KEYS = ("name", "measure", *BOUNDS, "tolerance", "reduction", "range", "quantity", "over", "where", "against")
AGAINST = ("slope_of", "form_residual")
"""The measures of a probe that use the key `against`."""
FINITE = Rule("must be a finite number", is_number)


@dataclass(frozen=True)
class Verdict:
    """A claim with its outcome.

    `verdict` is `holds`, `fails` or `cannot tell`; `reason` and `way_out` are empty where it holds. `measured` is None
    where nothing could be measured.
    """

    name: str
    measure: str
    bound: Bound
    measured: Interval | None
    verdict: str
    reason: str
    way_out: str

    @property
    def interval(self) -> Interval | None:
        """The measured value with its interval; None for a measure that has none, and where nothing could be measured."""
        is_exact = self.measured is not None and self.measured.low == self.measured.high
        return None if is_exact and self.measure != "ratio_slope" else self.measured


def in_count(verdicts: Sequence[str]) -> str:
    """Returns how many claims hold, fail and cannot be told.

    Args:
      verdicts: the verdict of each claim.

    Example:
      >>> in_count(["holds", "cannot tell", "holds", "fails"])
      '2 of 4 claims hold, 1 fails, 1 cannot be told'
    """
    failing, untold = verdicts.count(FAILS), verdicts.count(CANNOT_TELL)
    parts = [
        f"{verdicts.count(HOLDS)} of {len(verdicts)} claims hold",
        f"{failing} fail{'s' if failing == 1 else ''}" if failing else "",
        f"{untold} cannot be told" if untold else "",
    ]
    return ", ".join(filter(None, parts))


def require_held(study: str, verdicts: Sequence[str]) -> None:
    """Raises Failure unless every claim holds, for the option `--strict`.

    Args:
      study: the name of the study.
      verdicts: the verdict of each claim; of a study without claims, that of each law.
    """
    if not verdicts:
        raise Failure(f"{study}: it makes no claim, and states no law that could hold.")
    if any(verdict != HOLDS for verdict in verdicts):
        raise Failure(f"{study}: {in_count(verdicts)}.")


def strict_verdicts(plan: Plan, families: Sequence[Family], outcomes: Sequence[Verdict]) -> list[str]:
    """Returns the verdicts that `--strict` requires to hold: those of the claims; of a study without claims, of its laws."""
    if outcomes:
        return [outcome.verdict for outcome in outcomes]
    return [ratio_judgement(plan, family, ratio).verdict for family in families for ratio in family.ratios]


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
    that select by it are not refused, but cannot be told.
    """
    if probed and not isinstance(claim.get("quantity"), str):
        raise Refusal(f"`{field}.quantity` must name a quantity of the probe, got {claim.get('quantity')!r:.60}.")
    if claim.get("over") is not None and not (probed and isinstance(claim["over"], str)):
        raise Refusal(f"`{field}.over` must name a quantity of the probe, got {claim['over']!r:.60}.")
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
    lacking = [{*(c.get("where") or {}), *filter(None, [c.get("against")])} - axes for c in plan.claims]
    claims = [claim for claim, keys in zip(plan.claims, lacking, strict=True) if not keys]
    narrowed = [_verdict(str(c["name"]), c, _narrowed(keys), ()) for c, keys in zip(plan.claims, lacking, strict=True) if keys]
    if not families:
        of_probe = [claim for claim in claims if claim["measure"] in PROBE_MEASURES]
        values = [(claim, PROBE_MEASURES[claim["measure"]](selected(measurements, claim), claim)) for claim in of_probe]
        return [*(_verdict(str(claim["name"]), claim, interval, ()) for claim, interval in values), *narrowed]
    outcomes = []
    for family in families:
        for claim in claims:
            if not selects(claim, family.of):
                continue
            name = f"{claim['name']} ({family.name})" if family.name else str(claim["name"])
            found = MEASURES[claim["measure"]](plan, family, claim)
            unsure = why_unsure(family.cells) if isinstance(found, Interval) else None
            outcomes.append(_verdict(name, claim, unsure or found, family.cells))
    return [*outcomes, *narrowed]


def _narrowed(axes: set[str]) -> Judgement:
    """Returns why a claim that selects by some axes cannot be told: they have one value in this study."""
    names = ", ".join(sorted(axes))
    return Judgement(CANNOT_TELL, f"it selects by {names}, which this study does not vary", f"leave the override of {names} out")


def ratio_judgement(plan: Plan, family: Family, ratio: Ratio) -> Judgement:
    """Returns whether a ratio of best lrs goes with c as theory says: as c^-p. Where p is not known, it is `measured`.

    The tolerance is that of the family's claim on the same exponent, so that law and claim never differ; of several
    claims it is the smallest, and without one it is LAW_TOLERANCE.
    """
    judgement = _ratio_judgement(plan, family, ratio)
    return judgement._replace(way_out=plan.in_own_words(judgement.way_out))


def _ratio_judgement(plan: Plan, family: Family, ratio: Ratio) -> Judgement:
    """Returns the judgement of `ratio_judgement`, with a way out in lrscale's own words."""
    if ratio.slope is None:
        return missing_ratio(family, [name for name in (ratio.of, ratio.over) if name in REDUCTIONS])
    if (unsure := why_unsure(family.cells)) is not None:
        return unsure
    theory = ratio.expected
    if theory is None:
        judgement = judge(ratio.slope, Bound(), _apart("ratio_slope", Bound()), more_runs(family.cells))
        return judgement._replace(verdict=NO_THEORY) if judgement.verdict == HOLDS else judgement
    bounds = [
        claim_bound(claim)
        for claim in plan.claims
        if claim["measure"] == "ratio_slope" and claim.get("expected") == theory and selects(claim, family.of)
    ]
    bound = min(bounds, key=lambda b: b.tolerance or 0, default=Bound(theory, LAW_TOLERANCE))
    return judge(ratio.slope, bound, _apart("ratio_slope", bound), more_runs(family.cells))


def selected(measurements: Sequence[Measurement], claim: Mapping[str, Any]) -> list[Measurement]:
    """Returns the measurements that a claim on a probe is about: those of its quantity, in the cells that it selects.

    With `over` they are the ratios to another quantity of the same cell, where that one's interval is above 0. The ratio's
    interval reaches from the lowest to the highest ratio of two ends.
    """
    chosen = [m for m in measurements if m.quantity.name == claim["quantity"] and selects(claim, m.cell.scientific)]
    if claim.get("over") is None:
        return chosen
    others = {m.cell.id: value_and_ends(m.quantity) for m in measurements if m.quantity.name == claim["over"]}
    ratios = []
    for m in chosen:
        value, low, high = value_and_ends(m.quantity)
        other, down, up = others.get(m.cell.id, (0.0, 0.0, 0.0))
        if down > 0:
            corners = [end / below for end in (low, high) for below in (down, up)]
            name = quantity_name(claim)
            ratios.append(m._replace(quantity=Quantity(name, value / other, min(corners), max(corners))))
    return ratios


def quantity_name(claim: Mapping[str, Any]) -> str:
    """Returns the name of the quantity that a claim on a probe is about, as in `recommended / linear`."""
    return " / ".join(filter(None, (str(claim["quantity"]), claim.get("over"))))[:100]


def selects(claim: Mapping[str, Any], axes: Mapping[str, Any]) -> bool:
    """Returns whether a claim's `where` selects the cells that have these axis values."""
    where = {key: v if isinstance(v, list | tuple) else [v] for key, v in (claim.get("where") or {}).items()}
    return all(str(axes.get(key)) in map(str, values) for key, values in where.items())


def _verdict(name: str, claim: Mapping[str, Any], found: Interval | Judgement | None, cells: Sequence[CellAnswer]) -> Verdict:
    """Returns the outcome of a claim.

    Args:
      name: the name of the claim, with that of its family.
      claim: the claim.
      found: what was measured, or why it was not.
      cells: the cells in which lrs were tuned for it.
    """
    measure, bound = str(claim["measure"]), claim_bound(claim)
    if not isinstance(found, Interval):
        missing = found or (TOO_FEW_CELLS if measure in AGAINST else NOTHING)
        return Verdict(name, measure, bound, None, *missing)
    more = {"more": more_runs(cells)} if cells else {}
    return Verdict(name, measure, bound, found, *judge(found, bound, _apart(measure, bound), **more))


def claim_bound(claim: Mapping[str, Any]) -> Bound:
    """Returns the bound of a claim."""
    return Bound(*(claim.get(key) for key in Bound._fields))


def _apart(measure: str, bound: Bound) -> tuple[float, ...]:
    """Returns values of different laws, of which an interval may hold only one.

    For the ratio of sum to mean these are p = 0 and p = 1. For another expected value without a tolerance they lie
    beside it: exponents 1 away, and batch sizes a factor of 10 away.
    """
    expected = bound.expected
    if measure == "ratio_slope":
        return (0.0, -1.0)
    if expected is None or bound.tolerance is not None or measure not in (*SCALES, *EXPONENTS):
        return ()
    return (expected / 10, expected, expected * 10) if measure in SCALES else (expected - 1, expected, expected + 1)
