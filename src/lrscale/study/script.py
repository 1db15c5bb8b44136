"""A training script of a stranger: what its cells tell lrscale, and what its function may return.

lrscale does not know a script's data, model or steps. It knows the words of `SCRIPT_KEYS`, which the roles of the script's
own keys give. The config of such a cell has these words and, under `script`, the script's own config.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lrscale.errors import Refusal
from lrscale.law.homogeneity import RESPONSES
from lrscale.rules import POSITIVE, Rule, check, check_keys, integer, one_of
from lrscale.spec import SCRIPT, Choice, Training
from lrscale.training.named_optimizer import optimizer_of
from lrscale.training.reduction import REDUCTIONS

SCRIPT_KEYS = ("script", "roles", "task", "optimizer", "reduction", "batch_size", "accumulation", "objective", "seeds")
"""The top-level keys of the config of a script's cell."""
SCRIPT_OBJECTIVE = "objective"
"""The objective of every script: what its function returns."""
UNNAMED = "unknown"
"""The name of an optimizer that the script does not tell."""
WHAT_TO_RETURN = (
    "Return a float, or a dict with `objective` (a float) and optionally `curves` (lists of numbers by name), as in "
    '{"objective": loss, "curves": {"train_loss": losses}}.'
)
_NAME = Rule(
    "must be a text of 1 to 200 printable characters", lambda v: isinstance(v, str) and 0 < len(v) <= 200 and v.isprintable()
)
_KEY = Rule(
    "must be a key of letters, digits and . _ @ / + -",
    lambda v: isinstance(v, str) and bool(re.fullmatch(r"[\w.@/+-]{1,200}", v)),
)
_MAPPING = Rule("must be a mapping", lambda v: isinstance(v, Mapping))


class WrongReturn(Refusal):
    """The function of a script returned something that is no objective. No other job can do better, so the sweep ends."""


class Returned(NamedTuple):
    """What one job of a script returned: its objective, which may be nan or inf, and its curves by name."""

    objective: float
    curves: Mapping[str, tuple[float, ...]]

    def as_json(self) -> str:
        """Returns the values as JSON; nan and inf are written as NaN and Infinity."""
        return json.dumps({"objective": self.objective, "curves": {name: list(line) for name, line in self.curves.items()}})

    @classmethod
    def from_json(cls, text: str) -> "Returned":
        """Returns the values that `as_json` has written."""
        return returned(json.loads(text))


def returned(value: object) -> Returned:
    """Returns the objective and the curves that a script's function returned.

    Args:
      value: a number, or a scalar of numpy or torch; or a mapping with `objective` and optionally `curves`.

    Raises:
      WrongReturn: the value is something else; the text says what to return.

    Example:
      >>> returned({"objective": 0.5, "curves": {"train_loss": [2, 1]}})
      Returned(objective=0.5, curves={'train_loss': (2.0, 1.0)})
      >>> returned(float("nan")).objective
      nan
    """
    if not isinstance(value, Mapping):
        return Returned(_number("what the training function returns", value), {})
    if "objective" not in value or not set(value) <= {"objective", "curves"}:
        raise WrongReturn(f"the training function returned a dict with the keys {', '.join(map(str, value))}. {WHAT_TO_RETURN}")
    curves = value.get("curves") or {}
    if not isinstance(curves, Mapping):
        raise WrongReturn(f"the training function returned `curves` {curves!r:.60}. {WHAT_TO_RETURN}")
    lines = {str(name): _line(str(name), line) for name, line in curves.items()}
    return Returned(_number("`objective`", value["objective"]), lines)


def _line(name: str, values: object) -> tuple[float, ...]:
    if isinstance(values, str | bytes | Mapping) or not hasattr(values, "__iter__"):
        raise WrongReturn(f"the training function returned the curve {name!r:.60} as {values!r:.60}. {WHAT_TO_RETURN}")
    return tuple(_number(f"the curve {name!r:.60}", value) for value in values)


def _number(what: str, value: object) -> float:
    """Returns a number or a scalar as a float; raises WrongReturn for anything else. A text or a boolean is no number."""
    if not isinstance(value, bool | str | bytes) and hasattr(value, "__float__"):
        try:
            return float(value)
        except (TypeError, ValueError, RuntimeError):  # a tensor with several elements
            pass
    raise WrongReturn(f"{what} must be a float, got {value!r:.80} of type {type(value).__name__}. {WHAT_TO_RETURN}")


