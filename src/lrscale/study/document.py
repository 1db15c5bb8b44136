"""The JSON document of a study: made from a StudyRecord, and read back into one with every value checked.

A document may come from a stranger. It holds only values and names, and none of them is run as code.
"""

import re
from collections.abc import Mapping
from typing import Any

from lrscale.errors import Refusal, masked_url
from lrscale.provenance import NUMBERS
from lrscale.rules import BOOLEAN, NOT_NEGATIVE, TEXT, Rule, check, check_keys, integer, is_number, one_of
from lrscale.spec import Compute
from lrscale.study.config import COMPUTE_RULES, KEYS, MOVED, OBJECTIVE, make_compute, tunable
from lrscale.study.plan import Cell, Plan, TunedInterval, has_value
from lrscale.study.records import StudyRecord
from lrscale.study.script import SCRIPT_OBJECTIVE
from lrscale.study.twins import COMPANIONS, with_twins
from lrscale.training.named_optimizer import optimizer_of

CELL_KEYS = ("id", "label", "scientific", "config")
LINE = Rule(
    "must be one line of at most 4000 printable characters", lambda v: isinstance(v, str) and len(v) <= 4000 and v.isprintable()
)
IDENTIFIER = Rule(
    "must be a name of 1 to 100 letters, digits and any of `. _ + -`",
    lambda v: isinstance(v, str) and bool(re.fullmatch(r"[\w.+-]{1,100}", v)),
)
LIST = Rule("must be a list", lambda v: isinstance(v, list))
NOT_EMPTY = Rule("must be a list that is not empty", lambda v: isinstance(v, list) and len(v) > 0)
OBJECT = Rule("must be an object", lambda v: isinstance(v, Mapping))
REQUIRED: dict[str, Rule] = {
    "study": TEXT,
    "question": Rule(f"{LINE.text}, or null", lambda v: v is None or LINE.holds(v)),
    "law": Rule(f"{LINE.text}, or null", lambda v: v is None or LINE.holds(v)),
    "objective": Rule(f"{OBJECTIVE.text} or {SCRIPT_OBJECTIVE}", lambda v: OBJECTIVE.holds(v) or v == SCRIPT_OBJECTIVE),
    "n_trials": integer(1, 100_000),
    "sampler": OBJECT,
    "intervals": OBJECT,
    "ranges": OBJECT,
    "claims": LIST,
    "cells": NOT_EMPTY,
    "made_by": OBJECT,
    "command": LINE,
}
OPTIONAL: dict[str, Rule] = {
    "storage": LINE,
    "compute": OBJECT,
    "companions": one_of(*COMPANIONS),
    "seconds": NOT_NEGATIVE,
    "published_from": LINE,
}


class OlderRecord(Refusal):
    """A record of an older version that is whole, but that this version cannot use."""


def document(study: StudyRecord) -> dict[str, Any]:
    """Returns the document of a study. It is enough to report on the study and to run it again."""
    plan = study.plan
    return {
        "study": plan.study,
        "question": plan.question,
        "law": plan.law,
        "objective": plan.objective,
        "n_trials": plan.n_trials,
        "sampler": dict(plan.sampler),
        "intervals": {name: [i.low, i.high, i.log] for name, i in plan.intervals.items()},
        "ranges": {name: list(ends) for name, ends in plan.ranges.items()},
        "claims": [dict(claim) for claim in plan.claims],
        "cells": [{"id": c.id, "label": c.label, "scientific": dict(c.scientific), "config": dict(c.config)} for c in plan.cells],
        "made_by": dict(study.made_by),
        "compute": study.compute._asdict(),
        "companions": plan.companions,
        "command": plan.command,
        **({} if study.storage is None else {"storage": masked_url(study.storage)}),
    }


COMPUTE_LATER = {"device": "cpu", "tf32": False}
"""Settings of the machine that older records lack, with the values that stand for these records."""


def read_document(values: object, run_id: str = "", experiment_id: str = "", status: str = "FINISHED") -> StudyRecord:
    """Returns the record of a study from its document.

    Args:
      values: plain values, as `document` makes them and JSON keeps them.
      run_id: the id of the MLflow run that holds the document; empty where no store holds it.
      experiment_id: the id of that run's experiment; empty where no store holds it.
      status: the status of that run.

    Raises:
      Refusal: a newer version wrote the document, or a value in it is not what `document` would write.
    """
    check("record", OBJECT, values)
    assert isinstance(values, Mapping)
    check("record.made_by", OBJECT, values.get("made_by"))
    check_maker(values["made_by"])
    check_keys("record", values, {**REQUIRED, **{key: rule for key, rule in OPTIONAL.items() if key in values}})
    for field, rule in (*REQUIRED.items(), *((key, OPTIONAL[key]) for key in OPTIONAL if key in values)):
        check(f"record.{field}", rule, values[field])
    check("record.study", LINE, values["study"])
    companions = values.get("companions", "as_given")  # as older versions did
    cells = tuple(_cell(f"record.cells[{i}]", cell, companions) for i, cell in enumerate(values["cells"]))
    rules = tunable(cell.config["optimizer"] for cell in cells)
    intervals = {name: _interval(name, ends, rules) for name, ends in values["intervals"].items()}
    if len({cell.id for cell in cells}) < len(cells) or len({cell.label for cell in cells}) < len(cells):
        raise Refusal("`record.cells` must differ from each other, but two of them have the same id or label.")
    plan = Plan(
        study=values["study"],
        cells=with_twins(cells, intervals, companions),
        intervals=intervals,
        sampler=values["sampler"],
        n_trials=values["n_trials"],
        question=values["question"],
        law=values["law"],
        ranges=values["ranges"],
        claims=values["claims"],
        command=values["command"],
        companions=companions,
    )
    return StudyRecord(
        plan=plan,
        made_by=values["made_by"],
        compute=make_compute({**COMPUTE_LATER, **values["compute"]})
        if "compute" in values
        else compute_of(values["cells"][0]["config"]),
        storage=values.get("storage"),
        run_id=run_id,
        experiment_id=experiment_id,
        status=status,
        seconds=float(values.get("seconds", 0)),
    )


