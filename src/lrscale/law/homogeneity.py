"""The homogeneity p of each optimizer: when all gradients are multiplied by r, its updates are multiplied by r^p."""

from typing import Literal, NamedTuple


class Response(NamedTuple):
    """The response of an optimizer to gradients that are r times as large.

    `p` is the homogeneity. `decay` says how its `weight_decay` acts: coupled decay is added to the gradient, and
    decoupled decay acts on the weights directly. `eps` is True where its eps is compared with gradients, so that eps
    must be multiplied by r too. `note` says where p alone is not enough.
    """

    p: float
    decay: Literal["coupled", "decoupled"] = "coupled"
    eps: bool = True
    note: str = ""


RESPONSES: dict[str, Response] = {
    "sgd": Response(1, eps=False),
    "asgd": Response(1, eps=False, note="lambd is a decoupled decay: multiply it by r as well."),
    "adam": Response(0),
    "adamw": Response(0, "decoupled"),
    "nadam": Response(0),
    "adamax": Response(0),
    "sparseadam": Response(0),
    "radam": Response(0, note="p = 1 in the first steps (5 for beta2 = 0.999), which do not use the second moment: divide lr "
                               "by r in these steps, and keep lr afterwards."),
    "rmsprop": Response(0),
    "adagrad": Response(0, note="initial_accumulator_value is compared with squared gradients: multiply it by r^2."),
    "adadelta": Response(0, eps=False, note="One eps is under two square roots, of gradients and of updates, so no value of "
                                            "eps is exact: keep eps. The steps differ little while gradients are far above "
                                            "sqrt(eps)."),
    "rprop": Response(0, eps=False, note="Only the signs of gradients matter."),
    "adafactor": Response(0, "decoupled", note="Here eps means the first eps. The second is compared with weights: keep it. "
                                               "For a matrix torch compares it with a row's mean of squared gradients "
                                               "too: there x r is exact only while that mean is above it."),
    "muon": Response(0, "decoupled"),
    "lbfgs": Response(0, eps=False, note="Multiply tolerance_grad by r. tolerance_change is compared with losses "
                                         "and with steps, so no value of it is exact: set it to 0. Without a line search the "
                                         "first step is lr min(1, 1/|g|) g, so p = 1 in it while the gradient's 1-norm is "
                                         "below 1."),
    "lion": Response(0, "decoupled", eps=False),
    "signsgd": Response(0, eps=False, note="Only the signs of gradients matter."),
    "lars": Response(0, note="Biases and norms that are excluded have p = 1: divide their lr by r."),
    "lamb": Response(0, "decoupled", note="Excluded parameters take Adam's step where an implementation keeps it (p = 0), "
                                          "and a plain SGD step in others (p = 1: divide their lr by r)."),
}  # fmt: skip
"""The response of each optimizer, by its name in lower case.

The optimizers are those of torch.optim, and lion, signsgd, lars and lamb as published. Each p holds while gradients are far
above eps.
"""


HAS_MOMENTUM = ("sgd", "rmsprop", "muon", "lars")
"""The optimizers that have an option `momentum`."""
HAS_BETAS = ("adam", "adamw", "nadam", "adamax", "sparseadam", "radam", "lion", "lamb")
"""The optimizers that have two options `betas`."""
HAS_NO_EPS = ("sgd", "asgd", "rprop", "lbfgs", "lion", "signsgd")
"""The optimizers that have no option `eps`."""


def companion_powers(optimizer: str) -> dict[str, float]:
    """Returns, for each option that goes with the lr, the power of r by which it must be multiplied.

    When gradients become r times as large, the lr divided by r^p and these options times r^power give the same steps.
    Options that are not named stay.

    Args:
      optimizer: a name of `RESPONSES`.

    Example:
      >>> companion_powers("adam"), companion_powers("adamw")
      ({'weight_decay': 1, 'eps': 1}, {'weight_decay': 0, 'eps': 1})
    """
    response = RESPONSES[optimizer]
    powers = {"weight_decay": 1 if response.decay == "coupled" else response.p}
    if response.eps:
        powers["eps"] = 1
    if optimizer == "adagrad":
        powers["initial_accumulator_value"] = 2
    if optimizer == "asgd":
        powers["lambd"] = 1
    return powers
