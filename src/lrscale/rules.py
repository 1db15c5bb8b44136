"""Rules: conditions on values with the words that state them, and checks that refuse values against them."""

import math
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lrscale.errors import Refusal


class Rule(NamedTuple):
    """A condition on a value and the words that state it."""

    text: str
    holds: Callable[[Any], bool]


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def integer(low: int, high: int = 10**9) -> Rule:
    return Rule(f"must be a whole number from {low} to {high}", lambda v: is_integer(v) and low <= v <= high)


def one_of(*names: str) -> Rule:
    return Rule(f"must be one of {', '.join(names)}", lambda v: isinstance(v, str) and v in names)


def _is_betas(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(is_number(b) and 0 <= b < 1 for b in value)


POSITIVE = Rule("must be finite and > 0", lambda v: is_number(v) and v > 0)
NOT_NEGATIVE = Rule("must be finite and >= 0", lambda v: is_number(v) and v >= 0)
FRACTION = Rule("must be >= 0 and < 1", lambda v: is_number(v) and 0 <= v < 1)
BOOLEAN = Rule("must be true or false", lambda v: isinstance(v, bool))
TEXT = Rule(
    "must be a text of 1 to 1000 printable characters", lambda v: isinstance(v, str) and 0 < len(v) <= 1000 and v.isprintable()
)
BETAS = Rule("must be two numbers, each >= 0 and < 1", _is_betas)


def check(field: str, rule: Rule, value: object, way_out: str = "") -> None:
    """Raises Refusal, naming the field, unless the rule holds for the value."""
    if not rule.holds(value):
        raise Refusal(f"`{field}` {rule.text}, got {reprlib.repr(value)}. {way_out}")


def check_keys(field: str, given: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Raises Refusal unless `given` has exactly the keys of `known`."""
    for key in given:
        if key not in known:
            raise Refusal(f"`{field}.{key}` is not known, got {reprlib.repr(given[key])}. Known: {', '.join(known)}.")
    for key in known:
        if key not in given:
            raise Refusal(f"`{field}.{key}` is missing. Known: {', '.join(known)}.")
