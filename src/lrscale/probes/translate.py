"""Is sum at lr / c^p the same trajectory as mean at lr, and what if a knob beside lr is left alone?"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lrscale.law.translation import Batch, translate
from lrscale.probes import PROBES, Probe
from lrscale.rules import one_of
from lrscale.spec import Option, Training
from lrscale.tasks.task import Task
from lrscale.training.quantity import Quantity
from lrscale.training.reference_loop import make_module, trajectory, whole_batches

TRAJECTORY_STEPS = 50
PENALTIES = {"l1": 0.2, "l2": 0.2}


class Case(NamedTuple):
    """An optimizer of torch.optim, its lr, the knobs that are compared with gradients, and the options that are not."""

    optimizer: str
    lr: float
    knobs: Mapping[str, float]
    options: Mapping[str, Any] = {}


CASES: dict[str, Case] = {
    "sgd": Case("SGD", 0.05, {"weight_decay": 0.1, **PENALTIES}),
    "momentum": Case("SGD", 0.02, {"weight_decay": 0.1, **PENALTIES}, {"momentum": 0.9}),
    "nesterov": Case("SGD", 0.02, {"weight_decay": 0.1, **PENALTIES}, {"momentum": 0.9, "nesterov": True}),
    "asgd": Case("ASGD", 0.05, {"weight_decay": 0.1, **PENALTIES}, {"lambd": 0.0}),
    "adam": Case("Adam", 0.05, {"weight_decay": 0.1, "eps": 0.1, **PENALTIES}),
    "adamw": Case("AdamW", 0.05, {"weight_decay": 0.1, "eps": 0.1, **PENALTIES}),
    "nadam": Case("NAdam", 0.05, {"weight_decay": 0.1, "eps": 0.1, **PENALTIES}),
    "adamax": Case("Adamax", 0.05, {"weight_decay": 0.1, "eps": 0.1, **PENALTIES}),
    "rmsprop": Case("RMSprop", 0.05, {"weight_decay": 0.1, "eps": 0.1, **PENALTIES}),
    "adagrad": Case("Adagrad", 0.2, {"weight_decay": 0.1, "eps": 0.1, **PENALTIES}),
    "rprop": Case("Rprop", 0.01, {}),
    "muon": Case("Muon", 0.3, {"weight_decay": 0.1, **PENALTIES}),
}
"""The knobs are large enough to act at every step. Rprop uses only signs, so it has no knob that is compared with gradients."""

CLIPS = {"clip_value": 0.5, "clip_norm": 0.5}


def measure(training: Training, task: Task) -> list[Quantity]:
    """Compares trajectories of plain torch.optim loops over `TRAJECTORY_STEPS` steps.

    Quantities: `difference`, of sum with everything translated from mean, `difference clipped by norm`, the same with
    clip-by-norm (torch adds 1e-6 to the norm, so it is not exact), and for each knob that translates, lr among them,
    `NAME left alone`, where it keeps the value it has under mean and the others are translated.
    """
    assert training.probe is not None
    case, size = CASES[training.probe.options["optimizer"]], training.batch_size
    out: list[Quantity] = []
    left: dict[str, float] = {}
    for label, clip in (("difference", "clip_value"), ("difference clipped by norm", "clip_norm")):
        own = {**case.knobs, clip: CLIPS[clip]} if case.knobs else case.knobs
        mean = {"lr": case.lr, **own}
        found = translate(case.optimizer, case.lr, Batch("mean", size), Batch("sum", size), own)
        after = {knob.name: knob.after for knob in found.knobs}
        reference = _run(task, training.seeds[0], case, mean, Batch("mean", size))

        def apart(knobs: Mapping[str, float], reference: Tensor = reference) -> float:
            return difference(reference, _run(task, training.seeds[0], case, knobs, Batch("sum", size)))

        out.append(Quantity(label, apart(after), expected=0.0))
        left |= {name: apart(after | {name: mean[name]}) for name in after if after[name] != mean[name] and name not in left}
    return out + [Quantity(f"{name} left alone", value) for name, value in left.items()]


def _run(task: Task, seed: int, case: Case, values: Mapping[str, float], batch: Batch) -> Tensor:
    module = make_module(task, seed)
    own = {name: value for name, value in values.items() if name in ("lr", "weight_decay", "eps")}
    optimizer = getattr(torch.optim, case.optimizer)(module.parameters(), **own, **case.options)
    return trajectory(module, optimizer, whole_batches(task, seed, batch.size, TRAJECTORY_STEPS), batch, values)


def difference(a: Tensor, b: Tensor) -> float:
    """Returns the largest relative difference 2 |a - b| / (|a| + |b|) of trajectories [step, weight]; 2 where one diverges."""
    apart = 2 * (a - b).norm(dim=1) / (a.norm(dim=1) + b.norm(dim=1))
    return float(apart.nan_to_num(nan=2.0, posinf=2.0).clamp(max=2.0).max())


PROBES.declare(
    "translate",
    Probe(
        about="Is sum with everything translated the trajectory of mean? Plain torch.optim loops of 50 steps on the task.",
        options={"optimizer": Option("sgd", one_of(*CASES), "sgd, momentum, nesterov, or another one in lower case")},
        measure=measure,
    ),
)