def compute_of(config: Mapping[str, Any]) -> Compute:
    """Returns the settings of the machine from a training's config, where older versions kept them; the defaults elsewhere."""
    return make_compute({**Compute()._asdict(), **{key: config[key] for key in COMPUTE_RULES if key in config}})


def without_compute(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a training's config without the settings of the machine, which `compute_of` reads."""
    return {key: value for key, value in config.items() if key not in COMPUTE_RULES}


def check_maker(maker: Mapping[str, Any]) -> None:
    """Raises Refusal unless a record's `made_by` holds texts, and its `numbers` is at most that of this version."""
    for name, value in maker.items():
        check("record.made_by", IDENTIFIER, name)
        check(f"record.made_by.{name}", LINE, value)
    numbers = maker.get("numbers", "")
    if not re.fullmatch(r"[0-9]{1,9}", numbers):
        raise Refusal(f"`record.made_by.numbers` must be a whole number, got {numbers!r:.60}.")
    if int(numbers) > NUMBERS:
        raise Refusal(
            f"`record.made_by.numbers` must be at most {NUMBERS}, got {numbers}: a newer lrscale made it. Install that version."
        )


def _interval(name: str, ends: object, rules: Mapping[str, Rule]) -> TunedInterval:
    """Returns a tuned interval; raises Refusal unless it is [low, high, log] of a hyperparameter that can be tuned."""
    if name not in rules:
        raise Refusal(f"`record.intervals` must name only {', '.join(rules)}, got {name!r:.60}.")
    if not (isinstance(ends, list) and len(ends) == 3 and is_number(ends[0]) and is_number(ends[1]) and ends[0] < ends[1]):
        raise Refusal(f"`record.intervals.{name}` must be [low, high, log] with low < high, got {ends!r:.60}.")
    low, high, log = ends
    check(f"record.intervals.{name}", BOOLEAN, log)
    for end in (low, high):
        check(f"record.intervals.{name}", rules[name], end)
    if log and low <= 0:
        raise Refusal(f"`record.intervals.{name}` must be > 0 on a log scale, got {low}.")
    return TunedInterval(float(low), float(high), log)


def _cell(field: str, values: object, companions: str) -> Cell:
    """Returns a cell; raises Refusal unless its config can be used and its axis values agree with the config.

    Where `companions` are scaled, the value of such an axis is that of the cell's reference, and may differ.
    """
    check(field, OBJECT, values)
    assert isinstance(values, Mapping)
    check_keys(field, values, dict.fromkeys(CELL_KEYS))
    for key, rule in (("id", IDENTIFIER), ("label", LINE), ("scientific", OBJECT), ("config", OBJECT)):
        check(f"{field}.{key}", rule, values[key])
    config, scientific = without_compute(values["config"]), values["scientific"]
    cell = Cell(values["id"], values["label"], scientific, config)
    _ = cell.training  # raises Refusal where the config cannot be used
    for key, value in scientific.items():
        if cell.training.is_script:  # its axes have the script's own keys
            check(f"{field}.scientific", LINE, key)
            check(f"{field}.scientific.{key}", LINE, f"{value}")
            continue
        if key in MOVED:
            raise OlderRecord(
                f"a study that was swept over `{key}` must be read by the lrscale that made it, got {field}: "
                "settings of the machine no longer tell cells apart. Install that version to report it."
            )
        if key.partition(".")[0] not in KEYS:
            raise Refusal(f"`{field}.scientific.{key:.60}` is not known. Known: {', '.join(KEYS)}.")
        check(f"{field}.scientific", IDENTIFIER, key)
        if has_value(config, key):
            group, _, name = key.partition(".")
            may_differ = companions == "scaled" and name in optimizer_of(cell.training.optimizer).companions
            if (config[group][name] if name else config[group]) != value and not may_differ:
                raise Refusal(f"`{field}.scientific.{key}` must be what its config says, got {value!r:.60}.")
        else:
            check(f"{field}.scientific.{key}", IDENTIFIER, value)
        check(f"{field}.scientific.{key}", LINE, f"{value}")
    return cell
