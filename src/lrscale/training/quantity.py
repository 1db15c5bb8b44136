"""A number that a probe measures in a cell, with its interval and the value that theory expects."""

import math
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Quantity:
    """One measured number.

    `name` consists of letters, digits and `_-. /`. `low` and `high` are the ends of the 95 % interval, and None where the
    value is exact or has no interval. `expected` is the value that theory gives, and None where theory gives none.

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
        """Raises ValueError where the name cannot be the name of a metric, or a number is not finite.

        A probe must leave out a quantity that is not finite.
        """
        if not re.fullmatch(r"[\w\-. /]{1,100}", self.name):
            raise ValueError(f"a quantity's name must consist of letters, digits and `_-. /`, got {self.name!r:.60}")
        for number in (self.value, self.low, self.high, self.expected):
            if number is not None and not math.isfinite(number):
                raise ValueError(f"quantity {self.name} must be finite, got {self}")

    def holds_expected(self) -> bool:
        """Whether the interval contains the expected value; where there is no interval, whether the value equals it."""
        if self.expected is None:
            return False
        low, high = (self.value if end is None else end for end in (self.low, self.high))
        return low <= self.expected <= high
