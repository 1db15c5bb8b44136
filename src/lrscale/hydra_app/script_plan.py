"""Makes the plan of a study of a training script: its cells, from what is swept and from the roles of the app's keys."""

import itertools
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lrscale.errors import Refusal, masked_url, printable
from lrscale.hydra_app.plan import to_plain
from lrscale.hydra_app.script_overrides import Asked, app_config, asked, choices, compose, override_of, parameter
from lrscale.hydra_app.script_settings import Settings
from lrscale.rules import integer
from lrscale.study.config import identity, seeds
from lrscale.study.counts import check_count
from lrscale.study.plan import Cell, Plan, TunedInterval, cell_label
from lrscale.study.script import SCRIPT_OBJECTIVE, optimizer_name
from lrscale.study.space import Numbers, flat_keys
from lrscale.study.twins import LR_KEY, with_twins
from lrscale.training.reduction import REDUCTIONS


def script_name(config: DictConfig) -> str:
    """Returns the name of a sweep that gives none: that of the app's script."""
    return printable(str(config.hydra.job.name))


def script_plan(settings: Settings, config: DictConfig, loader: ConfigLoader, arguments: Sequence[str]) -> Plan:
    """Returns the plan of a study of a script. Its cells are the combinations of all that is swept but the lr and the seed.

    Args:
      settings: the settings, with roles.
      config: the config that Hydra composed for the multirun.
      loader: Hydra's config loader.
      arguments: the overrides of the command line.

    Raises:
      Refusal: a role names no key, or a value that its role cannot have.
    """
    roles, wanted = settings.roles, asked(loader, settings.params, arguments)
    swept = {key.lstrip("+"): override for key, override in wanted.swept.items()}
    keys = {key.lstrip("+"): key for key in wanted.swept}
    if roles["lr"] not in swept:
        _selected(config, roles["lr"], "lr")
    interval = _interval(roles["lr"], swept)
    middle = (interval.low * interval.high) ** 0.5 if interval.log else (interval.low + interval.high) / 2
    of_job = [override_of(keys[roles["lr"]], middle)]
    chosen = _seeds(roles.get("seed"), swept, compose(loader, config, [*wanted.fixed, *of_job]) if "seed" in roles else config)
    if roles.get("seed") in keys:
        of_job.append(override_of(keys[roles["seed"]], chosen[0]))
    axes = {key: _values(key, swept[key]) for key in swept if key not in (roles["lr"], roles.get("seed"))}
    check_count(axes)
    names = {roles[role]: role for role in ("batch_size", "reduction", "accumulation") if role in roles}
    cells = []
    for values in itertools.product(*axes.values()):
        overrides = (*wanted.fixed, *(override_of(keys[key], value) for key, value in zip(axes, values, strict=True)))
        composed = compose(loader, config, [*overrides, *of_job])
        words = _words(settings, composed)
        own = dict(zip(axes, values, strict=True))
        scientific = {names.get(key, key): words.get(names.get(key, key), value) for key, value in own.items()}
        script = app_config(composed, [roles["lr"], *([roles["seed"]] if "seed" in roles else [])])
        cell_config = {
            "script": script,
            "roles": dict(roles),
            "task": {"name": script_name(config)},
            "optimizer": {"name": words.pop("optimizer"), "lr": middle},
            **words,
            "objective": SCRIPT_OBJECTIVE,
            "seeds": list(chosen),
        }
        label = cell_label(scientific)
        cells.append(Cell(identity(cell_config, [LR_KEY]), label, scientific, cell_config, overrides))
    _check_cells(cells)
    return Plan(
        study=settings.study_name or script_name(config),
        cells=with_twins(cells, [LR_KEY], "as_given"),
        intervals={LR_KEY: interval},
        sampler=dict(settings.sampler),
        n_trials=settings.n_trials,
        question=settings.question,
        law=None,
        ranges={},
        claims=[],
        command=printable(masked_url(shlex.join(["python", *sys.argv]))),
        companions="as_given",
    )


