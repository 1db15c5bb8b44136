"""What a probe's quantities are in plain words, for sentences, tables and the axes of figures."""

from collections.abc import Mapping
from typing import Any

DISTANCE = "distance of loss curves"
"""The largest |ln ratio| of two curves of the loss over examples."""
MEANINGS = {
    "b_simple": "noise scale B_simple",
    "lam_max": "curvature lam_max of the loss",
    "lr_lam_max": "lr x lam_max",
    "one_step_lr": "best lr of one step",
    "mean_square_edge": "edge of stability of the mean over runs",
    "almost_sure_edge": "edge of stability of a single run",
    "edge_ratio": "edge of a single run / of the mean",
    "momentum_edge": "edge of stability with momentum",
    "p_first": "p of the first update",
    "p_step_50": "p of the 50th update",
    "p_first_50": "p of 50 updates together",
    "c mean": "gradient scale c of mean",
    "c sum": "gradient scale c of sum",
    "c sum_over_nominal": "gradient scale c of sum over nominal B",
    "norm mean": "gradient norm, mean",
    "norm sum": "gradient norm, sum",
    "norm sum_over_nominal": "gradient norm, sum over nominal B",
    "c mean accumulated": "c of mean, micro-batches added",
    "c sum accumulated": "c of sum, micro-batches added",
    "c sum_over_nominal accumulated": "c of sum over nominal B, micro-batches added",
    "apart mean accumulated": "distance from c x mean gradient, mean, added",
    "apart sum accumulated": "distance from c x mean gradient, sum, added",
    "ln loss ratio": "ln(final loss, mean / sum)",
    "nominal difference": "relative difference, sum/B from sum",
    "ln lr ratio": "ln(best lr, mean/(B x sum))",
    "difference": "difference of the weights, all translated",
    "difference clipped by norm": "difference of the weights, clipped by norm",
    "recommended": f"{DISTANCE} as recommended",
    "linear": f"{DISTANCE} by the linear rule",
    "square root": f"{DISTANCE} by the square root rule",
    "constant lr": f"{DISTANCE} at a constant lr",
}
"""What a quantity is, by its name. A quantity that is not listed has its name."""
_KINDS = {"least": "smallest ", "largest": "largest ", "slope_of": "exponent of "}
"""What a claim's measure takes of a quantity, where the measured number does not say it."""


def meaning(quantity: str) -> str:
    """Returns a quantity in plain words; of a ratio of two, as in `linear / recommended`, both.

    Example:
      >>> meaning("p_first"), meaning("recommended / linear"), meaning("eps left alone")
      ('p of the first update', 'distance of loss curves as recommended / by the linear rule', 'difference with eps left alone')
    """
    first, *others = (
        f"difference with {name}" if name.endswith(" left alone") else MEANINGS.get(name, name) for name in quantity.split(" / ")
    )
    return " / ".join([first, *(other.removeprefix(f"{DISTANCE} ").removeprefix("difference ") for other in others)])


def what_is_measured(claim: Mapping[str, Any], quantity: str) -> str:
    """Returns what a claim on a probe measures, in plain words.

    Args:
      claim: the claim.
      quantity: the name of its quantity, or of the ratio of two.

    Example:
      >>> what_is_measured({"measure": "largest"}, "p_step_50"), what_is_measured({"measure": "deviation"}, "p_first")
      ('largest p of the 50th update', 'p of the first update')
    """
    return f"{_KINDS.get(str(claim['measure']), '')}{meaning(quantity)}"
