"""Names the variants of a study: a sweep file that is run with other values than its own."""

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from lrscale.errors import Refusal
from lrscale.hydra_app.plan import axes_of, plain_config, to_plain, typed_of_hydra
from lrscale.study.config import KEYS
from lrscale.study.plan import Plan

SAMPLING = ("sampler", "companions", "widen")
"""The settings of the sweeper that say which points are asked for."""
ASKING = (*KEYS, "study", *(f"hydra.sweeper.{key}" for key in (*SAMPLING, "params")))
"""The keys that change what a study asks. More trials extend a study, and all other keys are of the machine or the stores."""
NAME_LENGTH = 60
"""The largest number of characters in the name of a variant."""


def with_variant(plan: Plan, config: DictConfig, loader: ConfigLoader) -> Plan:
    """Returns a plan under the name of its variant, where the command line asks for something else than the sweep file.

    A study that the command line names keeps this name, and so does one without a sweep file.

    Args:
      plan: the plan, as `make_plan` returns it.
      config: the config that Hydra composed for the multirun.
      loader: Hydra's config loader.
    """
    typed = [*to_plain(config.hydra.overrides.task), *typed_of_hydra(config)]
    overrides = OverridesParser.create(config_loader=loader).parse_overrides(typed)
    is_named = any(override.key_or_group == "hydra.sweeper.study_name" for override in overrides)
    if is_named or config.hydra.runtime.choices.get("sweeps") is None:
        return plan
    asked = _asked(config, loader)
    for override in filter(_asks, overrides[:]):
        if _asked_without(override, overrides, config, loader) == asked:
            overrides = [other for other in overrides if other is not override]
    needed = [str(override.input_line) for override in overrides if _asks(override)]
    return replace(plan, study=variant_name(plan.study, needed)) if needed else plan


def variant_name(study: str, overrides: Iterable[str]) -> str:
    """Returns the name of a variant: that of its study, and the overrides as typed. Different variants have different names.

    A name that is too long is cut, and a character that could end a line or a quotation in a document is replaced; the name
    then ends with a hash.

    Example:
      >>> variant_name("quickstart", ["batch_size=2,8", "hydra.sweeper.sampler=tpe"])
      'quickstart batch_size=2,8 sampler=tpe'
      >>> variant_name("quickstart", ["optimizer.lr=tag(log,interval(0.001,0.1))", "task=linear"])
      'quickstart optimizer.lr=tag(log,interval(0.001,0.1))-0db9d2'
    """
    typed = " ".join([study, *(text.lstrip("+").removeprefix("hydra.sweeper.") for text in overrides)])
    safe = "".join(c if c.isprintable() and c != "`" else "_" for c in typed)
    if safe == typed and len(typed) <= NAME_LENGTH:
        return typed
    return f"{safe[: NAME_LENGTH - 7].rstrip()}-{hashlib.sha256(typed.encode(errors='replace')).hexdigest()[:6]}"


def _asks(override: Override) -> bool:
    """Returns whether an override has a key of ASKING, or one below it."""
    return any(override.key_or_group == key or override.key_or_group.startswith(f"{key}.") for key in ASKING)


def _asked_without(override: Override, overrides: list[Override], config: DictConfig, loader: ConfigLoader) -> Any:
    """Returns what the command line would ask without an override; None where that cannot be composed."""
    others = [str(other.input_line) for other in overrides if other is not override]
    try:
        return _asked(loader.load_configuration(config.hydra.job.config_name, others, RunMode.MULTIRUN), loader)
    except (Refusal, HydraException, OmegaConfBaseException):
        return None


def _asked(config: DictConfig, loader: ConfigLoader) -> Any:
    """Returns what a multirun asks, as values that can be compared: axes, intervals, the other values, sampler and claims."""
    settings = {str(key): to_plain(value) for key, value in config.hydra.sweeper.items()}
    axes, intervals, fixed = axes_of(config, loader, settings["params"] or {}, to_plain(config.hydra.overrides.task))
    values = plain_config(loader.load_sweep_config(config, fixed))
    return axes, intervals, values, [settings[key] for key in SAMPLING], to_plain(config.study)
