"""States the answer of a study in sentences, with numbers and intervals. Terminal, HTML page and notes begin with them."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lrscale.estimate.best_lr import pooled_slope
from lrscale.estimate.intervals import Interval
from lrscale.study.answer import Answer
from lrscale.study.claims import Verdict, in_count, quantity_name, ratio_judgement, selected
from lrscale.study.families import Family, Ratio
from lrscale.study.meanings import what_is_measured
from lrscale.study.plan import Plan
from lrscale.study.twins import knobs_left
from lrscale.study.verdict import (
    CANNOT_TELL,
    FAILS,
    HOLDS,
    LAW_TOLERANCE,
    Bound,
    Judgement,
    trade_off_judgement,
    turn_over_judgement,
    why_missing,
    why_unsure,
)

NAMED = 3
"""How many families a sentence names, where there are more."""
STATED = 4
"""How many of a probe's claims are stated with their numbers. Slopes, and claims that do not hold, are stated besides."""


def laws(answer: Answer) -> list[str]:
    """Returns the answer in sentences: the law of each family, or a probe's claims with what was measured."""
    if answer.families:
        return [answer.plan.in_own_words(sentence) for sentence in _family_laws(answer.plan, answer.families)]
    checked = answer.verdicts
    claims = {claim["name"]: claim for claim in answer.plan.claims}
    statements = [
        _statement(answer, claims[v.name], v)
        for i, v in enumerate(checked)
        if i < STATED or v.verdict != HOLDS or v.measure == "slope_of"
    ]
    cells = len({m.cell.id for m in answer.measurements})
    if not checked:
        return ["The study makes no claims; its cells show what was measured."]
    count = f"{in_count([v.verdict for v in checked])}, over {cells} cell{'s' if cells != 1 else ''}"
    return [". ".join([count, *(text[0].upper() + text[1:] for text in statements)]) + "."]


def _statement(answer: Answer, claim: Mapping[str, Any], verdict: Verdict) -> str:
    """Returns a claim in words, with what was measured.

    A claim on `log_deviation` also states the slope of log measured over log expected, where the expected values
    spread over a factor of two or more.
    """
    if verdict.verdict == CANNOT_TELL:
        return f"{verdict.name}: {in_words_of(Judgement(verdict.verdict, verdict.reason, verdict.way_out))}"
    slope = _against_expected(answer, claim) if claim["measure"] == "log_deviation" else ""
    measured = measured_in_words(verdict.measure, verdict.measured, verdict.bound)
    what = what_is_measured(claim, quantity_name(claim))
    return f"{verdict.name}: {measured} ({what}){slope}{f' ({FAILS})' if verdict.verdict == FAILS else ''}"


def in_words_of(judgement: Judgement) -> str:
    """Returns a judgement in words, as in `cannot tell: its interval is wider than the tolerance; raise seeds to 32`."""
    return f"{judgement.verdict}: {'; '.join(filter(None, (judgement.reason, judgement.way_out)))}"


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
    return "" if slope is None or slope.high - slope.low < TO_ROUNDING else f", measured = expected^{in_digits(slope)}"


def _family_laws(plan: Plan, families: Sequence[Family]) -> list[str]:
    """Returns the laws of each family with their numbers. Families whose ratio cannot be told share a sentence."""
    sentences = []
    untold: dict[tuple[str, Judgement], list[str]] = {}
    for family in families:
        parts = []
        for ratio in family.ratios:
            judgement = ratio_judgement(plan, family, ratio)
            if judgement.verdict == CANNOT_TELL:
                untold.setdefault((f"{lr_name(ratio.of)}/{lr_name(ratio.over)}", judgement), []).append(family.name)
            parts.append(_ratio_law(plan, family, ratio, judgement))
        if not family.ratios:
            parts.append(_slope_law(family))
        sentences.append(" ".join(filter(None, (*parts, _turn_over_law(family), _trade_off_law(family)))))
    cannot = [
        f"How {name} goes with c{f' ({in_few(names)})' if names[0] else ''}, this study {in_words_of(judgement)}."
        for (name, judgement), names in untold.items()
    ]
    none_told = cannot and sum(map(len, untold.values())) == sum(len(family.ratios) for family in families)
    return [text for text in ((*cannot, *sentences) if none_told else (*sentences, *cannot)) if text]


def in_few(names: Sequence[str]) -> str:
    """Returns the first few names as a text, and how many more there are.

    Example:
      >>> in_few(["lr 0.1", "lr 0.2", "lr 0.3", "lr 0.4", "lr 0.5"])
      'lr 0.1, lr 0.2, lr 0.3 and 2 more'
    """
    return ", ".join(names) if len(names) <= NAMED + 1 else f"{', '.join(names[:NAMED])} and {len(names) - NAMED} more"


