"""Reads the overrides of a stranger's Hydra app, composes its configs, and finds the folder of its sweep."""

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep, Transformer
from omegaconf import DictConfig, OmegaConf

from lrscale.errors import Refusal, masked_secrets
from lrscale.rules import is_number
from lrscale.study.counts import MOST_CELLS, check_count
from lrscale.study.space import Choices, Numbers, Parameter


class Asked(NamedTuple):
    """What the overrides ask: those with one value, as they were typed, and what is swept, by the app's own keys."""

    fixed: tuple[str, ...]
    swept: Mapping[str, Override]

    @property
    def fixed_values(self) -> dict[str, Any]:
        """The overrides with one value, as texts by their keys. Passwords are masked, because Optuna records them."""
        masked: dict[str, Any] = masked_secrets({text.partition("=")[0]: text.partition("=")[2] for text in self.fixed})
        return masked


def asked(loader: ConfigLoader, params: Mapping[str, Any], arguments: Sequence[str]) -> Asked:
    """Returns what is asked by `hydra.sweeper.params` and by the command line, which replaces params with the same key."""
    parser = OverridesParser.create(config_loader=loader)
    texts = [f"{key}={'null' if value is None else value}" for key, value in params.items()]
    overrides = {o.get_key_element().lstrip("+"): o for o in parser.parse_overrides([*texts, *arguments])}
    fixed = tuple(str(o.input_line) for o in overrides.values() if not o.is_sweep_override())
    return Asked(fixed, {o.get_key_element(): o for o in overrides.values() if o.is_sweep_override()})


def parameter(override: Override) -> Parameter:
    """Returns what a swept key can be. `range` excludes its end, as everywhere in Hydra.

    Raises:
      Refusal: the key is swept over nothing or a value twice, or over an interval that is empty or cannot be on a log scale.
    """
    value = override.value()
    if isinstance(value, IntervalSweep):
        low, high, log = value.start, value.end, "log" in value.tags
        if not (is_number(low) and is_number(high) and low is not None and high is not None and low < high):
            raise Refusal(f"`{override.input_line}` must have low < high, as in interval(0,1).")
        if log and low <= 0:
            raise Refusal(f"`{override.input_line}` must be > 0 to be on a log scale. Raise the low end.")
        return Numbers(low, high, log, whole=isinstance(low, int) and isinstance(high, int))
    if isinstance(value, RangeSweep) and not value.shuffle:
        start, stop, step = value.start, value.stop, value.step
        assert start is not None
        assert stop is not None
        first, by = Decimal(str(start)), Decimal(str(step))  # in floats, the last value of range(0,1,0.1) can be beyond its end
        count = math.ceil((Decimal(str(stop)) - first) / by)
        if count < 1:
            raise Refusal(f"`{override.input_line}` must be a range that is not empty.")
        whole = all(isinstance(number, int) for number in (start, stop, step))
        ends = sorted((first, first + (count - 1) * by))
        low, high = (int(end) if whole else float(end) for end in ends)
        return Numbers(low, high, step=abs(step), whole=whole)
    return Choices(tuple(choices(override)))


def choices(override: Override) -> list[Any]:
    """Returns the values of a discrete sweep, each once. Lists and mappings are texts, as an override has them."""
    swept = itertools.islice(override.sweep_iterator(transformer=Transformer.encode), MOST_CELLS + 1)
    values = [value if isinstance(value, str | int | float | bool | None) else json.dumps(value) for value in swept]
    check_count({override.key_or_group: values})
    if not values or len(set(values)) < len(values):
        raise Refusal(
            f"`{override.key_or_group}` must be swept over values that differ, got {override.input_line}. Take each once."
        )
    return values


def override_of(key: str, value: Any) -> str:
    """Returns the override that sets a key to a value.

    Example:
      >>> override_of("x", None), override_of("y", True), override_of("z", 1e-05)
      ('x=null', 'y=true', 'z=1e-05')
    """
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return f"{key}={text}"


def app_config(config: DictConfig, but: Sequence[str] = ()) -> dict[str, Any]:
    """Returns the app's config as plain values, without Hydra's part and without some keys.

    Interpolations stay as they are written: a time or a path of this machine does not make another training. Passwords are
    masked, because this config is recorded.

    Args:
      config: a composed config.
      but: dotted keys that are left out.
    """
    container = OmegaConf.to_container(config, resolve=False)
    assert isinstance(container, dict)
    plain: dict[str, Any] = json.loads(json.dumps({k: v for k, v in container.items() if k != "hydra"}, default=str))
    for key in but:
        *path, last = key.lstrip("+").split(".")
        group: Any = plain
        for part in path:
            group = group.get(part) if isinstance(group, dict) else None
        if isinstance(group, dict):
            group.pop(last, None)
    masked: dict[str, Any] = masked_secrets(plain)
    return masked


def compose(loader: ConfigLoader, config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Returns the config that Hydra composes for a job with these overrides."""
    return loader.load_sweep_config(config, list(overrides))


def sweep_folders(config: DictConfig, recorded: str | None) -> Iterator[str]:
    """Yields the folders that can be Hydra's folder of the sweep, the one that is wanted first.

    Where the config names one with the time, as it does by default, a sweep that is continued has its recorded folder alone.
    A new one can have others, as another sweep may begin in the same second.

    Args:
      config: the config that Hydra composed for the multirun.
      recorded: the folder of the sweep that is continued; None for a new one.
    """
    raw = OmegaConf.to_container(config.hydra.sweep, resolve=False)
    assert isinstance(raw, dict)
    timed = "${now:" in str(raw["dir"])
    if timed and recorded is not None and Path(recorded).is_dir():
        yield recorded
        return
    yield str(config.hydra.sweep.dir)
    if timed:
        yield from (f"{config.hydra.sweep.dir}_{number}" for number in itertools.count(2))


def folder_overrides(folder: str) -> Iterator[str]:
    """Yields the override with which all jobs write into a folder of the sweep."""
    escaped = folder.replace("\\", "\\\\").replace("'", "\\'")
    yield f"hydra.sweep.dir='{escaped}'"
