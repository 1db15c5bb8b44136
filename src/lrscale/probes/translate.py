"""Tests translation: is sum at lr / c^p the same trajectory as mean at lr, and how much does each knob matter?

A knob is the lr, or another hyperparameter that has to be translated with it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lrscale.law.translation import Batch, translate
from lrscale.probes import PROBES, Probe
from lrscale.rules import one_of
from lrscale.spec import Option, Training
from lrscale.tasks.built_in import BuiltInTask
from lrscale.training.quantity import Quantity
from lrscale.training.reference_loop import make_module, trajectory, whole_batches

TRAJECTORY_STEPS = 50
"""The number of steps in each trajectory."""
PENALTIES = {"l1": 0.2, "l2": 0.2}
"""The penalties that are added to the loss."""


class Case(NamedTuple):
    """An optimizer whose trajectories are compared.

    `optimizer` is the name of its class in torch.optim, and `lr` its lr under mean. `knobs` are the knobs that act on
    gradients or are compared with them, with their values under mean. `options` do not depend on the gradient scale.
    """

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
"""The cases, by the value of the option `optimizer`. Their knobs are large enough to act at every step.

Rprop uses only the signs of gradients, so it has no knob that is compared with them.
"""

CLIPS = {"clip_value": 0.5, "clip_norm": 0.5}
"""The clips and their thresholds. Only one of them is used at a time. Rprop, which has no knobs, is not clipped."""


def measure(training: Training, task: BuiltInTask) -> list[Quantity]:
    """Compares trajectories of plain torch.optim loops over `TRAJECTORY_STEPS` steps.

    - `difference`: between mean, and sum with every knob translated. Gradients are clipped by value.
    - `difference clipped by norm`: the same, with gradients clipped by norm. It is not exact: torch adds 1e-6 to the norm.
    - `NAME left alone`: between mean, and sum with every knob translated but this one, which keeps its value under mean.
      There is one such quantity for each knob that translation changes, and lr can be one of them.
    """
    assert training.probe is not None
    case, size = CASES[training.probe.options["optimizer"]], training.batch_size
    quantities: list[Quantity] = []
    untranslated: dict[str, float] = {}
    for label, clip in (("difference", "clip_value"), ("difference clipped by norm", "clip_norm")):
        knobs = {**case.knobs, clip: CLIPS[clip]} if case.knobs else case.knobs
        before = {"lr": case.lr, **knobs}
        translation = translate(case.optimizer, case.lr, Batch("mean", size), Batch("sum", size), knobs)
        after = {knob.name: knob.after for knob in translation.knobs}
        reference = _run(task, training.seeds[0], case, before, Batch("mean", size))

        def difference_under_sum(values: Mapping[str, float], reference: Tensor = reference) -> float:
            return difference(reference, _run(task, training.seeds[0], case, values, Batch("sum", size)))

        quantities.append(Quantity(label, difference_under_sum(after), expected=0.0))
        changed = [name for name in after if after[name] != before[name] and name not in untranslated]
        untranslated |= {name: difference_under_sum(after | {name: before[name]}) for name in changed}
    return quantities + [Quantity(f"{name} left alone", value) for name, value in untranslated.items()]


def _run(task: BuiltInTask, seed: int, case: Case, values: Mapping[str, float], batch: Batch) -> Tensor:
    """Returns the trajectory of one run, [step, weight]. `values` are the values of lr and knobs."""
    module = make_module(task, seed)
    optimizer_values = {name: value for name, value in values.items() if name in ("lr", "weight_decay", "eps")}
    optimizer = getattr(torch.optim, case.optimizer)(module.parameters(), **optimizer_values, **case.options)
    return trajectory(module, optimizer, whole_batches(task.data, seed, batch.size, TRAJECTORY_STEPS), batch, values)


def difference(a: Tensor, b: Tensor) -> float:
    """Returns the largest relative difference of two trajectories [step, weight] over the steps, 2 |a - b| / (|a| + |b|).

    It is 2 where a trajectory is not finite.
    """
    differences = 2 * (a - b).norm(dim=1) / (a.norm(dim=1) + b.norm(dim=1))
    return float(differences.nan_to_num(nan=2.0, posinf=2.0).clamp(max=2.0).max())


PROBES.declare(
    "translate",
    Probe(
        about="Does sum with every knob translated give the trajectory of mean? Plain torch.optim loops of 50 steps on the task.",
        options={"optimizer": Option("sgd", one_of(*CASES), "an optimizer in lower case, or momentum or nesterov")},
        measure=measure,
    ),
)
