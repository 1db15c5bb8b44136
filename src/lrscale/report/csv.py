"""Files that go with a study's report: the cells as CSV, the environment as YAML, the figure to point at as HTML."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from lrscale.mlflow_ui.notes import yaml
from lrscale.report.figures.interactive import page
from lrscale.study.answer import Answer


def attachments(found: Answer, cells: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The files by name; `cells`: the report's rows of cells, or of a probe's quantities."""
    files = {"cells.csv": as_csv(cells), "environment.yaml": yaml(found.study.made_by) + "\n"}
    return files | ({"interactive.html": page(found)} if found.families else {})


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV, an interval as two columns.

    Example:
      >>> print(as_csv([{"label": "sum b4", "lr_best": 0.5, "lr_best_ci": [0.25, 1.0]}]), end="")
      label,lr_best,lr_best_low,lr_best_high
      sum b4,0.5,0.25,1.0
    """
    flat = [dict(pair for key, value in row.items() for pair in _columns(key, value)) for row in rows]
    names = list(dict.fromkeys(name for row in flat for name in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return buffer.getvalue()


def _columns(key: str, value: Any) -> list[tuple[str, Any]]:
    if key.endswith("_ci"):
        low, high = value or (None, None)
        name = key.removesuffix("_ci")
        return [(f"{name}_low", low), (f"{name}_high", high)]
    return [(key, value)]
