"""Says before a study starts what its trials will not be able to answer, each with the number that would do."""

import math

from lrscale.study.claim_foresight import foresight_of_claims
from lrscale.study.plan import Plan
from lrscale.study.twins import LR_KEY

GP_DRAWS = 10
"""How many random draws Optuna's gp makes before it learns."""


def foresight(plan: Plan) -> list[str]:
    """Returns a line for each thing that a plan cannot answer, in the words of the one who asks."""
    lines = [*_of_tuning(plan), *foresight_of_claims(plan)]
    return [f"note: {plan.in_own_words(line)}" for line in lines]


def _of_tuning(plan: Plan) -> list[str]:
    """Returns a line for each thing that the tuned lrs cannot answer; none for a probe, or where no lr is tuned."""
    interval = plan.intervals.get(LR_KEY)
    if interval is None or plan.is_probed:
        return []
    lines = []
    octaves = math.log2(interval.high / interval.low) if interval.log else 0.0
    if octaves >= plan.n_trials - 1:
        lines.append(
            f"{plan.n_trials} trials on {octaves:.3g} octaves of lr are an octave or more apart, so best lrs get no interval: "
            f"take hydra.sweeper.n_trials={math.floor(octaves) + 2} or more."
        )
    if all(len(cell.training.seeds) == 1 for cell in plan.cells):
        lines.append("One seed gives no interval: take seeds=8.")
    if len(plan.cells) > 1 and len({cell.training.step_examples for cell in plan.cells}) == 1:
        size = plan.cells[0].training.step_examples
        lines.append(f"With the one batch size {size} no slope in B can be told: take batch_size=8,16,32,64.")
    draws = plan.sampler.get("n_startup_trials", GP_DRAWS)
    if plan.sampler.get("name") == "gp" and plan.n_trials <= draws:
        lines.append(f"gp draws its first {draws} trials at random: take hydra.sweeper.n_trials={2 * draws} or more.")
    return lines
