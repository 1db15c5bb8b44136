"""The answer of a study as JSON: all its numbers, under keys that other programs rely on."""

import math
from dataclasses import asdict
from typing import Any

from lrscale.estimate.intervals import Interval
from lrscale.study.answer import Answer
from lrscale.study.claims import ratio_judgement
from lrscale.study.families import CellAnswer, Family
from lrscale.study.remarks import coverage, remarks
from lrscale.study.statements import laws
from lrscale.study.verdict import has_one_seed, trade_off_judgement, turn_over_judgement
from lrscale.training.results import mean_objective


def as_json(answer: Answer) -> dict[str, Any]:
    """Returns an answer as one document. Other programs rely on its keys.

    Claims, ratios and fitted forms have a `verdict`, and a `reason` and a `way_out` where it is not `holds`.
    """
    ratios = [
        {
            "of": dict(family.of),
            "ratio": [ratio.of, ratio.over],
            "slope": _value(slope),
            "ci": _pair(slope),
            "expected": ratio.expected,
            "same_runs": ratio.same_runs,
            **ratio_judgement(answer.plan, family, ratio)._asdict(),
        }
        for family in answer.families
        for ratio in family.ratios
        for slope in [None if has_one_seed(family.cells) else ratio.slope]
    ]
    slopes = [
        {
            "of": dict(line.of),
            "reduction": line.reduction,
            "range": line.range,
            "low": line.low if math.isfinite(line.high) else None,
            "high": line.high if math.isfinite(line.high) else None,
            "slope": _value(line.slope),
            "ci": _pair(line.slope),
        }
        for line in answer.slopes
    ]
    return {
        "study": answer.plan.study,
        "question": answer.plan.question,
        "objective": answer.plan.objective,
        "law": laws(answer),
        "intervals_cover": coverage(answer.cells),
        "left_out": answer.left_out,
        "remarks": remarks(answer),
        "cells": [_cell_json(cell) for cell in answer.cells],
        "quantities": [{**m.cell.scientific, "label": m.cell.label, **asdict(m.quantity)} for m in answer.measurements],
        "ratio": ratios[0] if len(ratios) == 1 else None,
        "ratios": ratios,
        "slopes": slopes,
        "turn_over": [_turn_over_json(family) for family in answer.families],
        "trade_off": [_trade_off_json(family) for family in answer.families if family.trade_off],
        "claims": [
            {
                "name": verdict.name,
                "measure": verdict.measure,
                "measured": _value(verdict.measured),
                "ci": _pair(verdict.interval),
                **verdict.bound._asdict(),
                "verdict": verdict.verdict,
                "reason": verdict.reason,
                "way_out": verdict.way_out,
            }
            for verdict in answer.verdicts
        ],
        "command": answer.plan.command,
        "made_by": dict(answer.study.made_by),
    }


def _cell_json(cell: CellAnswer) -> dict[str, Any]:
    """Returns the numbers of one cell. `objective` is that of its best trial, and `n_diverged` counts runs."""
    best = cell.best
    return {
        **cell.cell.scientific,
        "label": cell.cell.label,
        "c": cell.c,
        "lr_best": best.lr if best else None,
        "lr_best_ci": _pair(best.interval if best else None),
        "objective": least_objective(cell),
        "lr_theory": cell.theory_lr,
        "theory_note": cell.theory_note,
        "at_edge": best.at_edge if best else None,
        "bound": best.bound if best else None,
        "rivals": list(best.rivals) if best else None,
        "coarse": best.is_coarse if best else None,
        "n_trials": len(cell.trials),
        "n_runs": sum(len(t.objectives) for t in cell.trials),
        "n_diverged": sum(sum(t.diverged) for t in cell.trials),
    }


def least_objective(cell: CellAnswer) -> float | None:
    """Returns the objective of the best trial of a cell; None where every trial has a run that diverged."""
    trial = cell.best_trial()
    return None if trial is None else mean_objective(trial.objectives)


def _turn_over_json(family: Family) -> dict[str, Any]:
    """Returns the fit of lr_sum* = eta_max / (B + B_c) of a family; its numbers are None where there is none."""
    turn, judgement = family.turn_over, turn_over_judgement(family)._asdict()
    if turn is None or has_one_seed(family.cells):
        return {"of": dict(family.of), "b_c": None, "ci": None, **judgement}
    return {
        "of": dict(family.of),
        "b_c": turn.b_c.value,
        "ci": _pair(turn.b_c),
        "eta_max": turn.eta_max.value,
        "residual": turn.residual.value,
        "residual_ci": _pair(turn.residual),
        "at_bound": turn.at_bound,
        **judgement,
    }


def _trade_off_json(family: Family) -> dict[str, Any]:
    """Returns the fitted trade-off of steps against examples of a family, which must have one."""
    fit = family.trade_off
    assert fit is not None
    intervals = {"s_min": fit.s_min, "e_min": fit.e_min, "b_crit": fit.b_crit}
    numbers = {name: interval.value for name, interval in intervals.items()}
    pairs = {f"{name}_ci": _pair(interval) for name, interval in intervals.items()}
    fitted = {**numbers, **pairs, "residual": fit.residual.value, "residual_ci": _pair(fit.residual), "at_bound": fit.at_bound}
    return {"of": dict(family.of), **fitted, **trade_off_judgement(family)._asdict()}


def _pair(interval: Interval | None) -> list[float] | None:
    """Returns the ends of an interval as [low, high]; None where it has none, as with one seed."""
    return [interval.low, interval.high] if interval is not None and all(map(math.isfinite, interval)) else None


def _value(interval: Interval | None) -> float | None:
    """Returns the estimate that an interval belongs to; None where it is infinite, which JSON does not know."""
    return interval.value if interval is not None and math.isfinite(interval.value) else None
