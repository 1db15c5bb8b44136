"""Writes rows as CSV: the cells and quantities of a report, and the trials of a published study."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns rows as CSV. An interval takes two columns, a number keeps every digit, and None is an empty field.

    Args:
      rows: the values of each row, by column; a column whose name ends in `_ci` holds [low, high] or None.

    Example:
      >>> print(as_csv([{"label": "sum b4", "lr_best": 0.5, "lr_best_ci": [0.25, 1.0]}]), end="")
      label,lr_best,lr_best_low,lr_best_high
      sum b4,0.5,0.25,1.0
    """
    flat_rows = [{name: _text(part) for name, part in flat(row).items()} for row in rows]
    output = io.StringIO()
    writer = csv.DictWriter(output, list(dict.fromkeys(name for row in flat_rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat_rows)
    return output.getvalue()


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a row in which an interval takes two columns.

    Example:
      >>> flat({"lr_best": 0.5, "lr_best_ci": [0.25, 1.0]})
      {'lr_best': 0.5, 'lr_best_low': 0.25, 'lr_best_high': 1.0}
    """
    return {name: part for key, value in row.items() for name, part in _columns(key, value)}


def _columns(key: str, value: Any) -> list[tuple[str, Any]]:
    """Returns the names and values of the columns that a value takes: two for an interval, else one."""
    if not key.endswith("_ci"):
        return [(key, value)]
    low, high = value or (None, None)
    name = key.removesuffix("_ci")
    return [(f"{name}_low", low), (f"{name}_high", high)]


def _text(value: Any) -> str:
    """Returns the text of one field."""
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)
