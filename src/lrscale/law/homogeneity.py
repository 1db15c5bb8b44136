"""The homogeneity p of each optimizer: gradients times r make updates times r^p."""

from typing import Literal, NamedTuple


class Response(NamedTuple):
    """How an optimizer reacts to gradients that are r times as large.

    `p`: the homogeneity; `decay`: how its `weight_decay` acts, as part of the gradient (coupled) or beside it
    (decoupled); `eps`: whether its eps is compared with gradients and so scales with them; `note`: where p is
    not the whole story.
    """

    p: float
    decay: Literal["coupled", "decoupled"] = "coupled"
    eps: bool = True
    note: str = ""


RESPONSES: dict[str, Response] = {
    "sgd": Response(1, eps=False),
    "asgd": Response(1, eps=False, note="lambd is a decoupled decay: times r as well."),
    "adam": Response(0),
    "adamw": Response(0, "decoupled"),
    "nadam": Response(0),
    "adamax": Response(0),
    "sparseadam": Response(0),
    "radam": Response(0, note="p = 1 in the first steps (5 for beta2 = 0.999), which are taken without the second moment: "
                               "divide lr by r there, leave it alone afterwards."),
    "rmsprop": Response(0),
    "adagrad": Response(0, note="initial_accumulator_value, if not 0, is compared with squared gradients: times r^2."),
    "adadelta": Response(0, eps=False, note="One eps stands under two square roots, of gradients and of updates, so no value "
                                            "of it translates exactly: leave it alone. The rest differs little while "
                                            "gradients are far above sqrt(eps)."),
    "rprop": Response(0, eps=False, note="Only signs of gradients count."),
    "adafactor": Response(0, "decoupled", note="The first eps is meant; the second is compared with weights and stays."),
    "muon": Response(0, "decoupled"),
    "lbfgs": Response(0, eps=False, note="tolerance_grad times r. Without a line search the first step is "
                                         "lr min(1, 1/|g|) g, so p = 1 there while the gradient's 1-norm is below 1."),
    "lion": Response(0, "decoupled", eps=False),
    "signsgd": Response(0, eps=False, note="Only signs of gradients count."),
    "lars": Response(0),
    "lamb": Response(0, "decoupled"),
}  # fmt: skip
"""By torch.optim's name in lower case, and lion, signsgd, lars and lamb as published. All p are for gradients far above eps."""
