"""Compares a published study with its reproduction: number by number, or by intervals and claims."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from lrscale.errors import Refusal
from lrscale.study.verdict import FAILS, HOLDS

ROUNDING = 1e-6
"""Relative difference that rounding may cause in a number without an interval, on another processor or version."""
NOT_NUMBERS = ("made_by", "command", "left_out")
"""Keys of a report that are not compared, because they hold no numbers of the study."""
OUTCOMES = ("objective", "diverged", "value", "low", "high", "expected")
"""Columns of a CSV file that hold measured numbers. The other columns identify the row."""


class Difference(NamedTuple):
    """A number that differs. `where` says where it stands; `published` and `here` are its texts, None where it is missing."""

    where: str
    published: str | None
    here: str | None


def numbers(files: Mapping[str, str]) -> dict[str, str]:
    """Returns every number in the files of a study, as exact text, by the place where it stands.

    Args:
      files: the texts of JSON and CSV files, by file name.

    Returns:
      Texts by place, as in `{"report cells 0 sum b4 lr_best": "0.1"}`. The texts keep every bit of the numbers.

    Raises:
      Refusal: a file is not as `lrscale publish` writes it.
    """
    by_place: dict[str, str] = {}
    for name, text in files.items():
        try:
            by_place |= dict(_report_numbers("report", json.loads(text)) if name.endswith(".json") else _csv_numbers(text))
        except (ValueError, RecursionError, csv.Error) as error:
            raise Refusal(f"{name} must be a file that lrscale publish has written: {error!s:.200}") from None
    return by_place


def exact(published: Mapping[str, str], here: Mapping[str, str]) -> list[Difference]:
    """Returns the numbers that are not equal bit for bit.

    Args:
      published: the published numbers, as `numbers` returns them.
      here: the numbers of the reproduction on this machine.
    """
    places = dict.fromkeys([*published, *here])
    return [
        Difference(place, published.get(place), here.get(place)) for place in places if published.get(place) != here.get(place)
    ]


def within(published: str, here: str) -> tuple[int, list[Difference]]:
    """Compares the estimates and the claims of two reports.

    Two estimates agree where their intervals overlap. Two claims agree where their verdicts are the same.

    Args:
      published: the published report, as JSON text.
      here: the report of the reproduction, as JSON text.

    Returns:
      The number of estimates and claims, and those that do not agree.

    Raises:
      Refusal: one of the texts is not a report.
    """
    theirs, ours = _read_estimates(published), _read_estimates(here)
    places = dict.fromkeys([*theirs, *ours])
    differing = [p for p in places if not (p in theirs and p in ours and _agree(theirs[p], ours[p]))]
    return len(places), [Difference(p, _estimate_text(theirs.get(p)), _estimate_text(ours.get(p))) for p in differing]


def rounding(published: Mapping[str, str], here: Mapping[str, str]) -> list[Difference]:
    """Returns the numbers that differ by more than ROUNDING, or that are missing on one side.

    Args:
      published: the published numbers, as `numbers` returns them.
      here: the numbers of the reproduction on this machine.
    """
    return [
        d
        for d in exact(published, here)
        if d.published is None or d.here is None or not math.isclose(float(d.published), float(d.here), rel_tol=ROUNDING)
    ]


def _report_numbers(place: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yields every value inside a JSON value that is not a text, with its place."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key not in NOT_NUMBERS:
                yield from _report_numbers(f"{place} {key}", inner)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            labels = [inner[key] for key in ("label", "name") if key in inner] if isinstance(inner, Mapping) else []
            yield from _report_numbers(f"{place} {i}{''.join(f' {label}' for label in labels)}", inner)
    elif not isinstance(value, str):
        yield place, json.dumps(value)


def _csv_numbers(text: str) -> Iterator[tuple[str, str]]:
    """Yields every measured number of a CSV file, with its place; raises ValueError where the file is damaged."""
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


Estimate = tuple[float, float] | str | None
"""The ends of an interval, or the verdict on a claim, or None where nothing could be estimated."""


def verdict_of(claim: Mapping[str, Any]) -> str:
    """Returns the verdict on a claim in a report. A report made before there were three verdicts tells only whether it holds."""
    return str(claim["verdict"]) if "verdict" in claim else HOLDS if claim["holds"] else FAILS


def _estimates(report: Mapping[str, Any]) -> Iterator[tuple[str, Estimate]]:
    """Yields the estimates and the claims of a report, by name. A quantity without an interval gets value * (1 ± ROUNDING)."""
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
        yield f"claim {claim['name']}", verdict_of(claim)


def _read_estimates(report: str) -> dict[str, Estimate]:
    try:
        return dict(_estimates(json.loads(report)))
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        raise Refusal("report.json must be a report that lrscale publish has written.") from None


def _of(entry: Mapping[str, Any]) -> str:
    """Returns the axis values that identify a family of cells, as a suffix of a name."""
    return "".join(f" {value}" for value in entry["of"].values())


def _ends(pair: Any) -> Estimate:
    return None if pair is None else (float(pair[0]), float(pair[1]))


def _agree(a: Estimate, b: Estimate) -> bool:
    if isinstance(a, tuple) and isinstance(b, tuple):
        return a[0] <= b[1] and b[0] <= a[1]
    return a == b


def _estimate_text(value: Estimate) -> str:
    if isinstance(value, tuple):
        return f"[{value[0]:.6g}, {value[1]:.6g}]"
    return "none" if value is None else value
