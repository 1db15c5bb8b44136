"""How the number of a claim is put in words, from its verdict as the report's JSON has it."""

import math
from collections.abc import Callable, Mapping
from typing import Any

MOST_DIGITS = 4
"""After the point, where an interval is next to nothing."""


def put(measure: str, verdict: Mapping[str, Any]) -> str:
    """What was measured, as in `within 1.4 %` or `-1.001 [-1.008, -0.992]`; of most measures the number with its interval.

    Example:
      >>> put("slope_of", {"measured": 0.5, "ci": [0.25, 0.75]}), put("log_deviation", {"measured": 0.01, "ci": None})
      ('0.50 [0.25, 0.75]', 'within 1 %')
    """
    if verdict["measured"] is None:
        return "nothing measured"
    return WORDS.get(measure, _interval)(verdict)


def _interval(verdict: Mapping[str, Any]) -> str:
    """A value and its interval, to the digits that the interval's width gives it."""
    value = verdict["measured"]
    low, high = verdict["ci"] or (value, value)
    if low == high:
        return f"{value:.3g}"
    digits = min(MOST_DIGITS, max(0, 1 - math.floor(math.log10(high - low))))
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


WORDS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "theory": lambda verdict: f"within {100 * math.expm1(verdict['measured']):.2g} %",
    "log_deviation": lambda verdict: f"within {100 * math.expm1(verdict['measured']):.2g} %",
    "deviation": lambda verdict: f"within {verdict['measured']:.2g}",
    "coverage": lambda verdict: f"{100 * verdict['measured']:.0f} % of intervals",
}
