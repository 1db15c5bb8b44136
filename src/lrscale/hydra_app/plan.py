"""Makes the plan of a multirun: sorts its overrides into axes and intervals, then composes and checks every cell."""

import itertools
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from omegaconf import DictConfig, OmegaConf

from lrscale.errors import Refusal, masked_url
from lrscale.hydra_app.hints import is_known, nearest_keys
from lrscale.rules import BOOLEAN, PROPORTION, TEXT, Rule, check, integer, is_number, one_of
from lrscale.run.setup import Setup
from lrscale.spec import is_own
from lrscale.study.config import GROUPS, KEYS, identity, make_compute, tunable
from lrscale.study.counts import MOST_CELLS, check_count
from lrscale.study.own_code import TRIALS_TOGETHER, own_facts
from lrscale.study.plan import Cell, Plan, TunedInterval, cell_label, has_value, with_values
from lrscale.study.twins import COMPANIONS, LR_KEY, scaled_companions, with_twins
from lrscale.tasks.registry import check_files
from lrscale.training.device import chosen
from lrscale.training.optimizers import OPTIMIZERS

TOP_LEVEL = (*KEYS, "compute", "tracking", "study", "cells")
"""The top-level keys of a config, without Hydra's own."""
SETTINGS: dict[str, Rule] = {
    "storage": TEXT,
    "n_trials": integer(1, 100_000),
    "n_jobs": integer(1, 100_000),
    "companions": one_of(*COMPANIONS),
    "widen": BOOLEAN,
    "profile": BOOLEAN,
    "n_retries": integer(0, 100),
    "job_timeout": Rule("must be > 0 or null", lambda v: v is None or (is_number(v) and v > 0)),
    "max_failure_rate": PROPORTION,
}
MAPPING = Rule("must be a mapping or null", lambda v: v is None or isinstance(v, Mapping))
OPTIONAL_TEXT = Rule(
    "must be a text of at most 1000 characters or null", lambda v: v is None or (isinstance(v, str) and len(v) <= 1000)
)
TRACKING: dict[str, Rule] = {"uri": TEXT, "experiment": TEXT}
STUDY: dict[str, Rule] = {
    "question": OPTIONAL_TEXT,
    "law": OPTIONAL_TEXT,
    "ranges": MAPPING,
    "claims": Rule("must be a list or null", lambda v: v is None or isinstance(v, list)),
}


def plain_config(config: DictConfig) -> dict[str, Any]:
    """Returns the part of a composed config that describes a training, as plain values.

    Raises:
      Refusal: the config has a key that is not known.
    """
    unknown = [str(key) for key in config if key not in (*TOP_LEVEL, "hydra")]
    if unknown:
        meant = f" Did you mean {' or '.join(near)}?" if (near := nearest_keys(unknown[0])) else ""
        raise Refusal(f"`{unknown[0]}` is not known.{meant} Known: {', '.join(TOP_LEVEL)}.")
    return {str(key): _completed(str(key), to_plain(config[key])) for key in config if key in KEYS}


def _completed(group: str, values: Any) -> Any:
    """Returns the values of a group; those that a config of the user's own leaves out are the defaults of its `name`."""
    name = values.get("name") if group in GROUPS and isinstance(values, Mapping) else None
    if not isinstance(name, str) or not (name in GROUPS[group].names() or is_own(name)):
        return values
    return {**GROUPS[group].config(name)[group], **values}


def to_plain(value: Any) -> Any:
    """Returns a value without OmegaConf's types, with all interpolations resolved."""
    return OmegaConf.to_container(value, resolve=True, throw_on_missing=True) if OmegaConf.is_config(value) else value


