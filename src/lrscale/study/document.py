"""A study's document: what its run keeps of its plan, and the plan that is made from it again.

A document may be a stranger's. It holds values and names only, every one of them is checked, and none is run.
"""

import re
from collections.abc import Mapping
from typing import Any

from lrscale import NUMBERS
from lrscale.errors import Refusal
from lrscale.provenance import made_by
from lrscale.rules import BOOLEAN, TEXT, Rule, check, check_keys, integer, is_number
from lrscale.spec import FIELDS, TUNED, identity, training
from lrscale.spec import KEYS as TOP_LEVEL
from lrscale.study.plan import Cell, Interval, Plan, cell_label, has

KEYS = (
    "study", "question", "law", "objective", "n_trials", "sampler", "intervals",
    "ranges", "claims", "cells", "made_by", "command",
)  # fmt: skip
CELL_KEYS = ("id", "label", "scientific", "config")
LINE = Rule(
    "must be one line of at most 4000 printable characters", lambda v: isinstance(v, str) and len(v) <= 4000 and v.isprintable()
)
NAME = Rule(
    "must be a name of 1 to 100 letters, digits and any of `. _ + -`",
    lambda v: isinstance(v, str) and bool(re.fullmatch(r"[\w.+-]{1,100}", v)),
)
LIST = Rule("must be a list that is not empty", lambda v: isinstance(v, list) and len(v) > 0)
STRING = Rule("must be a text", lambda v: isinstance(v, str))
OBJECT = Rule("must be an object", lambda v: isinstance(v, Mapping))


def document(plan: Plan) -> dict[str, Any]:
    """What a study's run keeps of its plan: enough to report on it, and to run it again."""
    return {
        "study": plan.study,
        "question": plan.question,
        "law": plan.law,
        "objective": plan.cells[0].config["objective"],
        "n_trials": plan.n_trials,
        "sampler": dict(plan.sampler),
        "intervals": {name: [i.low, i.high, i.log] for name, i in plan.intervals.items()},
        "ranges": {name: list(ends) for name, ends in plan.ranges.items()},
        "claims": [dict(claim) for claim in plan.claims],
        "cells": [{"id": c.id, "label": c.label, "scientific": dict(c.scientific), "config": dict(c.config)} for c in plan.cells],
        "made_by": made_by(),
        "command": plan.command,
        "storage": plan.storage,
    }


def plan_of(given: object, uri: str, storage: str) -> Plan:
    """Makes the plan that a document states, for stores of its own.

    Args:
      given: plain values, as `document` makes them and JSON keeps them.
      uri: MLflow's store.
      storage: Optuna's.

    Raises:
      Refusal: the document is of a newer version, or a value in it is not what `document` would write.
    """
    check("record", OBJECT, given)
    assert isinstance(given, Mapping)
    check("record.made_by", OBJECT, given.get("made_by"))
    check_maker(given["made_by"])
    check_keys("record", given, dict.fromkeys(KEYS))
    check("record.study", TEXT, given["study"])
    for field in ("study", "command", *(key for key in ("question", "law") if given[key] is not None)):
        check(f"record.{field}", LINE, given[field])
    check("record.n_trials", integer(1, 100_000), given["n_trials"])
    for field in ("sampler", "intervals", "ranges"):
        check(f"record.{field}", OBJECT, given[field])
    check("record.cells", LIST, given["cells"])
    if not isinstance(given["claims"], list):
        raise Refusal(f"`record.claims` must be a list, got {given['claims']!r:.60}.")
    intervals = {name: _interval(name, ends) for name, ends in given["intervals"].items()}
    cells = tuple(_cell(f"record.cells[{i}]", cell, tuple(intervals)) for i, cell in enumerate(given["cells"]))
    if len({cell.id for cell in cells}) < len(cells) or len({cell.label for cell in cells}) < len(cells):
        raise Refusal("`record.cells` must differ from each other, and two of them do not.")
    return Plan(
        study=given["study"],
        cells=cells,
        intervals=intervals,
        sampler=given["sampler"],
        n_trials=given["n_trials"],
        n_jobs=1,
        max_failure_rate=0.0,
        storage=storage,
        tracking={"uri": uri},
        question=given["question"],
        ranges=given["ranges"],
        claims=given["claims"],
        command=given["command"],
        profile=False,
        law=given["law"],
    )


