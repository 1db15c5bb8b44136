"""Compares a study with its reproduction: number by number, or by intervals and claims."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from lrscale.errors import Refusal

ROUNDING = 1e-6
"""Relative difference that rounding may make in a number without an interval, on another processor or version."""
NOT_NUMBERS = ("made_by", "command")
OUTCOMES = ("objective", "diverged", "value", "low", "high", "expected")
"""Columns of runs and quantities that were measured; the others name the row."""


class Difference(NamedTuple):
    """A number that is not the same; None where it is missing."""

    where: str
    published: str | None
    here: str | None


def numbers(files: Mapping[str, str]) -> dict[str, str]:
    """Every number in the files of a study, by where it stands, written to the last bit.

    Raises:
      Refusal: a file is not what it should be.
    """
    found: dict[str, str] = {}
    for name, text in files.items():
        try:
            found |= dict(_leaves("report", json.loads(text)) if name.endswith(".json") else _rows(text))
        except (ValueError, RecursionError, csv.Error) as error:
            raise Refusal(f"{name} must be a file that lrscale publish has written: {error!s:.200}") from None
    return found


def exact(published: Mapping[str, str], here: Mapping[str, str]) -> list[Difference]:
    """Numbers that are not equal, bit for bit."""
    every = dict.fromkeys([*published, *here])
    return [Difference(w, published.get(w), here.get(w)) for w in every if published.get(w) != here.get(w)]


def within(published: str, here: str) -> tuple[int, list[Difference]]:
    """How many estimates and claims two reports hold, and those that are not alike.

    Two estimates are alike where their intervals overlap, two claims where both hold or both fail.

    Args:
      published: a report as JSON.
      here: another one.

    Raises:
      Refusal: one of them is no report.
    """
    theirs, ours = _read(published), _read(here)
    every = dict.fromkeys([*theirs, *ours])
    unlike = [w for w in every if not (w in theirs and w in ours and _alike(theirs[w], ours[w]))]
    return len(every), [Difference(w, _text(theirs.get(w)), _text(ours.get(w))) for w in unlike]


def rounding(published: Mapping[str, str], here: Mapping[str, str]) -> list[Difference]:
    """Numbers that differ by more than rounding does."""
    return [
        d
        for d in exact(published, here)
        if d.published is None or d.here is None or not math.isclose(float(d.published), float(d.here), rel_tol=ROUNDING)
    ]


def _leaves(where: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key not in NOT_NUMBERS:
                yield from _leaves(f"{where} {key}", inner)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            named = [inner[key] for key in ("label", "name") if key in inner] if isinstance(inner, Mapping) else []
            yield from _leaves(f"{where} {i}{''.join(f' {name}' for name in named)}", inner)
    elif not isinstance(value, str):
        yield where, json.dumps(value)


def _rows(text: str) -> Iterator[tuple[str, str]]:
    reader = csv.DictReader(io.StringIO(text), strict=True)
    measured = [name for name in reader.fieldnames or () if name in OUTCOMES]
    for row in reader:
        if None in row or None in row.values():
            raise ValueError(f"line {reader.line_num} has another number of columns than the first")
        names = " ".join(value if key == "cell" else f"{key} {value}" for key, value in row.items() if key not in OUTCOMES)
        for key in measured:
            if row[key]:
                float(row[key])
            yield f"{names}: {key}", row[key]


Estimate = tuple[float, float] | bool | None


def _estimates(report: Mapping[str, Any]) -> Iterator[tuple[str, Estimate]]:
    for cell in report["cells"]:
        yield f"lr* of {cell['label']}", _ends(cell["lr_best_ci"])
    for ratio in report["ratios"]:
        yield f"slope of the ratio{_of(ratio)}", _ends(ratio["ci"])
    for slope in report["slopes"]:
        yield f"slope {slope['reduction']} {slope['range']}{_of(slope)}", _ends(slope["ci"])
    for turn in report["turn_over"]:
        yield f"turn-over{_of(turn)}", _ends(turn["ci"])
    for q in report.get("quantities", []):
        ends = [q["low"], q["high"]] if q["low"] is not None else sorted(q["value"] * (1 + s * ROUNDING) for s in (-1, 1))
        yield f"{q['name']} of {q['label']}", _ends(ends)
    for claim in report["claims"]:
        yield f"claim {claim['name']}", bool(claim["holds"])


def _read(report: str) -> dict[str, Estimate]:
    try:
        return dict(_estimates(json.loads(report)))
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        raise Refusal("report.json must be a report that lrscale publish has written.") from None


def _of(entry: Mapping[str, Any]) -> str:
    return "".join(f" {value}" for value in entry["of"].values())


def _ends(pair: Any) -> Estimate:
    return None if pair is None else (float(pair[0]), float(pair[1]))


def _alike(a: Estimate, b: Estimate) -> bool:
    if isinstance(a, tuple) and isinstance(b, tuple):
        return a[0] <= b[1] and b[0] <= a[1]
    return a == b


def _text(value: Estimate) -> str:
    if isinstance(value, tuple):
        return f"[{value[0]:.6g}, {value[1]:.6g}]"
    return "none" if value is None else "holds" if value else "fails"
