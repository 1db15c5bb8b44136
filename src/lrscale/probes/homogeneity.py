"""Measures the homogeneity p of torch.optim's optimizers: gradients twice as large make updates 2^p times as large."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lrscale.law.homogeneity import RESPONSES
from lrscale.probes import PROBES, Probe
from lrscale.rules import POSITIVE, one_of
from lrscale.spec import Option, Training
from lrscale.streams import generator
from lrscale.tasks.built_in import BuiltInTask
from lrscale.training.quantity import Quantity

RATIO = 2.0
"""The ratio of the larger gradients to the smaller ones."""
UPDATES = 50
"""The number of updates that are measured. The name of the quantity `p_step_50` contains it."""
SHAPE = (4, 3)
"""The shape of the parameter. It is a matrix, because Muon takes only matrices."""
CLIP = 0.1
"""The threshold of the clipped SGD, as a fraction of the norm of the smaller gradients, so that clipping always acts."""
TORCH_OPTIMIZERS = {name.lower(): name for name in vars(torch.optim) if name.lower() in RESPONSES and name != "SparseAdam"}
"""The class names of torch.optim's optimizers that take dense gradients, by the name in lower case."""
OPTIONS: dict[str, Mapping[str, Any]] = {
    "asgd": {"lambd": 0.0},  # torch's default is a decay of the weights, which does not depend on the gradient
    "lbfgs": {"max_iter": 1, "tolerance_grad": 0.0, "tolerance_change": 0.0},
}
"""The options that differ from torch's defaults, by the optimizer's name."""


class Floor(NamedTuple):
    """An update rule of the form k g / (k g + eps), for gradients of size g.

    `k(options, step)` returns k at a step. `eps` is None where it is the optimizer's own option. `first` is the first step
    with this form; before it, updates grow in proportion to g.
    """

    k: Callable[[Mapping[str, Any], int], float]
    eps: float | None = None
    first: int = 1


FLOORS: dict[str, Floor] = {
    "adam": Floor(lambda options, step: 1.0),
    "adamw": Floor(lambda options, step: 1.0),
    "nadam": Floor(lambda options, step: 1.0),
    "adamax": Floor(lambda options, step: 1.0),
    "radam": Floor(lambda options, step: math.sqrt(1 - options["betas"][1] ** step), first=6),
    "rmsprop": Floor(lambda options, step: math.sqrt(1 - options["alpha"] ** step)),
    "adagrad": Floor(lambda options, step: math.sqrt(step)),
    "clipped_sgd": Floor(lambda options, step: math.sqrt(math.prod(SHAPE)), eps=1e-6),
}
"""The optimizers whose updates have this form, from torch's update rules. Other optimizers do not have it.

For clipped SGD, eps is the number that clip_grad_norm_ adds to the norm.
"""


def measure(training: Training, task: BuiltInTask) -> list[Quantity]:
    """Measures p from the norms of updates. All entries of the gradients have one size, and random signs.

    - `p_first`: p of the first update.
    - `p_step_50`: p of the 50th update.
    - `p_first_50`: p of the norm of the first 50 updates together.

    The expected value comes from the update rule at this size, with eps. Where the rule has no simple form, it is p itself,
    for gradients of size 1 or more. The task is not used.
    """
    assert training.probe is not None
    name, size = training.probe.options["optimizer"], float(training.probe.options["size"])
    signs = torch.randint(2, (UPDATES, *SHAPE), generator=generator("probe", "homogeneity", training.seeds[0])).double() * 2 - 1
    small_updates, large_updates = updates(name, size, signs, size), updates(name, RATIO * size, signs, size)
    small_norms, large_norms = small_updates.flatten(1).norm(dim=1), large_updates.flatten(1).norm(dim=1)
    norms = {
        "p_first": (small_norms[0], large_norms[0], expected_p(name, size, 1)),
        "p_step_50": (small_norms[-1], large_norms[-1], expected_p(name, size, UPDATES)),
        "p_first_50": (small_norms.norm(), large_norms.norm(), _expected_over_all(name, size)),
    }
    return [
        Quantity(key, math.log(float(large) / float(small)) / math.log(RATIO), expected=expected)
        for key, (small, large, expected) in norms.items()
        if small > 0 and large > 0
    ]


