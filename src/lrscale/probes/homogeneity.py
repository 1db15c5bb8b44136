"""The homogeneity p of torch.optim's optimizers, measured: gradients twice as large make updates 2^p times as large."""

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
from lrscale.tasks.task import Task
from lrscale.training.quantity import Quantity

RATIO = 2.0
UPDATES = 50
SHAPE = (4, 3)  # Muon takes matrices only
CLIP = 0.1
"""Threshold of the clipped SGD, as a part of the gradient's norm: always active."""
TORCH_OPTIMIZERS = {name.lower(): name for name in vars(torch.optim) if name.lower() in RESPONSES and name != "SparseAdam"}
"""Optimizers of torch.optim that take dense gradients, by their name in lower case."""
OPTIONS: dict[str, Mapping[str, Any]] = {
    "asgd": {"lambd": 0.0},  # a decay beside the gradient
    "lbfgs": {"max_iter": 1, "tolerance_grad": 0.0, "tolerance_change": 0.0},
}


class Floor(NamedTuple):
    """The form k g / (k g + eps) of an update, for gradients of size g: k at each step, and eps if it is not the optimizer's.

    `first` is the first step with this form; before it, updates grow as g.
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
"""From torch's update rules. For clipped SGD, eps is what clip_grad_norm_ adds to the norm. Others have no such form."""


def measure(training: Training, task: Task) -> list[Quantity]:
    """Measures p from update norms, with gradients of random signs and one size.

    Quantities: `p_first`, of the first update; `p_step_50`, of the 50th; `p_first_50`, of the norm of the first 50
    together. Expected is what the update rule says at this size, eps included, or where it has no such form p itself,
    for gradients of size 1 or more. The task plays no part.
    """
    assert training.probe is not None
    name, size = training.probe.options["optimizer"], float(training.probe.options["size"])
    signs = torch.randint(2, (UPDATES, *SHAPE), generator=generator("probe", "homogeneity", training.seeds[0])).double() * 2 - 1
    once, more = updates(name, size, signs, size), updates(name, RATIO * size, signs, size)
    norms, larger = once.flatten(1).norm(dim=1), more.flatten(1).norm(dim=1)
    measured = {
        "p_first": (norms[0], larger[0], expected_p(name, size, 1)),
        "p_step_50": (norms[-1], larger[-1], expected_p(name, size, UPDATES)),
        "p_first_50": (norms.norm(), larger.norm(), _expected_over_all(name, size)),
    }
    return [
        Quantity(key, math.log(float(after) / float(before)) / math.log(RATIO), expected=expected)
        for key, (before, after, expected) in measured.items()
        if before > 0 and after > 0
    ]


def updates(name: str, size: float, signs: Tensor, clip_size: float) -> Tensor:
    """Returns the updates of an optimizer of torch.optim with its default options.

    Args:
      name: in lower case, or `clipped_sgd`.
      size: of each gradient's entries.
      signs: of the entries, [step, row, column].
      clip_size: size of gradients that the clip's threshold is a part of.

    Returns:
      Updates, [step, row, column].
    """
    lbfgs = name == "lbfgs"  # it needs gradients that depend on its steps: those of size x sum |w|^4 / 4, from |w| = 1
    parameter = (signs[0].clone() if lbfgs else torch.zeros(SHAPE, dtype=torch.float64)).requires_grad_()
    optimizer, out = _optimizer(name, parameter), []

    def closure() -> float:
        parameter.grad = size * parameter.detach() ** 3
        return size * float(parameter.detach().pow(4).sum()) / 4

    for sign in signs:
        before = parameter.detach().clone()
        parameter.grad = size * sign
        if name == "clipped_sgd":
            torch.nn.utils.clip_grad_norm_([parameter], CLIP * clip_size * math.sqrt(math.prod(SHAPE)))
        optimizer.step(closure if lbfgs else None)
        out.append(parameter.detach() - before)
    return torch.stack(out)


def _optimizer(name: str, parameter: Tensor) -> torch.optim.Optimizer:
    made = getattr(torch.optim, TORCH_OPTIMIZERS.get(name, "SGD"))
    decay = {"weight_decay": 0.0} if name not in ("rprop", "lbfgs") else {}
    optimizer: torch.optim.Optimizer = made([parameter], lr=1e-3, **decay, **OPTIONS.get(name, {}))
    return optimizer


def expected_p(name: str, size: float, step: int) -> float | None:
    """Returns p of a step, between gradients of a size and RATIO times that size; None where the rule has no simple form."""
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
    """Returns p of all steps together if every step has the same p, else None."""
    every = [expected_p(name, size, step) for step in range(1, UPDATES + 1)]
    first = every[0]
    return first if first is not None and all(p is not None and abs(p - first) < 1e-3 for p in every) else None


PROBES.declare(
    "homogeneity",
    Probe(
        about="How do an optimizer's updates answer to gradients twice as large? torch.optim's defaults, lr 0.001, no decay.",
        options={
            "optimizer": Option(
                "sgd",
                one_of(*sorted(TORCH_OPTIMIZERS), "clipped_sgd"),
                "any of torch.optim that takes dense gradients, in lower case, or clipped_sgd: a clip-by-norm that always acts",
            ),
            "size": Option(1.0, POSITIVE, "of each gradient's entries"),
        },
        measure=measure,
    ),
)
