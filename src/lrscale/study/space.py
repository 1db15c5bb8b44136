"""The search space of a sweep without roles: what each parameter can be, as plain values."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
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


_ROUNDING = 1e-6
"""The largest share of a step by which a value may lie beside its place: 0.1 + 0.2 is a value of range(0,1,0.1)."""


def holds(parameter: Parameter, value: Any) -> bool:
    """Returns whether a parameter can have a value.

    Example:
      >>> holds(Choices(("a", 1)), 1), holds(Numbers(0.1, 1), 2.0), holds(Numbers(0.1, 1), 1)
      (True, False, True)
      >>> holds(Numbers(0, 8, step=2, whole=True), 4), holds(Numbers(0, 8, step=2, whole=True), 5)
      (True, False)
    """
    if isinstance(parameter, Choices):
        return any(value == choice and type(value) is type(choice) for choice in parameter.values)
    if not isinstance(value, int | float) or not parameter.low <= value <= parameter.high:
        return False
    steps = (value - parameter.low) / (parameter.step or 1)
    return (parameter.step is None and not parameter.whole) or abs(steps - round(steps)) < _ROUNDING


def space_in_words(space: Space) -> dict[str, str]:
    """Returns what each parameter can be, in words. Equal words say that nothing has changed.

    Example:
      >>> space_in_words({"lr": Numbers(0.1, 1.0, log=True), "y": Choices((0, "a")), "n": Numbers(1, 9, step=2, whole=True)})
      {'lr': '0.1 to 1.0 on a log scale', 'y': 'one of 0, "a"', 'n': '1 to 9 in steps of 2'}
    """
    return {key: _in_words(parameter) for key, parameter in space.items()}


def _in_words(parameter: Parameter) -> str:
    if isinstance(parameter, Choices):
        return f"one of {', '.join(json.dumps(value) for value in parameter.values)}"
    step = 1 if parameter.whole and parameter.step is None else parameter.step
    scale = " on a log scale" if parameter.log else ""
    return f"{parameter.low!r} to {parameter.high!r}{scale}{'' if step is None else f' in steps of {step!r}'}"


def flat_keys(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the values of nested mappings by dotted keys.

    Example:
      >>> flat_keys({"optim": {"lr": 0.1}, "seed": 0})
      {'optim.lr': 0.1, 'seed': 0}
    """
    values: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            values |= flat_keys(value, f"{prefix}{key}.")
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
