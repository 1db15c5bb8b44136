"""The settings of the sweeper `lrscale` under `hydra.sweeper`: those of Hydra's Optuna sweeper, and some more."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lrscale.errors import Refusal
from lrscale.rules import PROPORTION, TEXT, Rule, check, integer, is_number, one_of
from lrscale.training.reduction import REDUCTIONS

ROLES = ("lr", "batch_size", "reduction", "accumulation", "seed", "optimizer")
"""What keys of the app's config can be for lrscale."""
_OPTIONAL_TEXT = Rule(TEXT.text + ", or null", lambda v: v is None or TEXT.holds(v))
_OPTIONAL_MAPPING = Rule("must be a mapping or null", lambda v: v is None or isinstance(v, Mapping))
RULES: dict[str, Rule] = {
    "direction": one_of("minimize", "maximize"),
    "storage": _OPTIONAL_TEXT,
    "study_name": _OPTIONAL_TEXT,
    "n_trials": integer(1, 1_000_000),
    "n_jobs": integer(1, 100_000),
    "max_failure_rate": PROPORTION,
    "retries": integer(0, 100),
    "n_retries": integer(0, 100),
    "job_timeout": Rule("must be > 0 or null", lambda v: v is None or (is_number(v) and v > 0)),
    "tracking": TEXT,
    "params": _OPTIONAL_MAPPING,
    "custom_search_space": _OPTIONAL_TEXT,
    "roles": _OPTIONAL_MAPPING,
    "reductions": _OPTIONAL_MAPPING,
    "optimizer": _OPTIONAL_TEXT,
    "question": _OPTIONAL_TEXT,
}
SAMPLER_CLASSES = {
    "TPESampler": "tpe",
    "GPSampler": "gp",
    "QMCSampler": "qmc",
    "RandomSampler": "random",
    "GridSampler": "grid",
    "CmaEsSampler": "cmaes",
    "NSGAIISampler": "nsgaii",
    "NSGAIIISampler": "nsgaiii",
}
"""The name of each sampler that `hydra.sweeper.sampler._target_` can be, by its class in optuna.samplers."""


@dataclass(frozen=True)
class Settings:
    """The checked settings of a sweep. Absent texts are None; `sampler` has a `name` and the options that are set."""

    direction: Literal["minimize", "maximize"]
    storage: str
    study_name: str | None
    n_trials: int
    n_jobs: int
    max_failure_rate: float
    retries: int
    n_retries: int
    job_timeout: float | None
    tracking: str
    sampler: Mapping[str, Any]
    params: Mapping[str, Any] = field(default_factory=dict)
    custom_search_space: str | None = None
    roles: Mapping[str, str] = field(default_factory=dict)
    reductions: Mapping[str, str] = field(default_factory=dict)
    optimizer: str | None = None
    question: str | None = None


def check_settings(values: Mapping[str, Any]) -> Settings:
    """Returns the settings of a sweep from the values under `hydra.sweeper`.

    Raises:
      Refusal: a setting is not known, or its value breaks its rule.
    """
    values = dict(values)
    sampler = values.pop("sampler", None)
    for key in values:
        if key not in RULES:
            raise Refusal(f"`hydra.sweeper.{key}` is not known. Known: sampler, {', '.join(RULES)}.")
    direction = values.get("direction")
    if isinstance(direction, list):
        if len(direction) > 1:
            raise Refusal(
                f"`hydra.sweeper.direction` must be one direction, got {', '.join(map(str, direction))}. "
                "lrscale optimises one objective: return a single number that weighs them."
            )
        values["direction"] = direction[0] if direction else None
    values["direction"] = getattr(values.get("direction"), "name", values.get("direction"))  # an enum of the Optuna sweeper
    for key, rule in RULES.items():
        check(f"hydra.sweeper.{key}", rule, values.get(key))
    roles = values.get("roles") or {}
    for role, key in roles.items():
        check("hydra.sweeper.roles", one_of(*ROLES), role)
        check(f"hydra.sweeper.roles.{role}", TEXT, key, "Give the key of the app's config that has this role.")
    reductions = {str(name): value for name, value in (values.get("reductions") or {}).items()}
    for name, value in reductions.items():
        check(f"hydra.sweeper.reductions.{name}", one_of(*REDUCTIONS), value)
    defaults: dict[str, Any] = {"storage": "optuna.journal", "params": {}, "roles": {}}
    given: dict[str, Any] = {key: defaults.get(key) if values.get(key) is None else values[key] for key in RULES}
    given |= {"roles": dict(roles), "reductions": reductions}
    settings = Settings(sampler=_sampler(sampler, bool(roles)), **given)
    if roles:
        _check_roles(settings)
    return settings


def _check_roles(settings: Settings) -> None:
    """Raises Refusal where the settings contradict the roles."""
    missing = [role for role in ("lr", "batch_size") if role not in settings.roles]
    if missing:
        raise Refusal(
            f"`hydra.sweeper.roles.{missing[0]}` is missing. Name the key of the app's config that has this role, "
            "as in roles: {lr: optim.lr, batch_size: data.batch_size, reduction: loss.reduction, seed: seed}."
        )
    if len(set(settings.roles.values())) < len(settings.roles):
        raise Refusal(f"`hydra.sweeper.roles` must name different keys, got {', '.join(settings.roles.values())}.")
    if settings.direction != "minimize":
        raise Refusal(
            "`hydra.sweeper.direction` must be minimize with `roles`, got maximize. "
            "Return a loss or an error, such as 1 - accuracy."
        )
    if settings.custom_search_space is not None:
        raise Refusal("`hydra.sweeper.custom_search_space` must be null with `roles`: the cells span the other parameters.")
    if settings.optimizer is not None and "optimizer" in settings.roles:
        raise Refusal("`hydra.sweeper.optimizer` must be null where `roles.optimizer` names a key. Leave out one of them.")


def _sampler(value: Any, has_roles: bool) -> dict[str, Any]:
    """Returns the name of the sampler and the options that are set.

    A sampler is named by its name, by `name`, or, as in Hydra's Optuna sweeper, by `_target_`: then it is looked up in a
    table, and nothing is called. `auto` is the ladder with roles, and tpe without.
    """
    options = dict(value) if isinstance(value, Mapping) else {"name": value}
    options.pop("_partial_", None)
    target = options.pop("_target_", None)
    name = options.pop("name", None)
    if target is not None and target != "auto":
        module, _, cls = str(target).rpartition(".")
        if module != "optuna.samplers" or cls not in SAMPLER_CLASSES:
            raise Refusal(
                f"`hydra.sweeper.sampler._target_` must be one of optuna.samplers, got {target!r:.100}. "
                f"Take hydra/sweeper/sampler=NAME, with one of {', '.join(SAMPLER_CLASSES.values())}."
            )
        name = SAMPLER_CLASSES[cls]
    options = {key: option for key, option in options.items() if option is not None and key != "search_space"}
    if name in (None, "auto"):
        name = "ladder" if has_roles and not options else "tpe"
    return {"name": name, **options}
