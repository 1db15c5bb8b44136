"""The search space of a sweep without roles: what each parameter can be, as plain values."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Choices:
    """A parameter that is one of several values: texts, numbers, booleans or None."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Numbers:
    """A parameter that is a number from `low` to `high`, both included; a whole one where `whole`. `step` may be None."""

    low: float
    high: float
    log: bool = False
    step: float | None = None
    whole: bool = False


Parameter = Choices | Numbers
Space = Mapping[str, Parameter]
"""The parameters by the app's own keys."""


def holds(parameter: Parameter, value: Any) -> bool:
    """Returns whether a parameter can have a value.

    Example:
      >>> holds(Choices(("a", 1)), 1), holds(Numbers(0.1, 1), 2.0), holds(Numbers(0.1, 1), 1)
      (True, False, True)
    """
    if isinstance(parameter, Choices):
        return any(value == choice and type(value) is type(choice) for choice in parameter.values)
    return isinstance(value, int | float) and parameter.low <= value <= parameter.high


def plain(space: Space) -> dict[str, Any]:
    """Returns a space as plain values, as JSON keeps them."""
    return {
        key: {"choices": list(parameter.values)} if isinstance(parameter, Choices) else asdict(parameter)
        for key, parameter in space.items()
    }


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the values of nested mappings by dotted keys.

    Example:
      >>> flat({"optim": {"lr": 0.1}, "seed": 0})
      {'optim.lr': 0.1, 'seed': 0}
    """
    values: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            values |= flat(value, f"{prefix}{key}.")
        else:
            values[f"{prefix}{key}"] = value
    return values


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Returns in words which values differ.

    Example:
      >>> differences({"epochs": 1, "seed": 0}, {"epochs": 2, "width": 8})
      ['epochs was 1 and is 2', 'seed was 0 and is gone', 'width is new: 8']
    """
    words = []
    for key in sorted({*before, *now}):
        if key not in now:
            words.append(f"{key} was {before[key]!r:.40} and is gone")
        elif key not in before:
            words.append(f"{key} is new: {now[key]!r:.40}")
        elif before[key] != now[key]:
            words.append(f"{key} was {before[key]!r:.40} and is {now[key]!r:.40}")
    return words
