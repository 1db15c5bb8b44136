"""A number that a probe measures in a cell, with its interval and what theory says of it."""

import math
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Quantity:
    """One measured number.

    `name`: of letters, digits, `_-. /`. `low`, `high`: its 95 % interval, None where it is exact or has none.
    `expected`: what theory says, None where it says nothing.

    Example:
      >>> Quantity("c", 8.0, expected=8.0)
      Quantity(name='c', value=8.0, low=None, high=None, expected=8.0)
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    expected: float | None = None

    def __post_init__(self) -> None:
        """Raises ValueError where the name cannot be a metric's or a number is not finite: leave such a quantity out."""
        if not re.fullmatch(r"[\w\-. /]{1,100}", self.name):
            raise ValueError(f"a quantity's name must be of letters, digits and `_-. /`, got {self.name!r:.60}")
        for number in (self.value, self.low, self.high, self.expected):
            if number is not None and not math.isfinite(number):
                raise ValueError(f"quantity {self.name} must be finite, got {self}")

    def holds_expected(self) -> bool:
        """Whether the interval, or the value itself where there is none, holds what theory says."""
        if self.expected is None:
            return False
        low, high = (self.value if end is None else end for end in (self.low, self.high))
        return low <= self.expected <= high