def lr_name(of: str) -> str:
    """Returns the name of a best lr, as in `lr_sum*` or `lr*(mean, accumulation 4)`."""
    return f"lr*({of})" if "," in of else f"lr_{of}*"


def _ratio_law(plan: Plan, family: Family, ratio: Ratio, judgement: Judgement) -> str:
    """Returns the law of a ratio of best lrs, and whether its cells are the same runs; empty where the law cannot be told."""
    if ratio.slope is None or judgement.verdict == CANNOT_TELL:
        return ""
    where = f" ({family.name})" if family.name and "," not in ratio.of else ""
    is_count = (ratio.of, ratio.over) == ("sum", "mean") and family.cells[0].training.accumulation == 1
    c = "c the number of summed terms" if is_count else "c the ratio of their gradient scales"
    ratio_of = f"{lr_name(ratio.of)} = {lr_name(ratio.over)} x c^"
    if ratio.same_runs and ratio.expected is not None:
        return f"{ratio_of}{ratio.expected:g} exactly{where}, {c}: they are the same runs, trained once and recorded twice."
    if ratio.expected is None:
        number = in_digits(ratio.slope)
        return f"{ratio_of}{number}{where}, {c}. Theory expects no number, because the optimizer's p is not known."
    number = in_digits(ratio.slope, Bound(ratio.expected, LAW_TOLERANCE))
    is_inside = ratio.slope.low <= ratio.expected <= ratio.slope.high
    if ratio.is_uneven and not (judgement.verdict == HOLDS and is_inside):
        says = f"theory says c^{ratio.expected:g} where all steps are full, and the last one of an epoch is short here"
        return f"{ratio_of}{number}{where}, {c}: {says}. Take drop_last=true."
    if judgement.verdict == FAILS and (left := knobs_left(plan.cells)):
        return (
            f"{ratio_of}{number}{where}, {c}: theory says c^{ratio.expected:g} with {', '.join(left)} scaled too, not as given."
        )
    fits = "as" if judgement.verdict == HOLDS else "not as"
    return f"{ratio_of}{number}{where}, {c}: {fits} theory says (c^{ratio.expected:g})."


def _slope_law(family: Family) -> str:
    """Returns one sentence on how the best lr of the only reduction of a family goes with B."""
    of = f"{lr_name(family.reductions()[0])}{f' ({family.name})' if family.name else ''}"
    sizes = [cell.step_examples for cell in family.cells]
    slope = family.slope(family.reductions()[0], min(sizes), max(sizes))
    unsure = why_unsure(family.cells) or (None if slope else why_missing(family.cells))
    if slope is None or unsure is not None:
        return f"How {of} goes with B, this study {in_words_of(unsure)}." if unsure else ""
    return f"{of} goes as B^{in_digits(slope)} over B = {min(sizes)} to {max(sizes)}."


def _turn_over_law(family: Family) -> str:
    """Returns one sentence on where lr_sum* falls to half of its level at small B; empty where nothing was fitted."""
    turn, judgement = family.turn_over, turn_over_judgement(family)
    if turn is None or family.homogeneity != 1 or why_unsure(family.cells):
        return ""
    of = f"lr_sum*{f' ({family.name})' if family.name else ''}"
    residual = f"residual {turn.residual.value:.2g} rms in ln lr"
    sizes = [cell.step_examples for cell in family.cells if cell.training.reduction == "sum"]
    if judgement.verdict == FAILS:
        return f"{of} does not go as eta_max/(B + B_c): {residual}."
    if judgement.verdict == HOLDS:
        return f"{of} is at half of its small-batch level at B = {in_digits(turn.b_c)}, {residual}."
    if turn.b_c.low > max(sizes):
        return f"Up to B = {max(sizes)} {of} stays above half of its small-batch level."
    if turn.b_c.high < min(sizes):
        return f"{of} falls as 1/B over all batch sizes tried, {residual}."
    return f"Where {of} is at half of its small-batch level, this study {in_words_of(judgement)}."


def _trade_off_law(family: Family) -> str:
    """Returns one sentence on steps against examples; empty where they were not fitted."""
    t, judgement = family.trade_off, trade_off_judgement(family)
    if t is None:
        return ""
    if judgement.verdict == FAILS:
        return f"Steps to the target do not go as S_min (1 + B_crit/B): residual {t.residual.value:.2g} rms in ln S."
    if judgement.verdict == CANNOT_TELL:
        return f"How steps trade against examples, this study {in_words_of(judgement)}."
    s, b = (f"{i.value:.3g} [{i.low:.3g}, {i.high:.3g}]" for i in (t.s_min, t.b_crit))
    return f"Steps to the target are S = S_min (1 + B_crit/B), S_min = {s}, B_crit = {b}, to {t.residual.value:.2g} rms in ln S."


