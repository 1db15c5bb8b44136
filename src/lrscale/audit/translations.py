"""The `lrscale translate` lines of an audit: the lr that takes the same steps after the step is mended."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lrscale.audit.auditing import Auditing
from lrscale.audit.finding import Finding
from lrscale.law.homogeneity import RESPONSES

MENDED = {
    "sum": 1.0,
    "averaged twice": -1.0,
}
"""The kinds whose c depends on the number of examples n: its power."""


def with_translations(m: Auditing) -> list[Finding]:
    """Returns the findings, each with the command that translates the lr and its knobs to the mended step."""
    return [replace(finding, translate=_line(m, finding)) for finding in m.findings]


def _line(m: Auditing, finding: Finding) -> str | None:
    """Returns the command of one finding; None where nothing changes or the optimizer is not known."""
    c = _scale(m, finding)
    groups: list[Mapping[str, Any]] = m.numbers.get("groups", [])
    if c is None or not math.isfinite(c) or c <= 0 or abs(c - 1) < 1e-6:
        return None
    lines = []
    for group in groups:
        name = group["optimizer"].lower()
        if name in RESPONSES and group.get("lr"):
            lines.append(f"lrscale translate {' '.join(_knobs(m, name, group))} {_batches(m, finding, c)}")
    distinct = list(dict.fromkeys(lines))
    return " && ".join(distinct) or None


def _scale(m: Auditing, finding: Finding) -> float | None:
    """Returns what the gradient is multiplied by as the step is now, against the mended step; None where that is not known."""
    k = m.accumulation or 1
    if finding.kind in MENDED:
        factor = float(m.numbers.get("accumulation factor", 1.0))
        return math.pow(m.size * k, MENDED[finding.kind]) * factor
    if finding.kind in ("not divided", "grows with the window"):
        return float(k)
    if finding.kind in ("falls with the window", "accumulation factor"):
        return float(finding.numbers["accumulation factor"])
    if finding.kind == "c":
        return float(finding.numbers["c"]) if finding.numbers["apart"] <= m.accuracy else None
    if finding.kind.startswith("ranks") and not m.has("sum"):  # a mean in each rank mends both
        return float(finding.numbers.get("factor", 1.0))
    return None


def _batches(m: Auditing, finding: Finding, c: float) -> str:
    """Returns the options of the batch before and after."""
    size = m.size * (m.accumulation or 1)
    if finding.kind == "sum" and c == size:
        return f"--reduction sum --batch-size {size} --to-reduction mean"
    if finding.kind in ("not divided", "grows with the window"):
        return f"--batch-size {size} --accumulation {m.accumulation} --to-divided"
    return f"--reduction sum_over_nominal --terms {c:.6g} --batch-size {size} --to-reduction mean --to-terms 1"


def _knobs(m: Auditing, name: str, group: Mapping[str, Any]) -> list[str]:
    """Returns the options of the optimizer, its lr and its knobs."""
    response = RESPONSES[name]
    options = [f"--optimizer {name}", f"--lr {group['lr']:g}"]
    if group.get("momentum"):
        options.append(f"--momentum {group['momentum']:g}")
    if group.get("weight_decay"):
        options.append(f"--weight-decay {group['weight_decay']:g}")
    if group.get("eps") and response.eps:
        options.append(f"--eps {group['eps']:g}")
    if "clip threshold" in m.numbers and not m.has("clip before unscale"):
        options.append(f"--clip-norm {m.numbers['clip threshold']:.4g}")
    return options