def updates(name: str, size: float, signs: Tensor, clip_size: float) -> Tensor:
    """Returns the updates of an optimizer of torch.optim with lr 0.001, no weight decay, and otherwise default options.

    Args:
      name: the optimizer's name in lower case, or `clipped_sgd`.
      size: size of the entries of each gradient.
      signs: signs of these entries, [step, row, column].
      clip_size: size of the entries of the gradients whose norm the clip's threshold is a fraction of.

    Returns:
      Updates, [step, row, column].
    """
    lbfgs = name == "lbfgs"  # it needs gradients that depend on its steps: those of size x sum |w|^4 / 4, from |w| = 1
    parameter = (signs[0].clone() if lbfgs else torch.zeros(SHAPE, dtype=torch.float64)).requires_grad_()
    optimizer, changes = _optimizer(name, parameter), []

    def closure() -> float:
        """Sets the gradient of size x sum w^4 / 4, and returns this loss; for L-BFGS only."""
        parameter.grad = size * parameter.detach() ** 3
        return size * float(parameter.detach().pow(4).sum()) / 4

    for sign in signs:
        before = parameter.detach().clone()
        parameter.grad = size * sign
        if name == "clipped_sgd":
            torch.nn.utils.clip_grad_norm_([parameter], CLIP * clip_size * math.sqrt(math.prod(SHAPE)))
        optimizer.step(closure if lbfgs else None)
        changes.append(parameter.detach() - before)
    return torch.stack(changes)


def _optimizer(name: str, parameter: Tensor) -> torch.optim.Optimizer:
    """Returns the optimizer with this name for one parameter, with lr 0.001 and no weight decay."""
    optimizer_class = getattr(torch.optim, TORCH_OPTIMIZERS.get(name, "SGD"))
    decay = {"weight_decay": 0.0} if name not in ("rprop", "lbfgs") else {}
    optimizer: torch.optim.Optimizer = optimizer_class([parameter], lr=1e-3, **decay, **OPTIONS.get(name, {}))
    return optimizer


def expected_p(name: str, size: float, step: int) -> float | None:
    """Returns the p that the update rule gives at one step, between gradients of a size and of RATIO times that size.

    Args:
      name: the optimizer's name in lower case, or `clipped_sgd`.
      size: size of the entries of the smaller gradients.
      step: the step, counted from 1.

    Returns:
      p; None where the rule has no simple form and the size is below 1.
    """
    floor = FLOORS.get(name)
    if floor is not None:
        if step < floor.first:
            return 1.0
        options = _optimizer(name, torch.zeros(SHAPE)).defaults
        k, eps = floor.k(options, step), options["eps"] if floor.eps is None else floor.eps
        return 1 - math.log((RATIO * k * size + eps) / (k * size + eps)) / math.log(RATIO)
    if name in ("sgd", "asgd", "rprop"):
        return RESPONSES[name].p
    if name == "lbfgs" and step == 1:  # its step is lr min(1, 1/|g|) g, with the 1-norm
        entries = math.prod(SHAPE)
        return 1 + math.log(min(1, 1 / (RATIO * entries * size)) / min(1, 1 / (entries * size))) / math.log(RATIO)
    return RESPONSES[name].p if size >= 1 else None


def _expected_over_all(name: str, size: float) -> float | None:
    """Returns p of all steps together if every step has the same p, up to 1e-3; else None."""
    by_step = [expected_p(name, size, step) for step in range(1, UPDATES + 1)]
    first = by_step[0]
    return first if first is not None and all(p is not None and abs(p - first) < 1e-3 for p in by_step) else None


PROBES.declare(
    "homogeneity",
    Probe(
        about="How much larger are an optimizer's updates if gradients are twice as large? Defaults of torch.optim, no decay.",
        options={
            "optimizer": Option(
                "sgd",
                one_of(*sorted(TORCH_OPTIMIZERS), "clipped_sgd"),
                "an optimizer of torch.optim for dense gradients, in lower case, or clipped_sgd: SGD whose gradients are always "
                "clipped by norm",
            ),
            "size": Option(1.0, POSITIVE, "size of the entries of each gradient"),
        },
        measure=measure,
    ),
)