def _check_cells(cells: Sequence[Cell]) -> None:
    """Raises Refusal where two cells are alike, or where a record could not hold one."""
    for cell in cells:
        _ = cell.training
    if len({cell.id for cell in cells}) < len(cells) or len({cell.label for cell in cells}) < len(cells):
        raise Refusal("`hydra.sweeper.params` must give cells that differ from each other, but two of them are alike.")


def _interval(key: str, swept: Mapping[str, Override]) -> TunedInterval:
    """Returns the interval of the lr."""
    found = parameter(swept[key]) if key in swept else None
    if not isinstance(found, Numbers) or found.step is not None or found.whole:
        got = "one value" if found is None else swept[key].input_line
        raise Refusal(
            f"`{key}` must be tuned in an interval, as it has the role lr, got {got}. Take {key}: tag(log,interval(1e-4,1))."
        )
    if found.low <= 0:
        raise Refusal(f"`{key}` must be > 0, as it has the role lr, got {swept[key].input_line}. Raise the low end.")
    return TunedInterval(float(found.low), float(found.high), found.log)


def _seeds(key: str | None, swept: Mapping[str, Override], composed: DictConfig) -> tuple[int, ...]:
    """Returns the values of the seed. A script without a seed is trained once for each trial, and so is one with a fixed seed."""
    if key is None:
        return (0,)
    values = _values(key, swept[key]) if key in swept else [_selected(composed, key, "seed")]
    try:
        return seeds(values)
    except Refusal as error:
        got = swept[key].input_line if key in swept else f"{key}={values[0]}"
        raise Refusal(f"`{key}` has the role seed, got {got}: {error}") from None


def _values(key: str, override: Override) -> list[Any]:
    """Returns the values of a key that is swept over some, each once."""
    if not override.is_discrete_sweep():
        raise Refusal(
            f"`{key}` must be swept over values, got {override.input_line}. With `roles` only the lr is tuned in an interval."
        )
    return choices(override)


def _words(settings: Settings, composed: DictConfig) -> dict[str, Any]:
    """Returns what the roles say of a cell, in lrscale's words."""
    roles = settings.roles
    words: dict[str, Any] = {"reduction": "mean", "batch_size": None, "accumulation": 1, "optimizer": settings.optimizer}
    for role in ("batch_size", "reduction", "accumulation", "optimizer"):
        if role in roles:
            words[role] = _selected(composed, roles[role], role)
    for role in ("batch_size", "accumulation"):
        rule = integer(1, 1_000_000)
        if not rule.holds(words[role]):
            raise Refusal(f"`{roles[role]}` {rule.text}, as it has the role {role}, got {words[role]!r:.60}.")
    name = settings.reductions.get(str(words["reduction"]), words["reduction"])
    if name not in REDUCTIONS:
        raise Refusal(
            f"`{roles['reduction']}` must be one of {', '.join(REDUCTIONS)}, as it has the role reduction, got {name!r:.60}. "
            f"Say which it is with hydra.sweeper.reductions: {{{name}: sum}}."
        )
    return {**words, "reduction": name, "optimizer": optimizer_name(words["optimizer"])}


def _selected(composed: DictConfig, key: str, role: str) -> Any:
    try:
        value = to_plain(OmegaConf.select(composed, key, throw_on_missing=True))
    except OmegaConfBaseException as error:
        raise Refusal(
            f"`hydra.sweeper.roles.{role}` must be a key of the app's config with a value, got {key}: {error}"
        ) from None
    if value is None:
        raise Refusal(f"`hydra.sweeper.roles.{role}` must be a key of the app's config with a value, got {key}.")
    return value


def fixed_config(
    settings: Settings, config: DictConfig, loader: ConfigLoader, wanted: Asked, first: Sequence[str]
) -> dict[str, Any]:
    """Returns what a sweep without roles does not vary: the app's config without the swept keys, by dotted keys.

    Args:
      settings: the settings of the sweep.
      config: the config that Hydra composed for the multirun.
      loader: Hydra's config loader.
      wanted: what the overrides ask.
      first: an override for each swept key, so that a config can be composed and checked.
    """
    composed = compose(loader, config, [*wanted.fixed, *first])
    return {**flat_keys(app_config(composed, list(wanted.swept))), "custom_search_space": settings.custom_search_space}
