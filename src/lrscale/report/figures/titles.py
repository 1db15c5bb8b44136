"""The titles of the axes of a probe's figure."""

TITLES = {
    "b_simple": "noise scale B_simple (examples)",
    "lam_max": "largest curvature lam_max of the loss",
    "lr_lam_max": "lr x lam_max (2 is the edge)",
    "one_step_lr": "best lr of one step",
    "mean_square_edge": "largest stable lr, mean over runs",
    "almost_sure_edge": "largest stable lr, a single run",
    "edge_ratio": "edge of a single run / of the mean",
    "momentum_edge": "largest stable lr, momentum",
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
    "difference clipped by norm": "the same, clipped by norm",
    "recommended": "largest |ln ratio|, as recommended",
    "linear": "largest |ln ratio|, linear rule",
    "square root": "largest |ln ratio|, square root rule",
    "constant lr": "largest |ln ratio|, constant lr",
}
"""Titles of the axes that show quantities, by quantity. A quantity that is not listed has its name as title."""
LEFT_ALONE = {"batch_rules": "largest |ln ratio|", "translate": "difference"}
"""What a quantity `NAME left alone` is, by probe."""
X_TITLES = {
    "batch_size": "batch size B (examples per step)",
    "probe.fraction": "fraction of training done",
    "task.examples": "examples in an epoch N",
    "task.features": "features d",
    "probe.size": "size of the gradient",
}
"""Titles of x axes, by axis of the study. An axis that is not listed has its name as title."""


def title(probe: str, quantity: str) -> str:
    """Returns the title of the axis that shows a quantity of a probe.

    Example:
      >>> title("translate", "eps left alone"), title("curvature", "lam_max")
      ('difference, eps left alone', 'largest curvature lam_max of the loss')
    """
    knob = quantity.removesuffix(" left alone")
    if knob != quantity and probe in LEFT_ALONE:
        return f"{LEFT_ALONE[probe]}, {knob.replace('_', ' ')} left alone"
    return TITLES.get(quantity, quantity)
