"""States the answer of a study in sentences, with numbers and intervals. Terminal, HTML page and notes begin with them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from lrscale.estimate.best_lr import pooled_slope
from lrscale.study.answer import Answer
from lrscale.study.claims import Verdict, selected
from lrscale.study.families import Family

NAMED = 3
"""How many families a sentence names, where there are more."""
NOT_TUNED = "the lr was not tuned, and its values are cells of their own. Take 'optimizer.lr=tag(log,interval(1e-4,1))'."
STATED = 4
"""How many of a probe's claims are stated with their numbers. Slopes and failing claims are stated besides these."""


def laws(answer: Answer) -> list[str]:
    """Returns the answer in sentences: the law of each family, or a probe's claims with what was measured."""
    if answer.families:
        return _family_laws(answer.families)
    checked = answer.verdicts
    claims = {claim["name"]: claim for claim in answer.plan.claims}
    statements = [
        _statement(answer, claims[v.name], v)
        for i, v in enumerate(checked)
        if i < STATED or not v.holds or claims[v.name]["measure"] == "slope_of"
    ]
    cells = len({m.cell.id for m in answer.measurements})
    if not checked:
        return ["The study makes no claims; its cells show what was measured."]
    count = f"{sum(v.holds for v in checked)} of {len(checked)} claims hold, over {cells} cell{'s' if cells != 1 else ''}"
    return [". ".join([*(text[0].upper() + text[1:] for text in statements), count]) + "."]


def _statement(answer: Answer, claim: Mapping[str, Any], verdict: Verdict) -> str:
    """Returns a claim in words, with what was measured.

    A claim on `log_deviation` also states the slope of log measured over log expected, where the expected values
    spread over a factor of two or more.
    """
    outcome = asdict(verdict) | {"ci": verdict.interval and (verdict.interval.low, verdict.interval.high)}
    slope = _against_expected(answer, claim) if claim["measure"] == "log_deviation" else ""
    of = f"{claim['quantity']} " if claim["measure"] == "deviation" else ""
    return f"{verdict.name}: {of}{measured_in_words(claim['measure'], outcome)}{slope}{'' if verdict.holds else ' (FAILS)'}"


def _against_expected(answer: Answer, claim: Mapping[str, Any]) -> str:
    """Returns the measured values as a power of the expected ones, in words; empty where the expected ones spread too little."""
    pairs = [
        (q.expected, q.value)
        for _, q in selected(answer.measurements, claim)
        if q.expected is not None and q.expected > 0 < q.value
    ]
    if len(pairs) < 3 or max(e for e, _ in pairs) < 2 * min(e for e, _ in pairs):
        return ""
    expected, measured = np.log(np.array(pairs)).T
    slope = pooled_slope(expected, measured, [""] * len(pairs))
    return (
        ""
        if slope is None
        else f", measured = expected^{measured_in_words('', {'measured': slope.value, 'ci': (slope.low, slope.high)})}"
    )


def _family_laws(families: Sequence[Family]) -> list[str]:
    """Returns the law of each family, with its slope and interval. Families without a ratio share one sentence."""
    laws_of_families = [" ".join(filter(None, (_ratio_law(family), _trade_off_law(family)))) for family in families]
    without_ratio = [family.name for family in families if family.ratio is None]
    tuned = any(cell.tuned for family in families for cell in family.cells)
    if without_ratio:
        laws_of_families.append(
            f"No ratio of sum to mean can be stated{f' ({in_few(without_ratio)})' if without_ratio[0] else ''}: "
            + ("it takes both reductions at one batch size above 1, their best lrs not at an edge." if tuned else NOT_TUNED)
        )
    return [text for text in laws_of_families if text]


def in_few(names: Sequence[str]) -> str:
    """Returns the first few names as a text, and how many more there are.

    Example:
      >>> in_few(["lr 0.1", "lr 0.2", "lr 0.3", "lr 0.4", "lr 0.5"])
      'lr 0.1, lr 0.2, lr 0.3 and 2 more'
    """
    return ", ".join(names) if len(names) <= NAMED + 1 else f"{', '.join(names[:NAMED])} and {len(names) - NAMED} more"


def _trade_off_law(family: Family) -> str:
    """Returns one sentence on steps against examples; empty where they were not fitted."""
    t = family.trade_off
    if t is None:
        return ""
    if t.at_bound:
        return "No trade-off of steps against examples shows over the batch sizes tried."
    s, b = (f"{i.value:.3g} [{i.low:.3g}, {i.high:.3g}]" for i in (t.s_min, t.b_crit))
    return f"Steps to the target are S = S_min (1 + B_crit/B), S_min = {s}, B_crit = {b}, to {t.residual:.2g} rms in ln S."


def _ratio_law(family: Family) -> str:
    """Returns one sentence on the ratio of sum to mean, and on where lr_sum* turns over; empty where there is no ratio."""
    where = f" ({family.name})" if family.name else ""
    r = family.ratio
    if r is None:
        return ""
    fits = "as" if r.holds(-family.homogeneity) else "not as"
    text = (
        f"lr_sum* = lr_mean* x c^{r.value:z.3f} [{r.low:z.3f}, {r.high:z.3f}]{where}, c the number of summed terms: "
        f"{fits} theory says (c^{-family.homogeneity:g})"
    )
    return f"{text}{_regime(family) if family.homogeneity == 1 else ''}."


def _regime(family: Family) -> str:
    """Returns how lr_sum* depends on B, as the end of a sentence."""
    turn = family.turn_over
    if turn is None:
        return ""
    if family.turns():
        where = f"{turn.b_c.value:.0f} [{turn.b_c.low:.0f}, {turn.b_c.high:.0f}]"
        return f"; lr_sum* is level up to B = {where} and falls as 1/B beyond"
    largest = max(cell.step_examples for cell in family.cells)
    if turn.b_c.value > largest:
        return f"; up to B = {largest} lr_sum* has not turned over to 1/B"
    return "; lr_sum* falls as 1/B over all batch sizes tried"


MOST_DIGITS = 4
"""The largest number of digits after the decimal point; very narrow intervals reach it."""


def measured_in_words(measure: str, verdict: Mapping[str, Any]) -> str:
    """Returns what was measured in words, such as `within 1.4 %` or `-1.001 [-1.008, -0.992]`.

    Most measures give the number with its interval.

    Args:
      measure: the measure of the claim.
      verdict: the fields of the verdict; of these, `measured` and its interval `ci` are read.

    Example:
      >>> measured_in_words("slope_of", {"measured": 0.5, "ci": [0.25, 0.75]})
      '0.50 [0.25, 0.75]'
      >>> measured_in_words("log_deviation", {"measured": 0.01, "ci": None})
      'within 1 %'
    """
    if verdict["measured"] is None:
        return "nothing measured"
    return MEASURES_IN_WORDS.get(measure, _interval)(verdict)


def _interval(verdict: Mapping[str, Any]) -> str:
    """Returns a value and its interval, with as many digits as the width of the interval justifies."""
    value = verdict["measured"]
    low, high = verdict["ci"] or (value, value)
    if low == high:
        return f"{value:.3g}"
    digits = min(MOST_DIGITS, max(0, 1 - math.floor(math.log10(high - low))))
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


MEASURES_IN_WORDS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "theory": lambda verdict: f"within {100 * math.expm1(verdict['measured']):.2g} %",
    "log_deviation": lambda verdict: f"within {100 * math.expm1(verdict['measured']):.2g} %",
    "deviation": lambda verdict: f"within {verdict['measured']:.2g}",
    "coverage": lambda verdict: f"{100 * verdict['measured']:.0f} % of intervals",
}
