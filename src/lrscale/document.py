"""A study's document: what its run keeps of its plan, and the plan that is made from it again."""

from typing import Any

from lrscale.plan import Plan
from lrscale.provenance import made_by


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
    }