SAME_RUNS = ("exact", "the same runs")
"""What stands for the number and for its interval where all pairs of cells are the same runs: nothing was measured."""
TO_ROUNDING = 1e-13
"""A difference below this is a rounding error of float64, of a few hundred operations: its digits say nothing."""
MOST_DIGITS = 4
"""The largest number of digits after the decimal point; very narrow intervals reach it, and tolerances may pass it."""


def measured_in_words(measure: str, measured: Interval | None, bound: Bound) -> str:
    """Returns what was measured in words, such as `within 1.4 %` or `-1.001 [-1.008, -0.992]`.

    Most measures give the number with its interval.

    Args:
      measure: the measure of the claim.
      measured: what was measured.
      bound: the bound of the claim.

    Example:
      >>> measured_in_words("slope_of", Interval(0.5, 0.25, 0.75), Bound(at_least=0))
      '0.50 [0.25, 0.75]'
      >>> measured_in_words("log_deviation", Interval(0.01, 0.01, 0.01), Bound(at_most=0.1))
      'within 1 %'
      >>> measured_in_words("log_deviation", Interval(3e-16, 3e-16, 3e-16), Bound(at_most=0.1))
      'to rounding'
      >>> measured_in_words("ratio_slope", Interval(-1, -1, -1), Bound(-1, 0.02))
      'exact, the same runs'
    """
    if measured is None:
        return "nothing measured"
    if of_same_runs(measure, measured):
        return ", ".join(SAME_RUNS)
    in_words = MEASURES_IN_WORDS.get(measure)
    return in_digits(measured, bound) if in_words is None else in_words(measured)


def of_same_runs(measure: str, measured: Interval) -> bool:
    """Returns whether a claim on the ratio of best lrs is about the same runs: then its interval has width zero."""
    return measure == "ratio_slope" and measured.low == measured.high


def in_digits(interval: Interval, bound: Bound | None = None) -> str:
    """Returns a value with its interval in brackets, in the digits of `digits`; a number without an interval has three."""
    if interval.high - interval.low < TO_ROUNDING:
        return f"{interval.value:.3g}"
    count = digits(interval, bound)
    value, low, high = (f"{number:z.{count}f}" for number in interval)
    return f"{value} [{low}, {high}]"


def digits(interval: Interval, bound: Bound | None = None) -> int:
    """Returns how many digits after the decimal point a value and its interval are shown with.

    They show a tenth of the tolerance, or, without one, a tenth of the interval's width. There are more where rounding
    would move an end to the other side of the bound.

    Example:
      >>> digits(Interval(-1, -1.008, -0.992), Bound(-1, 0.02)), digits(Interval(14, 11, 25))
      (3, 0)
      >>> digits(Interval(0, -0.02, 0.1004), Bound(0, 0.1))
      4
    """
    width = (bound.tolerance if bound else None) or (interval.high - interval.low)
    if not (math.isfinite(width) and width > 0):
        return MOST_DIGITS
    count = max(0, 1 - math.floor(math.log10(width)))
    count = count if bound and bound.tolerance else min(MOST_DIGITS, count)
    least, most = bound.ends if bound else (-math.inf, math.inf)
    for more in range(count, count + MOST_DIGITS):
        shown = [(round(end, more), end) for end in interval]
        if all((text < least, text > most) == (end < least, end > most) for text, end in shown):
            return more
    return count


def _within_per_cent(measured: Interval) -> str:
    """Returns the largest |ln| as a difference in per cent, with its interval if it has one."""
    if measured.high < TO_ROUNDING:
        return "to rounding"
    value, low, high = (f"{100 * math.expm1(number):.2g} %" for number in measured)
    return f"within {value}" if measured.low == measured.high else f"within {value} [{low}, {high}]"


def _within(measured: Interval) -> str:
    """Returns the largest difference, with its interval if it has one."""
    if measured.high == 0:
        return "exactly 0"
    if measured.high < TO_ROUNDING:
        return "0 to rounding"
    value, low, high = (f"{number:.2g}" for number in measured)
    return f"within {value}" if measured.low == measured.high else f"within {value} [{low}, {high}]"


MEASURES_IN_WORDS: dict[str, Callable[[Interval], str]] = {
    "theory": _within_per_cent,
    "log_deviation": _within_per_cent,
    "deviation": _within,
    "coverage": lambda measured: f"{100 * measured.value:.0f} % of intervals",
}
