"""Optimizers that a config names by their code, as in `optimizer=mine.py:Lion`. Reading such a config runs no code.

A config holds the values of the parameters of the class, and what is known about it: `OPTIMIZER_FACTS`. Most of them are null
in a composed config, until the optimizer is measured on the parameters of the task; see `own_response` and `own_updates`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lrscale.errors import Refusal
from lrscale.rules import BOOLEAN, NOT_NEGATIVE, POSITIVE, Rule, check, is_number, one_of
from lrscale.spec import Choice, Option, OwnCode, Training, is_own
from lrscale.tasks.source import PLAIN, TYPES, load, read_source
from lrscale.training.optimizers import OPTIMIZERS, Optimizer

if TYPE_CHECKING:
    import torch

LARGEST_P = 16
"""The largest size of p. A record with a larger one is refused: powers of it would overflow."""
POWER_TOLERANCE = 1e-3
"""How far updates may be from a power of the gradients' size that counts as one, relative to their norm."""
OPTIMIZER_FACTS: dict[str, Rule] = {
    "sha256": Rule("must be the sha256 of the optimizer's file", lambda v: isinstance(v, str) and len(v) == 64),
    "tunable": Rule("must be a list of names", lambda v: isinstance(v, list | tuple) and all(isinstance(k, str) for k in v)),
    "p": Rule(f"must be a number of size at most {LARGEST_P}", lambda v: is_number(v) and abs(v) <= LARGEST_P),
    "p_error": NOT_NEGATIVE,
    "is_exact": BOOLEAN,
    "way": one_of("stacked", "apart"),
}
"""What a config says about an optimizer of the user's own: the hash of its file, the names of its tunable options, the measured
homogeneity p, how far its updates are from this power, whether they are exactly it, and how the runs are updated."""
MEASURED_FACTS = ("p", "p_error", "is_exact", "way")
"""The facts that are measured. They follow from the rest of a config, so a cell's id does not depend on them."""


def optimizer_config(name: str) -> dict[str, Any]:
    """Returns the config values that `optimizer=NAME` sets, from the signature of the class. Runs no code.

    An option can be tuned if its default is 0 or a float above 0.

    Raises:
      Refusal: the file or the class cannot be used.
    """
    source = read_source("optimizer", name)
    if source.required != ("params",) or "lr" not in source.defaults:
        names = ", ".join([*source.required, *(f"{key}={value}" for key, value in source.defaults.items())])
        raise Refusal(
            f"`optimizer` {name:.200} must be a torch.optim.Optimizer class whose own __init__ takes params, lr and others "
            f"with a default, got ({names:.200}). Write them out, as in __init__(self, params, lr: float = 0.001)."
        )
    if reserved := [key for key in source.defaults if key in ("name", *OPTIMIZER_FACTS)]:
        raise Refusal(f"`optimizer` {name:.200} must have parameters of other names, got {', '.join(reserved)}. Rename them.")
    tunable = ["lr", *(key for key, value in source.defaults.items() if key != "lr" and _is_tunable(value))]
    facts = {**dict.fromkeys(OPTIMIZER_FACTS), "sha256": source.sha256, "tunable": tunable}
    return {"optimizer": {"name": name, **source.defaults, **facts}}


def _is_tunable(default: object) -> bool:
    return is_number(default) and (default == 0 or (isinstance(default, float) and default > 0))


def optimizer_facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what is known about the optimizer of a config before it is measured, by dotted key. Runs the user's file.

    Raises:
      Refusal: a parameter has a wrong type, or the code must not be run or is no optimizer.
    """
    values = config["optimizer"]
    fresh = optimizer_config(values["name"])["optimizer"]
    source = read_source("optimizer", values["name"])
    for key, rule in source.rules.items():
        is_number_too = rule is TYPES["int"] and source.defaults[key] == 0  # as in momentum=0
        value = values.get(key)
        single = value[0] if key in fresh["tunable"] and isinstance(value, list | tuple) and value else value
        check(f"optimizer.{key}", TYPES["float"] if is_number_too else rule, single)
    _ = load_class(values["name"], source.sha256)
    unmeasured = {"p": 0, "p_error": 0.0, "is_exact": False, "way": "apart"}
    known = {"sha256": source.sha256, "tunable": fresh["tunable"], **unmeasured}
    return {f"optimizer.{key}": value for key, value in known.items()}


def load_class(name: str, sha256: str) -> Callable[..., torch.optim.Optimizer]:
    """Runs the user's file, and returns the optimizer's class.

    Raises:
      Refusal: the code must not be run, fails, or is no optimizer.
    """
    import torch

    found = load("optimizer", name, sha256)
    if not isinstance(found, type) or not issubclass(found, torch.optim.Optimizer):
        raise Refusal(f"`optimizer` {name:.200} must be a class made from torch.optim.Optimizer, got {found!r:.100}.")
    return found


def class_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of the class's parameters, from the values under `optimizer`. Lists become tuples."""
    plain = {key: value for key, value in options.items() if key != "name" and key not in OPTIMIZER_FACTS}
    return {key: tuple(value) if isinstance(value, list) else value for key, value in plain.items()}


def check_optimizer(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the checked values under `optimizer` of an optimizer of the user's own, without its name."""
    options = {key: value for key, value in values.items() if key != "name"}
    for key in (*OPTIMIZER_FACTS, "lr"):
        if key not in options:
            raise Refusal(f"`optimizer.{key}` is missing. A config of the user's own optimizer must have it.")
    known = {key: option.rule for key, option in own_options(values).items()}
    for key, value in options.items():
        check(f"optimizer.{key}", OPTIMIZER_FACTS.get(key, known.get(key, PLAIN)), value)
    return options


def own_options(values: Mapping[str, Any]) -> dict[str, Option]:
    """Returns the options of a user's optimizer, from the values under `optimizer`, which may be unchecked."""
    names = values.get("tunable")
    tunable = names if isinstance(names, list | tuple) else ()
    rules = {key: NOT_NEGATIVE if key in tunable else PLAIN for key in class_options(values)} | {"lr": POSITIVE}
    return {key: Option(values.get(key), rule) for key, rule in rules.items()}


def optimizer_of(choice: Choice) -> Optimizer:
    """Returns the declaration of a chosen optimizer; that of a user's own has the options and the p of the choice."""
    declaration = OPTIMIZERS[choice.name]
    if not is_own(choice.name):
        return declaration
    p, is_exact = choice.options["p"], choice.options["is_exact"]
    return replace(declaration, options=own_options(choice.options), homogeneity=p, is_exact=is_exact)


def _check(training: Training) -> None:
    if training.probe is not None:
        raise Refusal(
            f"`probe` {training.probe.name} needs an optimizer that comes with lrscale, got {training.optimizer.name:.200}."
        )


def _update(*_: Any) -> None:
    """Stands where the rules of lrscale's optimizers stand, and is never called."""
    raise AssertionError("the class of the user takes its steps itself: see OwnUpdates")


OPTIMIZERS.declare_own(
    OwnCode(
        Optimizer(
            about="an optimizer of the user's own",
            update=_update,
            slots=lambda hyper: ("a moment", "another", "what a step needs"),  # how many there are is not known
            homogeneity=0.0,
            check=_check,
        ),
        optimizer_config,
        check_optimizer,
        optimizer_facts,
    )
)