def make_plan(
    settings: Mapping[str, Any], config: DictConfig, loader: ConfigLoader, arguments: Sequence[str]
) -> tuple[Plan, Setup]:
    """Returns the plan of a multirun, and the setup of its execution.

    Args:
      settings: the values under `hydra.sweeper`.
      config: the config that Hydra composed for the multirun.
      loader: Hydra's config loader.
      arguments: the overrides of the command line.

    Raises:
      Refusal: a setting, an override or a cell cannot be used; the message lists all cells that cannot.
    """
    for key in settings:
        if key not in (*SETTINGS, "sampler", "study_name", "params"):
            raise Refusal(
                f"`hydra.sweeper.{key}` is not known. Known: {', '.join([*SETTINGS, 'sampler', 'study_name', 'params'])}."
            )
    for key, rule in SETTINGS.items():
        check(f"hydra.sweeper.{key}", rule, settings.get(key))
    check("hydra.sweeper.params", MAPPING, settings.get("params"))
    tracking, study = to_plain(config.tracking), {} if config.study is None else to_plain(config.study)
    for section, value, rules in (("tracking", tracking, TRACKING), ("study", study, STUDY)):
        check(section, MAPPING, value)
        for key, rule in rules.items():
            check(f"{section}.{key}", rule, (value or {}).get(key))
    axes, intervals, fixed = axes_of(config, loader, settings.get("params") or {}, arguments)
    check_count(axes, settings["n_trials"] if intervals else 1)
    compute = make_compute(to_plain(config.compute))
    cells = _cells(config, loader, axes, [*fixed, *_middle(intervals)], intervals, compute.device, settings["n_trials"])
    compute = compute._replace(device=chosen(compute.device, [cell.config for cell in cells]))
    if not axes and not intervals and not settings.get("study_name") and config.hydra.runtime.choices.get("sweeps") is None:
        raise Refusal(
            "`-m` needs something to sweep, got one value of each key. Take sweeps=quickstart, or sweep keys: "
            "batch_size=8,64 reduction=sum,mean 'optimizer.lr=tag(log,interval(1e-4,1))'."
        )
    companions = settings["companions"]
    if companions == "scaled" and LR_KEY in intervals and cells[0].training.probe is None:
        cells = scaled_companions(cells, intervals)
    sweep = config.hydra.runtime.choices.get("sweeps")
    name = settings.get("study_name")
    if name is None:
        name = sweep or "-".join(
            [cells[0].config["task"]["name"].rpartition(":")[2], *(axis.rpartition(".")[2] for axis in axes)]
        )
    check("hydra.sweeper.study_name", TEXT, name)
    plan = Plan(
        study=name,
        cells=with_twins(cells, intervals, companions),
        intervals=intervals,
        sampler=_sampler(settings.get("sampler"), settings["widen"]),
        n_trials=settings["n_trials"] if intervals else 1,
        question=study.get("question"),
        law=study.get("law"),
        ranges=study.get("ranges") or {},
        claims=study.get("claims") or [],
        command=masked_url(shlex.join(["lrscale", "run", "-m", *arguments, *_typed(typed_of_hydra(config))])),
        companions=companions,
    )
    setup = Setup(
        uri=tracking["uri"],
        storage=settings["storage"],
        compute=compute,
        n_jobs=settings["n_jobs"],
        max_failure_rate=settings["max_failure_rate"],
        n_retries=settings["n_retries"],
        profile=settings["profile"],
    )
    return plan, setup


def typed_of_hydra(config: DictConfig) -> list[str]:
    """Returns the overrides of `hydra.` as they were typed: only a job can resolve `${hydra.job.num}`."""
    typed = OmegaConf.to_container(config.hydra.overrides.hydra, resolve=False)
    return [str(text) for text in typed] if isinstance(typed, list) else []


def _typed(overrides: Sequence[str]) -> list[str]:
    """Returns the overrides of `hydra.` and `hydra/` that were typed: without the one that Hydra adds for -m."""
    return [text for text in overrides if text != "hydra.mode=MULTIRUN"]


def _sampler(sampler: Any, widen: bool) -> dict[str, Any]:
    """Returns the name of the sampler with its options; raises Refusal where a sampler other than the ladder is to widen."""
    options = dict(sampler) if isinstance(sampler, Mapping) else {"name": sampler}
    if widen and options.get("name") != "ladder":
        raise Refusal(
            f"`hydra.sweeper.widen` true needs the sampler ladder, got {options.get('name')!r:.60}. "
            "Widen the interval itself, or take hydra.sweeper.sampler=ladder."
        )
    return {**options, "widen": True} if widen else options


def axes_of(
    config: DictConfig, loader: ConfigLoader, params: Mapping[str, Any], arguments: Sequence[str]
) -> tuple[dict[str, list[str]], dict[str, TunedInterval], list[str]]:
    """Returns the axes with their values, the tuned intervals, and the overrides with one value.

    Args:
      config: the config that Hydra composed for the multirun.
      loader: Hydra's config loader.
      params: the values under `hydra.sweeper.params`.
      arguments: the overrides of the command line, which replace params with the same key.

    Raises:
      Refusal: an override cannot be swept or tuned.
    """
    parser = OverridesParser.create(config_loader=loader)
    texts = [f"{key}={','.join(map(str, value)) if isinstance(value, list) else value}" for key, value in params.items()]
    overrides = {o.get_key_element(): o for o in parser.parse_overrides([*texts, *arguments])}
    axes: dict[str, list[str]] = {}
    tuned: dict[str, Override] = {}
    fixed: list[str] = []
    for key, override in overrides.items():
        if override.is_sweep_override() and key.partition(".")[0] not in KEYS:
            if not is_known(key) and (meant := nearest_keys(key)):
                raise Refusal(f"`{key}` is not known, got {override.input_line}. Did you mean {meant[0]}?")
            raise Refusal(
                f"`{key}` must have one value, got {override.input_line}. "
                f"Only keys of a training can be swept: {', '.join(KEYS)}."
            )
        if not override.is_sweep_override():
            fixed.append(f"{key}={override.get_value_element_as_str()}")
        elif override.is_discrete_sweep():
            axes[key] = [str(value) for value in itertools.islice(override.sweep_string_iterator(), MOST_CELLS + 1)]
            check_count(axes)
            if not axes[key] or len(set(axes[key])) < len(axes[key]):
                raise Refusal(f"`{key}` must be swept over values that differ, got {override.input_line}. Take each value once.")
        else:
            tuned[key] = override
    chosen = [*axes.get("optimizer", ()), *(text.removeprefix("optimizer=") for text in fixed if text.startswith("optimizer="))]
    own = [OPTIMIZERS.config(name)["optimizer"] for name in map(_unescaped, chosen) if is_own(name)]
    rules = tunable([to_plain(config.optimizer), *own])
    return axes, {key: _interval(key, override, rules) for key, override in tuned.items()}, fixed


