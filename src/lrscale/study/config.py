"""Checks the config of one training, and makes its `Training` from it. Holds the keys of a config and their rules."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from lrscale.errors import Refusal
from lrscale.probes import PROBES
from lrscale.provenance import NUMBERS
from lrscale.rules import BOOLEAN, POSITIVE, Rule, check, check_keys, integer, is_integer, one_of
from lrscale.spec import Choice, Compute, Registry, Training, is_own
from lrscale.study.script import SCRIPT_KEYS, script_training
from lrscale.tasks.named import OF_THE_RUN
from lrscale.tasks.registry import TASKS
from lrscale.training.device import DEVICES
from lrscale.training.named_optimizer import MEASURED_FACTS, own_options
from lrscale.training.optimizers import OPTIMIZERS
from lrscale.training.reduction import REDUCTIONS, STEP_DIVISORS
from lrscale.training.schedules import SCHEDULES, is_constant

BUDGETS: dict[str, dict[str, Rule]] = {
    "epochs": {"epochs": integer(1, 1_000_000)},
    "steps": {"steps": integer(1, 100_000_000)},
    "target": {"target": POSITIVE, "max_steps": integer(1, 100_000_000), "check_every": integer(1, 1_000_000)},
}
OBJECTIVE = one_of("excess_risk", "population_risk", "train_loss", "valid_loss", "valid_error", "steps_to_target")
FIELDS: dict[str, Rule] = {
    "batch_size": integer(1, 1_000_000),
    "accumulation": integer(1, 100_000),
    "drop_last": BOOLEAN,
    "objective": OBJECTIVE,
    "dtype": one_of("float32", "float64"),
    "points": integer(2, 250),
    "data_seeds": one_of("shared", "own"),
}
GROUPS: dict[str, Registry[Any]] = {"task": TASKS, "optimizer": OPTIMIZERS, "schedule": SCHEDULES, "probe": PROBES}
"""The groups whose choices (a task, an optimizer, a schedule, a probe) are declared beside their code."""
LATER = {"data_seeds": "shared"}
"""Keys that older records lack, with the values that stand for these records."""
KEYS = ("task", "optimizer", "schedule", "budget", "probe", "reduction", *FIELDS, "seeds")
"""The top-level keys of a config that describe a training."""
_MEGABYTES = integer(1, 1_000_000)
COMPUTE_RULES: dict[str, Rule] = {
    "threads": integer(1, 256),
    "memory_mb": Rule(f"{_MEGABYTES.text} or null", lambda v: v is None or _MEGABYTES.holds(v)),
    "device": one_of(*DEVICES),
    "tf32": BOOLEAN,
}
"""The keys of `compute`. They describe the machine and not the training."""
MOVED = {key: f"compute.{key}" for key in COMPUTE_RULES}
"""The present name of each key that older configs have at another place."""
MAX_SEEDS = 256
LR_ADVICE = "Tune it with optimizer.lr='tag(log,interval(1e-4,1))'."


def make_training(config: Mapping[str, Any]) -> Training:
    """Returns the training that a config describes.

    Args:
      config: plain values under exactly the keys of `KEYS`, as Hydra composes them; `schedule`, `probe` and `data_seeds` may be
        left out.
        Or, for a training script, under the keys `SCRIPT_KEYS`.

    Returns:
      A checked description of the training; equal configs give equal descriptions.

    Raises:
      Refusal: a value breaks its rule, a key is unknown or missing, or two values contradict each other.
    """
    if "script" in config:
        return script_training(config, seeds(config.get("seeds")))
    config = {"schedule": None, "probe": None, **LATER, **config}
    check_keys("config", config, dict.fromkeys(KEYS))
    check("reduction", one_of(*REDUCTIONS), config["reduction"])
    for name, rule in FIELDS.items():
        check(
            name, rule, config[name], f"To compare several: lrscale run -m {name}=a,b." if isinstance(config[name], list) else ""
        )
    task = _choice("task", config["task"])
    training = Training(
        task=task,
        optimizer=_optimizer(config["optimizer"]),
        budget=_budget(config["budget"]),
        probe=None if config["probe"] is None else _choice("probe", config["probe"]),
        schedule=None if config["schedule"] is None else _schedule(config["schedule"]),
        seeds=seeds(config["seeds"]),
        reduction=config["reduction"],
        examples=TASKS[task.name].examples(task.options),
        **{name: config[name] for name in FIELDS},
    )
    _check_together(training)
    return training


def make_compute(values: Mapping[str, Any]) -> Compute:
    """Returns the settings of the machine.

    Raises:
      Refusal: a value breaks its rule, or a key is unknown or missing.
    """
    check_keys("compute", values, COMPUTE_RULES)
    for key, rule in COMPUTE_RULES.items():
        check(f"compute.{key}", rule, values[key])
    if values["tf32"] and values["device"] not in ("auto", "cuda"):
        raise Refusal(f"`compute.tf32` true needs compute.device=cuda, got {values['device']}. Leave it out.")
    return Compute(**values)


def seeds(value: object) -> tuple[int, ...]:
    """Returns the seeds of a config. A count n stands for the seeds 0 to n-1; a list names the seeds.

    Raises:
      Refusal: the value is neither, or names a seed twice.
    """
    if is_integer(value) and isinstance(value, int) and 1 <= value <= MAX_SEEDS:
        return tuple(range(value))
    chosen = tuple(value) if isinstance(value, list | tuple) else ()
    if not 1 <= len(chosen) <= MAX_SEEDS or not all(is_integer(seed) and 0 <= seed < 2**31 for seed in chosen):
        rule = f"must be a count from 1 to {MAX_SEEDS} or a list of whole numbers >= 0"
        raise Refusal(f"`seeds` {rule}, got {value!r:.60}. Take seeds=8 or seeds=[3,14,15].")
    if len(set(chosen)) < len(chosen):
        raise Refusal(f"`seeds` must differ from each other, got {value!r:.60}. Take seeds=8 for seeds 0 to 7.")
    return chosen


def tunable(optimizers: Iterable[Mapping[str, Any]] = ()) -> dict[str, Rule]:
    """Returns the rule of each hyperparameter that can be tuned in an interval, by its dotted key.

    Args:
      optimizers: values under `optimizer` of some configs; the options of a user's own optimizer among them are added.
    """
    own = [own_options(values) for values in optimizers if is_own(values.get("name"))]
    known = [*own, *(OPTIMIZERS[name].options for name in OPTIMIZERS.names())]  # a rule of lrscale's own has precedence
    options = [pair for some in known for pair in some.items()]
    return {f"optimizer.{key}": option.rule for key, option in options if option.tunable}


def _choice(group: str, values: Any) -> Choice:
    registry = GROUPS[group]
    registry.check_choice(values.get("name") if isinstance(values, Mapping) else values)
    if not isinstance(values, Mapping) or not isinstance(values.get("name"), str) or values["name"] not in registry:
        got = values.get("name") if isinstance(values, Mapping) else values
        raise Refusal(f"`{group}.name` must be one of {', '.join(registry.names())}, got {got!r:.60}. Take {group}=NAME.")
    if registry.own is not None and is_own(values["name"]):
        return Choice(values["name"], registry.own.check(values))
    name, known = values["name"], registry[values["name"]].options
    options = {key: value for key, value in values.items() if key != "name"}
    check_keys(group, options, known)
    for key, option in known.items():
        check(f"{group}.{key}", option.rule, options[key])
    return Choice(name, options)


def _optimizer(values: Any) -> Choice:
    """Returns the chosen optimizer. A tunable option may be a list with one value per trial; the lr always becomes a tuple."""
    first = dict(values) if isinstance(values, Mapping) else values
    name = first.get("name") if isinstance(first, dict) else None
    known = OPTIMIZERS[name].options if isinstance(name, str) and name in OPTIMIZERS else {}
    if isinstance(first, dict) and is_own(name):
        known = own_options(first)
    lists: dict[str, tuple[float, ...]] = {}
    for key, option in known.items():
        value = first.get(key)
        if option.tunable and isinstance(value, list | tuple):
            if not value:
                raise Refusal(f"`optimizer.{key}` must not be an empty list. Give one value per trial.")
            for number in value:
                check(f"optimizer.{key}", option.rule, number, LR_ADVICE if key == "lr" else "")
            lists[key] = tuple(float(number) for number in value)
            first[key] = value[0]
    if "lr" in known and "lr" in first:
        check("optimizer.lr", known["lr"].rule, first["lr"], LR_ADVICE)
    chosen = _choice("optimizer", first)
    if len({len(values) for values in lists.values()}) > 1:
        lengths = ", ".join(f"optimizer.{key}: {len(values)}" for key, values in lists.items())
        raise Refusal(f"lists in `optimizer` must be equally long, one value per trial, got {lengths}.")
    trials = max((len(values) for values in lists.values()), default=1)
    lrs = (float(chosen.options["lr"]),) * trials
    return Choice(chosen.name, {**chosen.options, "lr": lrs, **lists})


def _schedule(values: Any) -> Choice | None:
    """Returns the chosen schedule; None where it keeps the lr constant."""
    chosen = _choice("schedule", values)
    return None if is_constant(values) else chosen


def _budget(values: Any) -> Choice:
    names = [name for name in BUDGETS if isinstance(values, Mapping) and values.get(name) is not None]
    if len(names) != 1:
        got = " and ".join(names) or "none"
        raise Refusal(
            f"`budget` must have exactly one of {', '.join(BUDGETS)}, got {got}. Take budget={names[0] if names else 'epochs'}."
        )
    options = {key: value for key, value in values.items() if value is not None}
    check_keys("budget", options, BUDGETS[names[0]])
    for key, rule in BUDGETS[names[0]].items():
        check(f"budget.{key}", rule, options[key])
    return Choice(names[0], options)


def _check_together(training: Training) -> None:
    """Raises Refusal where two values contradict each other. Tasks, optimizers and probes declare checks of their own."""
    task = training.task.name
    if is_own(task) and training.reduction not in STEP_DIVISORS:
        raise Refusal(
            f"`reduction` must be one of {', '.join(STEP_DIVISORS)} with a task of your own, got {training.reduction!r:.60}. "
            "Take reduction=sum."
        )
    if training.step_examples > training.examples:
        micro_batches = f" x accumulation={training.accumulation}" if training.accumulation > 1 else ""
        raise Refusal(
            f"`batch_size` must not exceed the {training.examples} training examples of {task}, "
            f"got batch_size={training.batch_size}{micro_batches}."
        )
    known = ", ".join(name for name in TASKS.names() if TASKS[name].is_least_squares)
    if training.objective in ("excess_risk", "population_risk") and not TASKS[task].is_least_squares:
        raise Refusal(
            f"`objective` {training.objective} needs a task whose optimum is known ({known}), got task {task}. "
            "Take objective=train_loss."
        )
    if training.data_seeds == "own" and not TASKS[task].is_least_squares:
        raise Refusal(
            f"`data_seeds` own needs a task whose data are drawn ({known}), got task {task}, whose data are fixed. "
            "Take data_seeds=shared."
        )
    if training.data_seeds == "own" and training.probe is not None:
        raise Refusal(
            f"`data_seeds` must be shared with a probe, got own with probe={training.probe.name}. Take data_seeds=shared."
        )
    if training.objective == "valid_error" and not TASKS[task].classes:
        raise Refusal(f"`objective` valid_error needs a task with classes, got task {task}. Take objective=valid_loss.")
    if (training.objective == "steps_to_target") != (training.budget.name == "target"):
        raise Refusal(
            f"`objective` steps_to_target and budget=target belong together, got objective {training.objective} "
            f"with budget {training.budget.name}. Take both or neither."
        )
    if training.schedule is not None:
        SCHEDULES[training.schedule.name].check(training)
    if training.probe is not None and training.schedule is not None:
        raise Refusal(
            f"`probe` {training.probe.name} measures at a constant lr, got schedule {training.schedule.name}. "
            "Take schedule=constant without a warm-up."
        )
    if training.probe is not None:
        probe = PROBES[training.probe.name]
        if is_own(task) and probe.measure_own is None:
            raise Refusal(f"`probe` {training.probe.name} needs a task that comes with lrscale, got {task:.200}.")
        probe.check(training)
    OPTIMIZERS[training.optimizer.name].check(training)
    TASKS[task].check(training)


def identity(config: Mapping[str, Any], nuisance: Iterable[str] = ()) -> str:
    """Returns the id of a cell: 12 hexadecimal digits, a hash of its config without the tuned hyperparameters.

    A constant lr is the same whether the config has a schedule or, as older ones, has none.

    Args:
      config: plain values, as `make_training` takes them.
      nuisance: dotted keys of the tuned hyperparameters, such as `optimizer.lr`.
    """
    is_script = "script" in config  # its numbers do not depend on the version of lrscale's
    keys = SCRIPT_KEYS if is_script else KEYS
    untuned = json.loads(json.dumps({key: config[key] for key in keys if config.get(key) is not None}))
    if is_constant(untuned.get("schedule")):
        del untuned["schedule"]
    for key in nuisance:
        group, _, name = key.partition(".")
        untuned[group].pop(name, None)
    for group, keys in (("task", OF_THE_RUN), ("optimizer", MEASURED_FACTS if is_own(untuned["optimizer"].get("name")) else ())):
        for key in keys:
            untuned[group].pop(key, None)
    text = json.dumps({"config": untuned, "numbers": 0 if is_script else NUMBERS}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def job_id(config: Mapping[str, Any]) -> str:
    """Returns a hash of the script's own config in the config of its cell: cells with equal hashes train the same."""
    text = json.dumps([config["task"], config["script"]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
