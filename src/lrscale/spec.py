"""What one training is: a frozen description, checked once, when it is made from a config."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lrscale import NUMBERS
from lrscale.errors import Refusal
from lrscale.rules import (
    BETAS,
    BOOLEAN,
    FRACTION,
    NOT_NEGATIVE,
    POSITIVE,
    TEXT,
    Rule,
    check,
    check_keys,
    integer,
    is_integer,
    is_number,
    one_of,
)

MODELS = one_of("softmax", "mlp")
TASKS: dict[str, dict[str, Rule]] = {
    "d2l": {},
    "linear": {
        "features": integer(1, 10_000),
        "examples": integer(2, 1_000_000),
        "spectrum": one_of("isotropic", "power_law"),
        "exponent": POSITIVE,
        "noise": NOT_NEGATIVE,
        "bias": BOOLEAN,
    },
    "digits": {"model": MODELS, "hidden": integer(1, 10_000)},
    "fashion_mnist": {"model": MODELS, "hidden": integer(1, 10_000), "examples": integer(2, 60_000), "root": TEXT},
}
LEAST_SQUARES = ("d2l", "linear")
FIXED_EXAMPLES = {"d2l": 1000, "digits": 1437}

OPTIMIZERS: dict[str, dict[str, Rule]] = {
    "sgd": {
        "lr": POSITIVE,
        "momentum": FRACTION,
        "dampening": FRACTION,
        "weight_decay": NOT_NEGATIVE,
        "nesterov": BOOLEAN,
    },
    "adam": {"lr": POSITIVE, "betas": BETAS, "eps": NOT_NEGATIVE, "weight_decay": NOT_NEGATIVE, "amsgrad": BOOLEAN},
    "adamw": {"lr": POSITIVE, "betas": BETAS, "eps": NOT_NEGATIVE, "weight_decay": NOT_NEGATIVE, "amsgrad": BOOLEAN},
    "rmsprop": {
        "lr": POSITIVE,
        "alpha": FRACTION,
        "eps": NOT_NEGATIVE,
        "weight_decay": NOT_NEGATIVE,
        "momentum": FRACTION,
        "centered": BOOLEAN,
    },
    "adagrad": {
        "lr": POSITIVE,
        "lr_decay": NOT_NEGATIVE,
        "weight_decay": NOT_NEGATIVE,
        "initial_accumulator_value": NOT_NEGATIVE,
        "eps": NOT_NEGATIVE,
    },
}
TUNABLE = (POSITIVE, NOT_NEGATIVE, FRACTION)
"""Hyperparameters under these rules may be lists, one value a trial."""
TUNED = {f"optimizer.{key}": rule for rules in OPTIMIZERS.values() for key, rule in rules.items() if rule in TUNABLE}
"""What can be tuned, by its dotted key, with its rule."""

BUDGETS: dict[str, dict[str, Rule]] = {
    "epochs": {"epochs": integer(1, 1_000_000)},
    "steps": {"steps": integer(1, 100_000_000)},
    "target": {"target": POSITIVE, "max_steps": integer(1, 100_000_000), "check_every": integer(1, 1_000_000)},
}
OPTIMIZERS_OF_TORCH = (
    *("adadelta", "adafactor", "adagrad", "adam", "adamax", "adamw", "asgd", "lbfgs"),
    *("muon", "nadam", "radam", "rmsprop", "rprop", "sgd"),
)
"""Those that take dense gradients."""
TRANSLATED = (
    *("sgd", "momentum", "nesterov", "asgd", "adam", "adamw"),
    *("nadam", "adamax", "rmsprop", "adagrad", "rprop", "muon"),
)
PROBES: dict[str, dict[str, Rule]] = {
    "gradient_scale": {"loss": one_of("plain", "outputs", "ignored", "weighted"), "ranks": integer(1, 16)},
    "homogeneity": {"optimizer": one_of(*OPTIMIZERS_OF_TORCH, "clipped_sgd"), "size": POSITIVE},
    "last_batch": {"lr": POSITIVE},
    "translate": {"optimizer": one_of(*TRANSLATED)},
    "noise_scale": {
        "fraction": Rule("must be from 0 to 1", lambda v: is_number(v) and 0 <= v <= 1),
        "small": integer(1, 100_000),
        "big": integer(2, 1_000_000),
        "pairs": integer(2, 100_000),
        "steps": integer(1, 100_000),
    },
    "stability": {"examples": integer(1000, 10**9), "momentum": FRACTION},
}
"""Options of each probe in `lrscale.probes`."""
FIELDS: dict[str, Rule] = {
    "reduction": one_of("mean", "sum", "sum_over_nominal"),
    "batch_size": integer(1, 1_000_000),
    "accumulation": integer(1, 100_000),
    "drop_last": BOOLEAN,
    "objective": one_of("excess_risk", "train_loss", "valid_loss", "valid_error", "steps_to_target"),
    "dtype": one_of("float32", "float64"),
    "points": integer(2, 250),
    "threads": integer(1, 256),
    "memory_mb": integer(1, 1_000_000),
}
KEYS = ("task", "optimizer", "budget", "probe", *FIELDS, "seeds")
"""The top-level keys of a config that describe a training."""

MAX_SEEDS = 256
LR_ADVICE = "Tune it with optimizer.lr='tag(log,interval(1e-4,1))'."


@dataclass(frozen=True)
class Choice:
    """A name out of a table, with its options."""

    name: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Training:
    """One or more runs that differ only in their tuned hyperparameters and seeds.

    `optimizer.options["lr"]` is a tuple with one value a trial, and so is every other
    hyperparameter that is tuned. `probe` is what is measured in place of training, None for a training.
    Made by `training`, which checks every value.
    """

    task: Choice
    optimizer: Choice
    budget: Choice
    probe: Choice | None
    seeds: tuple[int, ...]
    reduction: str
    batch_size: int
    accumulation: int
    drop_last: bool
    objective: str
    dtype: str
    points: int
    threads: int
    memory_mb: int

    @property
    def examples(self) -> int:
        """Number of training examples, N."""
        return int(self.task.options.get("examples") or FIXED_EXAMPLES[self.task.name])

    @property
    def step_examples(self) -> int:
        """Examples that a full step consumes: accumulation x batch size."""
        return self.accumulation * self.batch_size

    @property
    def steps_per_epoch(self) -> int:
        whole, rest = divmod(self.examples, self.step_examples)
        return whole + (rest > 0 and not self.drop_last)

    @property
    def steps(self) -> int:
        """Steps that are run at the most."""
        options = self.budget.options
        if self.budget.name == "epochs":
            return int(options["epochs"]) * self.steps_per_epoch
        return int(options["steps" if self.budget.name == "steps" else "max_steps"])

    @property
    def trials(self) -> int:
        """Number of trials: one for each lr."""
        return len(self.optimizer.options["lr"])


def training(config: Mapping[str, Any]) -> Training:
    """Makes the description that a config states.

    Args:
      config: plain values under exactly the keys of `KEYS`, as Hydra composes them; `probe` may be left out.

    Returns:
      A checked description; equal configs give equal descriptions.

    Raises:
      Refusal: a value breaks its rule, a key is unknown or missing, or two values contradict.
    """
    config = {"probe": None, **config}
    check_keys("config", config, dict.fromkeys(KEYS))
    fields = {name: config[name] for name in FIELDS}
    for name, rule in FIELDS.items():
        check(name, rule, fields[name])
    made = Training(
        task=_choice("task", config["task"], TASKS),
        optimizer=_optimizer(config["optimizer"]),
        budget=_budget(config["budget"]),
        probe=None if config["probe"] is None else _choice("probe", config["probe"], PROBES),
        seeds=seeds(config["seeds"]),
        **fields,
    )
    _check_together(made)
    return made


def seeds(value: object) -> tuple[int, ...]:
    """Returns the seeds that a count (0 to count-1) or a list names."""
    if is_integer(value) and isinstance(value, int) and 1 <= value <= MAX_SEEDS:
        return tuple(range(value))
    chosen = tuple(value) if isinstance(value, list | tuple) else ()
    if not 1 <= len(chosen) <= MAX_SEEDS or not all(is_integer(seed) and 0 <= seed < 2**31 for seed in chosen):
        rule = f"must be a count from 1 to {MAX_SEEDS} or a list of whole numbers >= 0"
        raise Refusal(f"`seeds` {rule}, got {value!r:.60}. Take seeds=8 or seeds=[3,14,15].")
    if len(set(chosen)) < len(chosen):
        raise Refusal(f"`seeds` must differ from each other, got {value!r:.60}. Take seeds=8 for seeds 0 to 7.")
    return chosen


def _choice(field: str, given: Any, table: Mapping[str, Mapping[str, Rule]]) -> Choice:
    if not isinstance(given, Mapping) or not isinstance(given.get("name"), str) or given["name"] not in table:
        got = given.get("name") if isinstance(given, Mapping) else given
        raise Refusal(f"`{field}.name` must be one of {', '.join(table)}, got {got!r:.60}. Take {field}=NAME.")
    name, rules = given["name"], table[given["name"]]
    options = {key: value for key, value in given.items() if key != "name"}
    check_keys(field, options, rules)
    for key, rule in rules.items():
        check(f"{field}.{key}", rule, options[key])
    return Choice(name, options)


def _optimizer(given: Any) -> Choice:
    first = dict(given) if isinstance(given, Mapping) else given
    lists: dict[str, tuple[float, ...]] = {}
    name = first.get("name") if isinstance(first, dict) else None
    rules = OPTIMIZERS.get(name, {}) if isinstance(name, str) else {}
    for key, rule in rules.items():
        value = first.get(key)
        if rule in TUNABLE and isinstance(value, list | tuple):
            if not value:
                raise Refusal(f"`optimizer.{key}` must not be an empty list. Give one value a trial.")
            for one in value:
                check(f"optimizer.{key}", rule, one, LR_ADVICE if key == "lr" else "")
            lists[key] = tuple(float(one) for one in value)
            first[key] = value[0]
    if "lr" in rules and "lr" in first:
        check("optimizer.lr", rules["lr"], first["lr"], LR_ADVICE)
    chosen = _choice("optimizer", first, OPTIMIZERS)
    if len({len(values) for values in lists.values()}) > 1:
        lengths = ", ".join(f"optimizer.{key}: {len(values)}" for key, values in lists.items())
        raise Refusal(f"lists in `optimizer` must be equally long, one value a trial, got {lengths}.")
    trials = max((len(values) for values in lists.values()), default=1)
    lrs = (float(chosen.options["lr"]),) * trials
    return Choice(chosen.name, {**chosen.options, "lr": lrs, **lists})


def _budget(given: Any) -> Choice:
    named = [name for name in BUDGETS if isinstance(given, Mapping) and given.get(name) is not None]
    if len(named) != 1:
        got = " and ".join(named) or "none"
        raise Refusal(
            f"`budget` must have exactly one of {', '.join(BUDGETS)}, got {got}. Take budget={named[0] if named else 'epochs'}."
        )
    options = {key: value for key, value in given.items() if value is not None}
    check_keys("budget", options, BUDGETS[named[0]])
    for key, rule in BUDGETS[named[0]].items():
        check(f"budget.{key}", rule, options[key])
    return Choice(named[0], options)


def _check_together(made: Training) -> None:
    if made.step_examples > made.examples:
        size = f"batch_size={made.batch_size}" + (f" x accumulation={made.accumulation}" if made.accumulation > 1 else "")
        raise Refusal(f"`batch_size` must not exceed the {made.examples} training examples of {made.task.name}, got {size}.")
    if made.objective == "excess_risk" and made.task.name not in LEAST_SQUARES:
        raise Refusal(
            f"`objective` excess_risk needs a task whose optimum is known ({', '.join(LEAST_SQUARES)}), "
            f"got task {made.task.name}. Take objective=train_loss."
        )
    if made.objective == "valid_error" and made.task.name in LEAST_SQUARES:
        raise Refusal(f"`objective` valid_error needs a task with classes, got task {made.task.name}. Take objective=valid_loss.")
    if (made.objective == "steps_to_target") != (made.budget.name == "target"):
        raise Refusal(
            f"`objective` steps_to_target and budget=target belong together, got objective {made.objective} "
            f"with budget {made.budget.name}. Take both or neither."
        )
    if made.probe is not None:
        _check_probe(made, made.probe)
    options = made.optimizer.options
    if options.get("nesterov") and (options["momentum"] == 0 or options["dampening"] != 0):
        raise Refusal(
            "`optimizer.nesterov` true needs momentum > 0 and dampening 0, got "
            f"momentum {options['momentum']!r:.60}, dampening {options['dampening']!r:.60}."
        )


def _check_probe(made: Training, probe: Choice) -> None:
    if probe.name == "stability" and made.task.name not in LEAST_SQUARES:
        raise Refusal(
            f"`probe` stability needs least squares ({', '.join(LEAST_SQUARES)}), got task {made.task.name}. Take task=linear."
        )
    if probe.name == "noise_scale" and probe.options["small"] >= probe.options["big"]:
        raise Refusal(
            f"`probe.small` must be below probe.big = {probe.options['big']}, got {probe.options['small']}. Take 16 and 1024."
        )
    options = made.optimizer.options
    if probe.name == "last_batch" and (
        made.task.name not in LEAST_SQUARES
        or (made.optimizer.name, options.get("momentum"), options["weight_decay"], made.accumulation) != ("sgd", 0, 0, 1)
    ):
        raise Refusal(
            "`probe` last_batch needs least squares and plain SGD, no momentum, decay or accumulation, "
            f"got task {made.task.name}, optimizer {made.optimizer.name}. Take task=linear optimizer=sgd."
        )
    if probe.name == "gradient_scale" and made.task.name in LEAST_SQUARES:
        raise Refusal(f"`probe` gradient_scale needs a task with classes, got task {made.task.name}. Take task=digits.")
    if probe.name == "gradient_scale" and probe.options["ranks"] * made.step_examples > made.examples:
        raise Refusal(
            f"`probe.ranks` x accumulation x batch_size must not exceed the {made.examples} training examples, "
            f"got {probe.options['ranks']} x {made.step_examples}. Take fewer."
        )


def identity(config: Mapping[str, Any], nuisance: tuple[str, ...] = ()) -> str:
    """Returns 12 hexadecimal digits that name a cell: its config without what is tuned in it.

    Args:
      config: as `training` takes it.
      nuisance: dotted keys that are tuned, such as `optimizer.lr`.
    """
    bare = json.loads(json.dumps({key: config[key] for key in KEYS if config.get(key) is not None}))
    for key in nuisance:
        group, _, name = key.partition(".")
        bare[group].pop(name, None)
    text = json.dumps({"config": bare, "numbers": NUMBERS}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
