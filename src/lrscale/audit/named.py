"""A training step that the command line names, as in `mine.py:step`: its file is run, and gives the step, a batch and a model."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lrscale.errors import Refusal
from lrscale.tasks.own import Task
from lrscale.tasks.source import find_file, load_module, told, trust

STEP_OPTIONS = ("accumulation", "reference", "collate", "restore")
"""The options of `audit` that a file may set."""
HOW_TO_WRITE = (
    "Write a function without parameters that returns (step, batch, model), or a step with one parameter, its list of "
    "micro-batches, in a file that defines `batch` and `model` too."
)


class AuditedStep(NamedTuple):
    """What `lrscale.audit` is called with: `step(micro_batches)` makes one update, and `options` holds the keywords."""

    step: Callable[..., Any]
    batch: Any
    model: Any
    options: Mapping[str, Any]


def load_step(name: str) -> AuditedStep:
    """Runs a user's file, and returns the step that a name means.

    A function without required parameters is called, and returns `(step, batch, model)` or `(step, batch, model, options)`. A
    function with one is the step itself. The file then defines `batch` and `model`, and where it likes those of `STEP_OPTIONS`.

    Args:
      name: `FILE.py:NAME` or `package.module:NAME`, as the user of this process typed it.

    Raises:
      Refusal: there is no such file or name, its code fails, or it gives something else.
    """
    module = _module(name)
    function = _function(module, name)
    required = _required(function, name)
    if len(required) == 1:
        return _beside(function, module, name)
    if required:
        raise Refusal(
            f"`STEP` {name:.200} must have no required parameter or one, got {len(required)}: {', '.join(required):.200}. "
            f"{HOW_TO_WRITE}"
        )
    return _made(function, name)


def load_maker(name: str) -> AuditedStep:
    """Runs a user's file, and returns a function that makes a step, in place of the step, with no batch and no model.

    `lrscale.audit` calls it in each process where it compares several.

    Args:
      name: as for `load_step`; a function without required parameters.

    Raises:
      Refusal: as for `load_step`, or the function has required parameters.
    """
    function = _function(_module(name), name)
    if required := _required(function, name):
        raise Refusal(
            f"`STEP` {name:.200} must have no required parameter where --ranks is given, got {', '.join(required):.200}. "
            "Write a function that returns (step, batch, model): it is called in each process."
        )

    def make() -> tuple[Any, ...]:
        return tuple(_made(function, name))

    return AuditedStep(make, None, None, {})


def _module(name: str) -> Any:
    """Runs a user's file, and returns it as a module."""
    return load_module("STEP", name, trust(find_file("STEP", name)))


def _made(function: Callable[[], Any], name: str) -> AuditedStep:
    """Calls a function that makes a step; raises Refusal where it fails or returns something else."""
    try:
        made = function()
    except Refusal as error:
        raise Refusal(f"`STEP` {name:.200}: {error}") from None
    except (Exception, SystemExit) as error:
        said = told(error, find_file("STEP", name))
        raise Refusal(f"`STEP` {name:.200} must return (step, batch, model), got {said}.") from error
    return _returned(made, name)


def _function(module: Any, name: str) -> Callable[..., Any]:
    """Returns what a name means in a module; raises Refusal where it is not there or is no function."""
    wanted = name.rpartition(":")[2]
    found: Any = getattr(module, wanted, None)
    if not callable(found) or isinstance(found, type):
        known = [key for key, value in vars(module).items() if key[0] != "_" and inspect.isfunction(value)]
        known = [key for key in known if getattr(module, key).__module__ == module.__name__]
        got = repr(wanted) if found is None else f"{wanted!r}, which is no function"
        place = name.rpartition(":")[0]
        raise Refusal(f"`STEP` must name a function of {place:.200}, got {got:.200}. It defines {', '.join(known) or 'none'}.")
    function: Callable[..., Any] = found
    return function


def _required(function: Callable[..., Any], name: str) -> list[str]:
    """Returns the names of the parameters without a default."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        raise Refusal(f"`STEP` {name:.200} must have parameters that can be read, and has not. {HOW_TO_WRITE}") from None
    free = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is inspect.Parameter.empty and p.kind not in free]


def _beside(step: Callable[..., Any], module: Any, name: str) -> AuditedStep:
    """Returns a step with the batch and the model that its file defines."""
    missing = [f"`{key}`" for key in ("batch", "model") if not hasattr(module, key)]
    if missing:
        raise Refusal(
            f"`STEP` {name:.200} is a step, so its file must define {' and '.join(missing)} too, and does not. "
            "Add it, or write a function without parameters that returns (step, batch, model)."
        )
    options = {key: getattr(module, key) for key in STEP_OPTIONS if hasattr(module, key)}
    return AuditedStep(step, module.batch, module.model, options)


def _returned(made: Any, name: str) -> AuditedStep:
    """Returns what a user's function returned; raises Refusal where it is something else."""
    if isinstance(made, Task):
        raise Refusal(f"`STEP` {name:.200} returns a lrscale.Task. Audit it with: lrscale audit --task {name:.200}")
    if not isinstance(made, tuple) or len(made) not in (3, 4):
        got = f"{len(made)} values" if isinstance(made, tuple) else type(made).__name__
        raise Refusal(f"`STEP` {name:.200} must return (step, batch, model) or (step, batch, model, options), got {got}.")
    step, batch, model, *rest = made
    options = rest[0] if rest else {}
    if not callable(step):
        raise Refusal(f"`STEP` {name:.200} must return a step that is a function first, got {type(step).__name__}.")
    if not isinstance(options, Mapping) or set(options) - set(STEP_OPTIONS):
        got = ", ".join(map(str, options)) if isinstance(options, Mapping) else type(options).__name__
        raise Refusal(f"`STEP` {name:.200} must return options with keys of {', '.join(STEP_OPTIONS)}, got {got:.200}.")
    return AuditedStep(step, batch, model, options)
