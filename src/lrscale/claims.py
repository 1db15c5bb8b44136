"""Claims: what a study expects, decided before the run, held against what was measured."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lrscale.answer import Answer, Family
from lrscale.estimate import Interval
from lrscale.rules import Refusal, Rule, check, is_number

KEYS = ("name", "measure", "expected", "tolerance", "reduction", "range")
NUMBER = Rule("must be a finite number", is_number)


@dataclass(frozen=True)
class Verdict:
    """A claim with its outcome. `measured` and `interval` are None where nothing could be measured: it then fails."""

    name: str
    expected: float
    tolerance: float | None
    measured: float | None
    interval: Interval | None

    @property
    def holds(self) -> bool:
        """Within the tolerance, where there is one; else the expected value lies in the interval."""
        if self.measured is None:
            return False
        if self.tolerance is not None:
            return abs(self.measured - self.expected) <= self.tolerance
        return self.interval is not None and self.interval.holds(self.expected)


def _ratio_slope(answer: Answer, family: Family, claim: Mapping[str, Any]) -> Interval | None:
    return family.ratio


def _slope(answer: Answer, family: Family, claim: Mapping[str, Any]) -> Interval | None:
    low, high = answer.ranges()[claim.get("range", "all")]
    return family.slope(claim["reduction"], low, high)


def _theory(answer: Answer, family: Family, claim: Mapping[str, Any]) -> Interval | None:
    """Largest |ln(lr* / theory)| over the cells in the range."""
    low, high = answer.ranges()[claim.get("range", "all")]
    cells = [cell for cell in family.cells if low <= cell.training.batch_size <= high]
    pairs = [(cell.best.log_lr, cell.theory_lr) for cell in cells if cell.best and cell.fits and cell.theory_lr]
    if not pairs:
        return None
    worst = max(abs(log_lr - math.log(lr)) for log_lr, lr in pairs)
    return Interval(worst, worst, worst)


def _steps_slope(answer: Answer, family: Family, claim: Mapping[str, Any]) -> Interval | None:
    return family.steps_slope(*answer.ranges()[claim.get("range", "all")])


def _b_crit(answer: Answer, family: Family, claim: Mapping[str, Any]) -> Interval | None:
    return family.trade_off.b_crit if family.trade_off and not family.trade_off.at_bound else None


def _trade_off_residual(answer: Answer, family: Family, claim: Mapping[str, Any]) -> Interval | None:
    return Interval(*(family.trade_off.residual,) * 3) if family.trade_off else None


MEASURES: dict[str, Callable[[Answer, Family, Mapping[str, Any]], Interval | None]] = {
    "ratio_slope": _ratio_slope,
    "slope": _slope,
    "theory": _theory,
    "steps_slope": _steps_slope,
    "b_crit": _b_crit,
    "trade_off_residual": _trade_off_residual,
}


def check_claims(claims: Sequence[Mapping[str, Any]], ranges: Mapping[str, Any]) -> None:
    """Raises Refusal where a claim or a range is not well formed."""
    for name, ends in ranges.items():
        if not (isinstance(ends, list | tuple) and len(ends) == 2 and all(is_number(e) for e in ends) and ends[0] < ends[1]):
            raise Refusal(f"`study.ranges.{name}` must be two numbers, low < high, got {ends!r:.60}.")
    for i, claim in enumerate(claims):
        field = f"study.claims[{i}]"
        if not isinstance(claim, Mapping) or not isinstance(claim.get("name"), str):
            raise Refusal(f"`{field}` must have a name, got {claim!r:.60}.")
        for key in claim:
            if key not in KEYS:
                raise Refusal(f"`{field}.{key}` is not known. Known: {', '.join(KEYS)}.")
        if claim.get("measure") not in MEASURES:
            raise Refusal(f"`{field}.measure` must be one of {', '.join(MEASURES)}, got {claim.get('measure')!r:.60}.")
        check(f"{field}.expected", NUMBER, claim.get("expected"))
        if claim.get("tolerance") is not None:
            check(f"{field}.tolerance", NUMBER, claim["tolerance"])
        if claim["measure"] == "slope" and claim.get("reduction") not in ("mean", "sum", "sum_over_nominal"):
            raise Refusal(f"`{field}.reduction` must be mean, sum or sum_over_nominal, got {claim.get('reduction')!r:.60}.")
        if claim.get("range", "all") not in (*ranges, "all"):
            raise Refusal(f"`{field}.range` must be one of {', '.join([*ranges, 'all'])}, got {claim['range']!r:.60}.")


def verdicts(answer: Answer) -> list[Verdict]:
    """Holds a study's claims against its answer, family by family."""
    out = []
    for family in answer.families:
        shared = ", ".join(str(value) for value in family.of.values())
        for claim in answer.study.claims:
            found = MEASURES[claim["measure"]](answer, family, claim)
            name = f"{claim['name']} ({shared})" if shared else str(claim["name"])
            measured = None if found is None else found.value
            out.append(Verdict(name, float(claim["expected"]), claim.get("tolerance"), measured, found))
    return out
