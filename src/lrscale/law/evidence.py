"""Finds what published studies measured of how the best lr goes with batch size, for the optimizer of a question."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from lrscale.law.homogeneity import RESPONSES
from lrscale.rules import is_number

LEAST_SQUARES = ("excess_risk", "population_risk", "steps_to_target")
"""The objectives of studies on least squares; the others are of networks."""
MODELS = ("network", "least_squares")
"""The kinds of models of the studies. Softmax regression counts as a network of one layer."""


class RuleEvidence(NamedTuple):
    """What the outcome of one claim of a study says of a rule from one batch size to another.

    `rule` and `optimizers` are those of which it speaks. `knob` is a hyperparameter without which it says nothing, or empty.
    `verdict` is the outcome with which `says` is true.
    """

    study: str
    claim: str
    rule: str
    optimizers: tuple[str, ...]
    knob: str
    says: str
    verdict: str = "holds"


_ADAMS = ("adam", "adamw")
RULE_EVIDENCE = (
    RuleEvidence(
        "batch_rules",
        "the linear rule does for SGD",
        "linear",
        ("sgd",),
        "",
        "on least squares the linear rule keeps the loss curve of plain SGD at 16 times the batch size",
    ),
    RuleEvidence(
        "momentum_edge",
        "the mean over runs is stable up to 2 (1 + beta)/(B + B_c), largest error in ln lr",
        "linear",
        ("sgd",),
        "momentum",
        "on least squares the edge of stability has its B_c at (1 + momentum)/(1 - momentum) times that of plain SGD",
    ),
    RuleEvidence(
        "momentum",
        "with momentum 0.9 it falls from B = 16 on (momentum)",
        "linear",
        ("sgd",),
        "momentum",
        "in few epochs lr falls below the linear rule from B = 16 to 128 with momentum 0.9, and plain SGD keeps it",
    ),
    RuleEvidence(
        "batch_rules",
        "the square root rule does for Adam",
        "square root",
        _ADAMS,
        "",
        "on least squares the square root rule keeps the loss curve of Adam at 16 times the batch size",
    ),
    RuleEvidence(
        "batch_rules",
        "for AdamW the square root rule needs its weight decay scaled by sqrt(k)",
        "square root",
        ("adamw",),
        "weight_decay",
        "there AdamW needs its weight decay times sqrt(B'/B)",
    ),
    RuleEvidence(
        "batch_rules_chars",
        "at 4 times the batch the square root rule, with betas, is at most half as far off as the linear rule",
        "square root",
        _ADAMS,
        "",
        "on a small transformer at a small lr it is, with the betas changed too, nearer than the linear rule at 4 times",
    ),
    RuleEvidence(
        "batch_rules_chars",
        "it is at most half as far off as with AdamW's weight decay left alone",
        "square root",
        ("adamw",),
        "weight_decay",
        "there weight decay does little, and left alone it was a little nearer",
        "fails",
    ),
    RuleEvidence(
        "batch_rules_chars",
        "at 16 times the batch it is at most half as far off as the linear rule",
        "square root",
        _ADAMS,
        "",
        "at 16 times, where noise no longer dominates, both are about as far off",
        "fails",
    ),
)
"""What claims of studies say of the rules. A sentence is shown where its study is published with the outcome."""


def find_rule_evidence(
    reports: Mapping[str, Mapping[str, Any]], optimizer: str, knobs: Mapping[str, float], rule: str
) -> tuple[RuleEvidence, ...]:
    """Returns what published studies say of a rule.

    Args:
      reports: the report.json of each study, by name.
      optimizer: a name of `homogeneity.RESPONSES`.
      knobs: the values of its hyperparameters.
      rule: the rule that is recommended.
    """
    outcomes = {(study, claim["name"], claim.get("verdict")) for study, r in reports.items() for claim in r.get("claims", ())}
    return tuple(
        e
        for e in RULE_EVIDENCE
        if (e.study, e.claim, e.verdict) in outcomes
        and e.rule == rule
        and optimizer in e.optimizers
        and (not e.knob or knobs.get(e.knob))
    )


@dataclass(frozen=True)
class Evidence:
    """A measurement of a published study over a range that contains both batch sizes, and the lr that it gives.

    `measure` is `slope`, the power of B in lr_mean*, or `b_c`, the B_c of lr_sum* = eta_max / (B + B_c). `value` and `lr`
    each have the ends of the 95 % interval. The study had another task, so the lr assumes that only the form is the same.
    """

    study: str
    measure: str
    conditions: str
    value: tuple[float, float, float]
    lr: tuple[float, float, float]


def find_evidence(
    reports: Mapping[str, Mapping[str, Any]],
    optimizer: str,
    knobs: Mapping[str, float],
    model: str,
    before: int,
    after: int,
    lr_mean: float,
    c: float,
) -> tuple[Evidence, ...]:
    """Returns the evidence of published studies of the same optimizer and kind of model that cover both batch sizes.

    For each study and each of its families, the evidence is the slope over the narrowest range that holds both batch
    sizes, and the turn-over B_c. What a report does not call a law that holds is left out.

    Args:
      reports: the report.json of each study, by name.
      optimizer: a name of `homogeneity.RESPONSES`.
      knobs: the values of its hyperparameters.
      model: one of `MODELS`; studies of the other kind are left out.
      before: batch size of the source.
      after: batch size of the target.
      lr_mean: the lr under mean reduction that was tuned.
      c: gradient scale of the target.
    """
    evidence, p = [], RESPONSES[optimizer].p
    for study, report in sorted(reports.items()):
        sizes = [cell["batch_size"] for cell in report.get("cells", ()) if is_number(cell.get("batch_size"))]
        if not sizes or not min(sizes) <= min(before, after) <= max(before, after) <= max(sizes):
            continue
        if model != ("least_squares" if report.get("objective") in LEAST_SQUARES else "network"):
            continue
        families = [ratio["of"] for ratio in report.get("ratios", ()) if -ratio["expected"] == p]
        families = [family for family in families if _is_of(optimizer, knobs, family, p)]
        for family in families:
            conditions = ", ".join(
                [
                    str(report.get("objective")),
                    *(str(v) if k in ("task", "optimizer") else f"{k}={v}" for k, v in family.items()),
                ]
            )
            slopes = [(_range(row, sizes), row) for row in report.get("slopes", ()) if row["of"] == family and row["ci"]]
            slopes = [(r, row) for r, row in slopes if r[0] <= min(before, after) and max(before, after) <= r[1]]
            slopes = [(r, row) for r, row in slopes if row.get("verdict", "holds") == "holds"]
            slopes = [(r, row) for r, row in slopes if row["reduction"] in ("mean", "sum")]
            if slopes:
                (low, high), row = min(slopes, key=lambda pair: (pair[0][1] / pair[0][0], pair[1]["reduction"] == "sum"))
                shift = p if row["reduction"] == "sum" else 0.0  # lr_sum* = lr_mean* / B^p
                slope = (row["slope"] + shift, row["ci"][0] + shift, row["ci"][1] + shift)
                if sum(slope[1] <= power <= slope[2] for power in (0, 0.5, 1)) < 2:  # it tells one rule from another
                    lrs = [lr_mean * (after / before) ** power / c**p for power in slope]
                    evidence.append(Evidence(study, "slope", f"B {low:g} to {high:g}, {conditions}", slope, _ordered(lrs)))
            for turn in report.get("turn_over", ()):
                if turn.get("at_bound") or turn.get("verdict", "holds") != "holds":
                    continue
                if p == 1 and turn["of"] == family and turn["ci"] and min(sizes) < turn["b_c"] < max(sizes):
                    b_c = (turn["b_c"], turn["ci"][0], turn["ci"][1])
                    lrs = [lr_mean * after * (before + b) / (before * (after + b)) / c for b in b_c]
                    evidence.append(Evidence(study, "b_c", f"B {min(sizes)} to {max(sizes)}, {conditions}", b_c, _ordered(lrs)))
    return tuple(evidence)


def _range(row: Mapping[str, Any], sizes: Sequence[float]) -> tuple[float, float]:
    """Returns the smallest and the largest batch size over which a slope was measured; (inf, 0) where there is none."""
    low, high = row["low"] or 0, row["high"] or math.inf
    inside = [size for size in sizes if low <= size <= high]
    return (min(inside), max(inside)) if inside else (math.inf, 0)


def _ordered(lrs: Sequence[float]) -> tuple[float, float, float]:
    """Returns the first lr, then the smallest and the largest of all."""
    return lrs[0], min(lrs), max(lrs)


def _is_of(optimizer: str, knobs: Mapping[str, float], family: Mapping[str, Any], p: float) -> bool:
    """Returns whether a family of cells was trained with an optimizer. Families that name none are of plain SGD."""
    named = str(family.get("optimizer", "sgd" if p == 1 else ""))
    if optimizer == "sgd":
        return named == ("momentum" if knobs.get("momentum") else "sgd")
    return named == optimizer or (optimizer == "adamw" and named == "adam")
