"""Schedules of the lr: at each step the lr is multiplied by a factor, which warms up, stays at 1 and decays.

    factor = k / (W + 1)                           in the warm-up, steps k = 1 to W
    factor = 1                                     after it
    factor = final + (1 - final) fall(x)           in the decay, the last D of N steps

x = (k - 1 - (N - D)) / D is the share of the decay before step k: 0 at its first step, and below 1 at its last. So no factor
is 0, and `final` is what the step after the last one would have. A decay without a length of its own begins after the warm-up.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lrscale.errors import Refusal
from lrscale.rules import PROPORTION, Rule, is_integer, is_number
from lrscale.spec import Declaration, Option, Registry, Training

UNITS: dict[str, Rule] = {
    "steps": Rule(
        "must be a whole number from 0 to 100000000, or null", lambda v: v is None or (is_integer(v) and 0 <= v <= 1e8)
    ),
    "epochs": Rule("must be >= 0 and <= 1000000, or null", lambda v: v is None or (is_number(v) and 0 <= v <= 1e6)),
    "fraction": Rule("must be >= 0 and <= 1, or null", lambda v: v is None or (is_number(v) and 0 <= v <= 1)),
}
"""The units of a length, as the ends of its options' names, with the rules of these options."""
WORDS = {"steps": "in steps", "epochs": "in epochs", "fraction": "as a share of the run"}
"""The units of a length, in words."""
WARMUP = {f"warmup_{unit}": Option(None, rule, f"length of the warm-up, {WORDS[unit]}") for unit, rule in UNITS.items()}
"""The options that give the length of the warm-up, one a unit. All null: there is none."""
DECAY = {f"decay_{unit}": Option(None, rule, f"length of the decay, {WORDS[unit]}") for unit, rule in UNITS.items()}
"""The options that give the length of the decay, one a unit."""
FINAL = {"final": Option(0.0, PROPORTION, "factor at the end of the decay")}
"""The option that gives the factor at the end of the decay."""


@dataclass(frozen=True, kw_only=True)
class Schedule(Declaration):
    """The declaration of a schedule. Each has the options WARMUP, and one that decays has FINAL; it can have DECAY too.

    `fall(x)` returns what is left of the way from 1 to `final` after a share x of the decay: 1 at x = 0, falling to 0 at
    x = 1. It is None where the lr does not decay.
    """

    fall: Callable[[float], float] | None


SCHEDULES: Registry[Schedule] = Registry("schedule")
"""The declared schedules, by name."""


def is_constant(values: Any) -> bool:
    """Returns whether the values of a config's `schedule` keep the lr constant: `constant` without a warm-up."""
    if not isinstance(values, Mapping):
        return False
    return values.get("name") == "constant" and not any(value for key, value in values.items() if key != "name")


def schedule_in_words(values: Mapping[str, Any] | None) -> str:
    """Returns the values of a config's `schedule` in words; empty where the lr is constant.

    Example:
      >>> schedule_in_words({"name": "cosine", "warmup_steps": 10, "warmup_epochs": None, "final": 0.0})
      'cosine warmup_steps=10 final=0.0'
    """
    if values is None or is_constant(values):
        return ""
    given = [f"{key}={value}" for key, value in values.items() if key != "name" and value is not None]
    return " ".join([values["name"], *given])


def lr_factor(training: Training) -> Callable[[int], float] | None:
    """Returns the function that gives the factor of a step, in (0, 1], steps counted from 1; None where the lr is constant.

    Args:
      training: the description of the runs.

    Source:
      `tests/training/test_schedules.py`, against torch.optim.lr_scheduler: LinearLR, CosineAnnealingLR and LambdaLR.
    """
    if training.schedule is None:
        return None
    fall, options = SCHEDULES[training.schedule.name].fall, training.schedule.options
    warmup, decay = _lengths(training)
    begin, final = training.steps - decay, options.get("final", 1.0)

    def factor(step: int) -> float:
        if step <= warmup:
            return step / (warmup + 1)
        if fall is None or step <= begin:
            return 1.0
        return float(final + (1 - final) * fall((step - 1 - begin) / decay))

    return factor


