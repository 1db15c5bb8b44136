"""The titles of the axes of a probe's figure."""

from lrscale.study.meanings import MEANINGS

TITLES = MEANINGS | {
    "b_simple": "noise scale B_simple (examples)",
    "lam_max": "largest curvature lam_max of the loss",
    "lr_lam_max": "lr x lam_max (2 is the edge)",
    "mean_square_edge": "largest stable lr, mean over runs",
    "almost_sure_edge": "largest stable lr, a single run",
    "momentum_edge": "largest stable lr, momentum",
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