def _unescaped(name: str) -> str:
    """Returns the name of a choice as a user writes it. Hydra writes a backslash before a colon."""
    return name.replace("\\:", ":")


def _interval(key: str, override: Override, rules: Mapping[str, Rule]) -> TunedInterval:
    """Returns the tuned interval of an override; raises Refusal where it has none, or where it breaks a rule."""
    value = override.value()
    if not isinstance(value, IntervalSweep) or key not in rules:
        raise Refusal(
            f"`{key}` must be swept over values, got {override.input_line}. Only {', '.join(rules)} can be tuned in an interval."
        )
    low, high = value.start, value.end
    assert low is not None
    assert high is not None
    if not (is_number(low) and is_number(high) and low < high):
        raise Refusal(
            f"`{key}` must be tuned in an interval with low < high, got {override.input_line}. Take tag(log,interval(1e-4,1))."
        )
    for end in (low, high):
        check(key, rules[key], end, "The ends of an interval must keep this rule too.")
    if "log" in value.tags and low <= 0:
        raise Refusal(f"`{key}` must be > 0 to be tuned on a log scale, got {override.input_line}. Raise the low end.")
    return TunedInterval(float(low), float(high), "log" in value.tags)


def _middle(intervals: Mapping[str, TunedInterval]) -> list[str]:
    """Returns an override for each interval, with its middle as the value, so that a cell can be composed and checked."""
    return [f"{key}={(i.low * i.high) ** 0.5 if i.log else (i.low + i.high) / 2!r}" for key, i in intervals.items()]


def _cells(
    config: DictConfig,
    loader: ConfigLoader,
    axes: Mapping[str, list[str]],
    fixed: list[str],
    intervals: Mapping[str, TunedInterval],
    device: str,
    trials: int,
) -> tuple[Cell, ...]:
    """Returns the checked cell of each combination of the axes.

    Hydra composes a config only for each combination of group choices. Other values are set in the composed config,
    because that is quicker.

    Args:
      config: the config that Hydra composed for the multirun.
      loader: Hydra's config loader.
      axes: the values of each axis, as texts.
      fixed: the overrides that all cells share, with a value for each tuned hyperparameter.
      intervals: the tuned intervals.
      device: the device that is asked for.
      trials: how many trials a cell may have where something is tuned.

    Raises:
      Refusal: a cell cannot be used; the message lists all such cells.
    """
    parser = OverridesParser.create(config_loader=loader)
    base = plain_config(loader.load_sweep_config(config, fixed))
    values = {key: [parser.parse_override(f"{key}={text}").value() for text in axes[key]] for key in axes if has_value(base, key)}
    composed: dict[tuple[str, ...], dict[str, Any]] = {tuple(fixed): base}
    cells: list[Cell] = []
    refused: dict[str, list[str]] = {}
    for indices in itertools.product(*(range(len(texts)) for texts in axes.values())):
        index_of = dict(zip(axes, indices, strict=True))
        overrides = (*fixed, *(f"{key}={axes[key][i]}" for key, i in index_of.items() if key not in values))
        if overrides not in composed:
            composed[overrides] = plain_config(loader.load_sweep_config(config, list(overrides)))
        own_values = {key: values[key][i] for key, i in index_of.items() if key in values}
        facts = own_facts(with_values(composed[overrides], own_values), TRIALS_TOGETHER, device)
        scientific = {key: own_values[key] if key in own_values else _unescaped(axes[key][i]) for key, i in index_of.items()}
        own_values |= facts
        cell_config, label = with_values(composed[overrides], own_values), cell_label(scientific)
        untuned = tuple(text for text in overrides if text.partition("=")[0] not in intervals)
        cell = Cell(identity(cell_config, intervals), label, scientific, cell_config, untuned, own_values)
        try:
            check_files(cell.training, trials if intervals else 1)
        except Refusal as error:
            refused.setdefault(str(error), []).append(label)
            continue
        cells.append(cell)
    if len(refused) == 1 and not cells:
        raise Refusal(next(iter(refused)))
    if refused:
        raise Refusal("; ".join(f"{', '.join(labels)}: {text}" for text, labels in refused.items()))
    return tuple(cells)