def _lengths(training: Training) -> tuple[int, int]:
    """Returns the steps of the warm-up and of the decay."""
    assert training.schedule is not None
    options = training.schedule.options
    warmup = _steps(training, "warmup") or 0
    if SCHEDULES[training.schedule.name].fall is None:
        return warmup, 0
    own = _steps(training, "decay") if DECAY.keys() <= options.keys() else max(0, training.steps - warmup)
    return warmup, own or 0


def _steps(training: Training, length: str) -> int | None:
    """Returns a length in steps; None where it is not given."""
    given = _given(training, length)
    if not given:
        return None
    (unit, value) = given[0]
    return round(value * {"steps": 1, "epochs": training.steps_per_epoch, "fraction": training.steps}[unit])


def _given(training: Training, length: str) -> list[tuple[str, float]]:
    """Returns the units in which a length is given, with its values."""
    assert training.schedule is not None
    values = [(unit, training.schedule.options.get(f"{length}_{unit}")) for unit in UNITS]
    return [(unit, value) for unit, value in values if value is not None]


def check_lengths(training: Training) -> None:
    """Checks the lengths of a training's schedule.

    Raises:
      Refusal: a length is given twice, is missing, does not fit in the run, or depends on an end that is not known.
    """
    assert training.schedule is not None
    name, options = training.schedule.name, training.schedule.options
    declared = SCHEDULES[name]
    for length in ("warmup", "decay"):
        if len(units := [f"schedule.{length}_{unit}" for unit, _ in _given(training, length)]) > 1:
            raise Refusal(f"a schedule's {length} must be given once, got {' and '.join(units)}. Set all but one to null.")
    if training.budget.name == "target" and (declared.fall is not None or options.get("warmup_fraction") is not None):
        what = f"`schedule` {name}" if declared.fall is not None else "`schedule.warmup_fraction`"
        raise Refusal(
            f"{what} needs a run whose length is known, got budget=target. Take schedule=constant, with a warm-up in steps or "
            "epochs, or another budget."
        )
    if DECAY.keys() <= options.keys() and not _given(training, "decay"):
        raise Refusal(f"`schedule` {name} needs the length of its decay, got none. Take schedule.decay_fraction=0.2.")
    warmup, decay = _lengths(training)
    if warmup + decay > training.steps:
        parts = f"{warmup} steps of warm-up" + (f" and {decay} of decay" if decay else "")
        raise Refusal(f"`schedule` {name} must fit in the run's {training.steps} steps, got {parts}. Shorten them.")
    if declared.fall is not None and decay < 1:
        raise Refusal(
            f"`schedule` {name} needs a decay of at least 1 step, got {decay}, with a warm-up of {warmup} of the run's "
            f"{training.steps} steps. Take a longer decay, or a shorter warm-up."
        )


SCHEDULES.declare(
    "constant", Schedule(about="The lr stays; it can warm up first.", options=WARMUP, check=check_lengths, fall=None)
)
SCHEDULES.declare(
    "linear",
    Schedule(
        about="After the warm-up, the lr falls in a line to the end of the run.",
        options={**WARMUP, **FINAL},
        check=check_lengths,
        fall=lambda x: 1 - x,
    ),
)
SCHEDULES.declare(
    "cosine",
    Schedule(
        about="After the warm-up, the lr falls like half a cosine to the end of the run.",
        options={**WARMUP, **FINAL},
        check=check_lengths,
        fall=lambda x: (1 + math.cos(math.pi * x)) / 2,
    ),
)
SCHEDULES.declare(
    "wsd",
    Schedule(
        about="Warm-up, stable, decay: the lr stays until the decay, and then falls in a line to the end of the run.",
        options={**WARMUP, **DECAY, **FINAL},
        check=check_lengths,
        fall=lambda x: 1 - x,
    ),
)
