"""Rows as CSV: the report's cells and quantities, and the trials of a published study."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns rows as CSV: an interval in two columns, numbers to the last bit, nothing for None.

    Args:
      rows: plain values by column; a column ending in `_ci` holds [low, high] or None.

    Example:
      >>> print(as_csv([{"label": "sum b4", "lr_best": 0.5, "lr_best_ci": [0.25, 1.0]}]), end="")
      label,lr_best,lr_best_low,lr_best_high
      sum b4,0.5,0.25,1.0
    """
    flat = [{name: _text(inner) for key, value in row.items() for name, inner in _columns(key, value)} for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in flat for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _columns(key: str, value: Any) -> list[tuple[str, Any]]:
    if not key.endswith("_ci"):
        return [(key, value)]
    low, high = value or (None, None)
    name = key.removesuffix("_ci")
    return [(f"{name}_low", low), (f"{name}_high", high)]


def _text(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)
