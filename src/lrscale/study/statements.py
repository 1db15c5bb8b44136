"""The answer of a study in sentences, with numbers and intervals: the first thing that terminal, page and notes say."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from lrscale.estimate.best_lr import pooled_slope
from lrscale.study.answer import Answer, family_laws
from lrscale.study.claims import Verdict, selected, verdicts
from lrscale.study.wording import put

STATED = 4
"""So many of a probe's claims are stated with their numbers, and besides them slopes and what fails."""


def laws(found: Answer) -> list[str]:
    """The answer: the families' laws, or what a probe's claims say with what was measured."""
    if found.families:
        return family_laws(found.families)
    checked = verdicts(found)
    claims = {claim["name"]: claim for claim in found.study.claims}
    stated = [
        _statement(found, claims[v.name], v)
        for i, v in enumerate(checked)
        if i < STATED or not v.holds or claims[v.name]["measure"] == "slope_of"
    ]
    cells = len({m.cell.id for m in found.measurements})
    held = f"{sum(v.holds for v in checked)} of {len(checked)} claims hold, over {cells} cells"
    return [". ".join([*(text[0].upper() + text[1:] for text in stated), held]) + "."]


def _statement(found: Answer, claim: Mapping[str, Any], verdict: Verdict) -> str:
    """A claim with what was measured, and how that goes with what is expected, where that spreads over a factor of two."""
    said = asdict(verdict) | {"ci": verdict.interval and (verdict.interval.low, verdict.interval.high)}
    slope = _against_expected(found, claim) if claim["measure"] == "log_deviation" else ""
    of = f"{claim['quantity']} " if claim["measure"] == "deviation" else ""
    return f"{verdict.name}: {of}{put(claim['measure'], said)}{slope}{'' if verdict.holds else ' (FAILS)'}"


def _against_expected(found: Answer, claim: Mapping[str, Any]) -> str:
    pairs = [(q.expected, q.value) for _, q in selected(found, claim) if q.expected is not None and q.expected > 0 < q.value]
    if len(pairs) < 3 or max(e for e, _ in pairs) < 2 * min(e for e, _ in pairs):
        return ""
    expected, measured = np.log(np.array(pairs)).T
    slope = pooled_slope(expected, measured, [""] * len(pairs))
    return "" if slope is None else f", measured = expected^{put('', {'measured': slope.value, 'ci': (slope.low, slope.high)})}"