def check_record(given: object) -> None:
    """Raises Refusal unless a study's document holds what a report is made from; its claims and configs are checked there."""
    check("record", OBJECT, given)
    assert isinstance(given, Mapping)
    for field in ("made_by", "ranges"):
        check(f"record.{field}", OBJECT, given.get(field))
    check_maker(given["made_by"])
    check("record.objective", FIELDS["objective"], given.get("objective"))
    check("record.n_trials", integer(1, 100_000), given.get("n_trials"))
    for field in ("study", "command", *(key for key in ("question", "law") if given.get(key) is not None)):
        check(f"record.{field}", STRING, given.get(field))
    for field, rule in (("cells", LIST), ("claims", Rule("must be a list", lambda v: isinstance(v, list)))):
        check(f"record.{field}", rule, given.get(field))
    for i, cell in enumerate(given["cells"]):
        check(f"record.cells[{i}]", OBJECT, cell)
        for field, rule in (("id", STRING), ("label", STRING), ("scientific", OBJECT), ("config", OBJECT)):
            check(f"record.cells[{i}].{field}", rule, cell.get(field))


def check_maker(maker: Mapping[str, Any]) -> None:
    """Raises Refusal unless a record's `made_by` holds texts, and numbers of this version or an older one."""
    for name, value in maker.items():
        check("record.made_by", NAME, name)
        check(f"record.made_by.{name}", LINE, value)
    numbers = maker.get("numbers", "")
    if not re.fullmatch(r"[0-9]{1,9}", numbers):
        raise Refusal(f"`record.made_by.numbers` must be a whole number, got {numbers!r:.60}.")
    if int(numbers) > NUMBERS:
        raise Refusal(
            f"`record.made_by.numbers` must be at most {NUMBERS}, got {numbers}: a newer lrscale made it. Install that version."
        )


def _interval(name: str, ends: object) -> Interval:
    if name not in TUNED:
        raise Refusal(f"`record.intervals` must be of {', '.join(TUNED)}, got {name!r:.60}.")
    if not (isinstance(ends, list) and len(ends) == 3 and is_number(ends[0]) and is_number(ends[1]) and ends[0] < ends[1]):
        raise Refusal(f"`record.intervals.{name}` must be [low, high, log] with low < high, got {ends!r:.60}.")
    low, high, log = ends
    check(f"record.intervals.{name}", BOOLEAN, log)
    for end in (low, high):
        check(f"record.intervals.{name}", TUNED[name], end)
    if log and low <= 0:
        raise Refusal(f"`record.intervals.{name}` must be > 0 on a log scale, got {low}.")
    return Interval(float(low), float(high), log)


def _cell(field: str, given: object, tuned: tuple[str, ...]) -> Cell:
    check(field, OBJECT, given)
    assert isinstance(given, Mapping)
    check_keys(field, given, dict.fromkeys(CELL_KEYS))
    for key in ("scientific", "config"):
        check(f"{field}.{key}", OBJECT, given[key])
    config, scientific = given["config"], given["scientific"]
    training(config)
    for key, value in scientific.items():
        if key.partition(".")[0] not in TOP_LEVEL:
            raise Refusal(f"`{field}.scientific.{key:.60}` is not known. Known: {', '.join(TOP_LEVEL)}.")
        check(f"{field}.scientific", NAME, key)
        if has(config, key):
            group, _, name = key.partition(".")
            if (config[group][name] if name else config[group]) != value:
                raise Refusal(f"`{field}.scientific.{key}` must be what its config says, got {value!r:.60}.")
        else:
            check(f"{field}.scientific.{key}", NAME, value)
        check(f"{field}.scientific.{key}", LINE, f"{value}")
    return Cell(identity(config, tuned), cell_label(scientific), scientific, config, (), {})
