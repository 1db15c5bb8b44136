"""Tasks that a config names by their code, as in `task=mine.py:cnn`. Reading such a config runs no code.

A task without a file, `notebook:NAME`, is an object of this process: see `held`.

A config holds the values of the function's parameters, and what is known about the task: `FACTS`. They are null in a
composed config, until `with_facts` makes the task.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from lrscale.errors import Refusal, said
from lrscale.rules import BOOLEAN, POSITIVE, Rule, check, integer, one_of
from lrscale.spec import OwnCode, Training
from lrscale.tasks.held import held, is_held
from lrscale.tasks.registry import TASKS, TaskKind
from lrscale.tasks.source import PLAIN, load, read_source

if TYPE_CHECKING:
    from lrscale.tasks.own import Task

FACTS: dict[str, Rule] = {
    "sha256": Rule(
        "must be the sha256 of the task's file, or of what a task without a file is",
        lambda v: isinstance(v, str) and len(v) == 64,
    ),
    "n_examples": integer(1),
    "n_terms": POSITIVE,
    "is_even": BOOLEAN,
    "has_wrong": BOOLEAN,
    "form": one_of("loop", "vmap_grad", "vmap_forward", "unfold"),
    "form_note": Rule("must be a text of at most 1000 characters", lambda v: isinstance(v, str) and len(v) <= 1000),
}
"""What a config says about a task of the user's own: the hash of its file (or of what it is, see `held`), the number of
training examples, the mean sum of weights of an example's terms, whether it is the same for each example, whether the task has
classes, the form in which its gradients are computed, and why other forms cannot be."""
OF_THE_RUN = ("form", "form_note")
"""The facts that change numbers by rounding only. A cell's id does not depend on them."""
PRESETS = {"objective": "valid_loss", "dtype": "float32", "points": 10}


def named_config(name: str) -> dict[str, Any]:
    """Returns the config values that `task=NAME` sets, from the signature of the function. Runs no code.

    Raises:
      Refusal: the file or the function cannot be used.
    """
    source = read_source("task", name)
    if source.required:
        raise Refusal(f"`task` {name:.200} must have a default for each parameter, got none for {', '.join(source.required)}.")
    if reserved := [key for key in source.defaults if key in ("name", *FACTS)]:
        raise Refusal(f"`task` {name:.200} must have parameters of other names, got {', '.join(reserved)}. Rename them.")
    facts = {**dict.fromkeys(FACTS), "sha256": source.sha256}
    return {**PRESETS, "task": {"name": name, **source.defaults, **facts}}


def with_facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what is known about the task of a config, by dotted key. Runs the user's function, which makes the task.

    Args:
      config: plain values, as Hydra composes them.

    Raises:
      Refusal: a parameter has a wrong type, or the task's code must not be run or cannot be used.
    """
    values, sha256 = config["task"], config["task"].get("sha256")
    if not is_held(values["name"]):
        source = read_source("task", values["name"])
        for key, rule in source.rules.items():
            check(f"task.{key}", rule, values.get(key))
        sha256 = source.sha256
    task = make_named(values["name"], sha256, options_of(values))
    total, least, most = (float(part) for part in (task.terms.sum(), task.terms.min(), task.terms.max()))
    facts = {
        "sha256": sha256,
        "n_examples": len(task.train),
        "n_terms": total / len(task.train),
        "is_even": least == most,
        "has_wrong": task.wrong is not None,
        "form": "loop",
        "form_note": "",
    }
    return {f"task.{key}": value for key, value in facts.items()}


def options_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of the function's parameters, from the values under `task`."""
    return {key: value for key, value in values.items() if key != "name" and key not in FACTS}


def make_named(name: str, sha256: str, options: Mapping[str, Any]) -> Task:
    """Runs the user's function, and returns the task that it makes. The last tasks are kept.

    Raises:
      Refusal: the code must not be run, fails, or makes something else.
    """
    return held(name, sha256) if is_held(name) else _make(name, sha256, json.dumps(options, sort_keys=True))


@lru_cache(maxsize=4)
def _make(name: str, sha256: str, options: str) -> Task:
    from lrscale.tasks.own import Task

    function = load("task", name, sha256)
    try:
        task = function(**_with_tuples(function, json.loads(options)))
    except Refusal as error:
        raise Refusal(str(error) if str(error).startswith("`task` ") else f"`task` {name:.200}: {error}") from None
    except (Exception, SystemExit) as error:
        raise Refusal(f"`task` {name:.200} must make a task, got {said(error)}.") from error
    if not isinstance(task, Task):
        raise Refusal(f"`task` {name:.200} must return a lrscale.Task, got {type(task).__name__}.")
    return task


def _with_tuples(function: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of a function's parameters, where a list becomes a tuple if the default is one."""
    defaults = {key: parameter.default for key, parameter in inspect.signature(function).parameters.items()}
    return {
        key: tuple(value) if isinstance(value, list) and isinstance(defaults.get(key), tuple) else value
        for key, value in options.items()
    }


def check_named(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the checked values under `task` of a task of the user's own, without its name."""
    options = {key: value for key, value in values.items() if key != "name"}
    for key, value in options.items():
        check(f"task.{key}", FACTS.get(key, PLAIN), value)
    for key in FACTS:
        if key not in options:
            raise Refusal(f"`task.{key}` is missing. A config of the user's own task must have {', '.join(FACTS)}.")
    return options


def _check(training: Training) -> None:
    if training.objective == "valid_error" and not training.task.options["has_wrong"]:
        raise Refusal("`objective` valid_error needs a task with `wrong`, got none. Give lrscale.Task(..., wrong=lrscale.top1).")


def _make_task(training: Training) -> Task:
    return make_named(training.task.name, training.task.options["sha256"], options_of(training.task.options))


TASKS.declare_own(
    OwnCode(
        TaskKind(
            about="a task of the user's own",
            make=_make_task,
            examples=lambda options: int(options["n_examples"]),
            classes=True,
            check=_check,
        ),
        named_config,
        check_named,
        with_facts,
    )
)