def script_training(config: Mapping[str, Any], seeds: Sequence[int]) -> Training:
    """Returns the training of a script's cell, as far as lrscale knows it.

    Args:
      config: plain values under the keys `SCRIPT_KEYS`.
      seeds: the checked seeds.

    Raises:
      Refusal: a value breaks its rule, or a key is unknown or missing.
    """
    check_keys("config", config, dict.fromkeys(SCRIPT_KEYS))
    for key in ("script", "roles", "task", "optimizer"):
        check(key, _MAPPING, config[key])
    check_keys("task", config["task"], {"name": None})
    check_keys("optimizer", config["optimizer"], {"name": None, "lr": None})
    check("roles.lr", _KEY, config["roles"].get("lr"))
    for role, key in config["roles"].items():
        check(f"roles.{role}", _KEY, key)
    check("task.name", _NAME, config["task"]["name"])
    check("optimizer.name", _NAME, config["optimizer"]["name"])
    check("reduction", one_of(*REDUCTIONS), config["reduction"])
    check("batch_size", integer(1, 1_000_000_000), config["batch_size"])
    check("accumulation", integer(1, 1_000_000), config["accumulation"])
    check("objective", one_of(SCRIPT_OBJECTIVE), config["objective"])
    lr = config["optimizer"]["lr"]
    lrs = tuple(lr) if isinstance(lr, list | tuple) else (lr,)
    for value in lrs:
        check("optimizer.lr", POSITIVE, value)
    return Training(
        task=Choice(config["task"]["name"], {}),
        optimizer=Choice(config["optimizer"]["name"], {"lr": tuple(map(float, lrs))}),
        budget=Choice(SCRIPT, {}),
        probe=None,
        seeds=tuple(seeds),
        reduction=config["reduction"],
        batch_size=config["batch_size"],
        accumulation=config["accumulation"],
        drop_last=False,
        objective=config["objective"],
        dtype="",
        points=2,
        examples=0,
    )


def homogeneity(training: Training) -> float | None:
    """Returns the homogeneity p of a training's optimizer; None where a script does not tell, or lrscale does not know it."""
    name = training.optimizer.name
    if not training.is_script:
        return optimizer_of(training.optimizer).homogeneity
    return RESPONSES[name].p if name in RESPONSES else None


def own_words(config: Mapping[str, Any], text: str) -> str:
    """Returns a text with a script's own keys and settings in place of lrscale's; the text itself for another study.

    Args:
      config: the config of a cell.
      text: a sentence that may say what to change.

    Example:
      >>> own_words({"roles": {"lr": "optim.lr", "seed": "seed"}}, "take seeds=8, or widen the interval of optimizer.lr")
      'take seed=range(8), or widen the interval of optim.lr'
    """
    roles = config.get("roles")
    if roles is None:
        return text
    seed = roles.get("seed", "roles.seed")
    for pattern, own in (
        (r"hydra\.sweeper\.widen=true", "hydra/sweeper/sampler=ladder hydra.sweeper.sampler.widen=true"),
        (r"optimizer\.lr\b", roles["lr"]),
        (r"(?<![./\w])sampler=(\w)", r"hydra/sweeper/sampler=\1"),
        (r"\b([Tt]ake) seeds=(\d+)", rf"\1 {seed}=range(\2)"),
        (r"\btake batch_size=", f"take {roles.get('batch_size', 'roles.batch_size')}="),
        (r"\bor seeds=\[([\d,]+)\]", rf"or {seed}=\1"),
        (r"\braise seeds to (\d+)", rf"take {seed}=range(\1)"),
        (r"\bor seeds\b", f"or the number of values of {seed}"),
        (r"\btake reduction=sum,mean", f"take {roles.get('reduction', 'roles.reduction')} of sum and of mean"),
    ):
        text = re.sub(pattern, own, text)
    return text


def optimizer_name(value: object) -> str:
    """Returns the name of an optimizer as `RESPONSES` has it.

    Example:
      >>> optimizer_name("torch.optim.SGD"), optimizer_name("AdamW"), optimizer_name(None)
      ('sgd', 'adamw', 'unknown')
    """
    return str(value).rpartition(".")[2].lower() if isinstance(value, str) and value else UNNAMED


def mean_curves(lines: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, tuple[float, ...]]:
    """Returns the mean of each curve over seeds, up to the first point that is not finite or that a seed does not have.

    Example:
      >>> mean_curves([{"loss": [4, 2, 1]}, {"loss": [2, 2, float("inf")]}])
      {'loss': (3.0, 2.0)}
    """
    means = {}
    for name in dict.fromkeys(name for line in lines for name in line):
        points = zip(*(line.get(name, ()) for line in lines), strict=False)
        finite = []
        for values in points:
            if not all(map(math.isfinite, values)):
                break
            finite.append(math.fsum(values) / len(values))
        means[name] = tuple(finite)
    return means


def returned_loss(value: object) -> Returned:
    """Returns what a script's function returned, like `returned`. With roles it must be a loss: lrscale fits its square root.

    Raises:
      WrongReturn: the value is something else, or its objective is negative.
    """
    result = returned(value)
    if result.objective < 0 and math.isfinite(result.objective):
        raise WrongReturn(
            f"with `roles`, the objective must be a loss or an error, >= 0, got {result.objective:.6g}. "
            "Return something that is minimised, such as 1 - accuracy, or leave out hydra.sweeper.roles."
        )
    return result
