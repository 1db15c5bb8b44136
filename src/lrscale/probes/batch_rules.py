"""Tests the rules from one batch size to another: which of them keeps the curve of the objective over examples?

Two trainings that take the same path, one in large steps and one in small, have the same curve over examples. A rule says how
lr and the knobs beside it must change for this.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrscale.errors import Refusal
from lrscale.estimate.intervals import jackknife
from lrscale.law.batch_size import REGIMES
from lrscale.law.homogeneity import RESPONSES
from lrscale.law.translation import Batch, translate
from lrscale.probes import PROBES, Probe
from lrscale.rules import integer
from lrscale.spec import Choice, Option, Training
from lrscale.tasks.built_in import BuiltInTask
from lrscale.tasks.own import Task
from lrscale.training.engine import train
from lrscale.training.optimizers import OPTIMIZERS
from lrscale.training.quantity import Quantity

Array = NDArray[np.float64]
"""An array of float64."""
CURVES = ("train_loss", "excess_risk", "population_risk")
"""The objectives that have a value after every step."""


def measure(training: Training, task: BuiltInTask | Task) -> list[Quantity]:
    """Trains at B and at `factor` x B, and compares the curves of the objective's mean over seeds, at equal examples.

    Each quantity is the largest |ln ratio| of the two curves from the first step of the larger batch on:

    - `recommended`: with lr and every knob as `lrscale translate` recommends them.
    - `NAME left alone`: the same, but one knob keeps its value. `betas` is one knob.
    - `linear`, `square root`, `constant lr`: with the lr of this rule, and every other knob left alone.

    The rules are those of the mean over examples; sum follows by algebra. Intervals are a jackknife over seeds. A rule with
    which a run diverged is left out.

    Source:
      Malladi et al. 2022, arXiv 2205.10287, for Adam; Goyal et al. 2017, 1706.02677, for SGD.
    """
    assert training.probe is not None
    options, size, k = dict(training.optimizer.options), training.batch_size, training.probe.options["factor"]
    before = _curve(training, task)
    lr = _lr(training)
    knobs = {name: options[name] for name in ("weight_decay", "eps") if options.get(name)}
    knobs |= dict(zip(("beta1", "beta2"), options.get("betas", ()), strict=False))
    answer = translate(training.optimizer.name, lr, Batch("mean", size), Batch("mean", size * k), knobs).answer
    recommended = _options({knob.name: knob.after for knob in answer.knobs})
    trials: dict[str, Mapping[str, Any]] = {"recommended": recommended}
    for name in recommended:
        if name != "lr" and recommended[name] != options[name]:
            trials[f"{name} left alone"] = {**recommended, name: options[name]}
    trials |= {rule: {"lr": (lr * k**power,)} for rule, power, _ in REGIMES}
    quantities = []
    for name, values in trials.items():
        optimizer = Choice(training.optimizer.name, {**options, **values})
        after = _curve(replace(training, batch_size=size * k, optimizer=optimizer), task)
        quantities.append(compare_curves(name, before, after))
    return [quantity for quantity in quantities if quantity is not None]


def _lr(training: Training) -> float:
    """Returns the training's lr, which is one number in a probe."""
    return float(np.atleast_1d(training.optimizer.options["lr"])[0])


def _options(values: Mapping[str, float]) -> dict[str, Any]:
    """Returns the options of an optimizer from the values of knobs: lr is a tuple of trials, and the betas are one option."""
    rest = {name: value for name, value in values.items() if not name.startswith("beta")}
    betas = {"betas": (values["beta1"], values["beta2"])} if "beta1" in values else {}
    return {**rest, "lr": (rest["lr"],), **betas}


def _curve(training: Training, task: BuiltInTask | Task) -> tuple[Array, Array]:
    """Returns the numbers of examples that were taken, [point], and the objective after them, [seed, point]."""
    curves = train(training, task)
    examples = curves.steps[1:].astype(np.float64) * training.step_examples
    return examples, getattr(curves, training.objective)[1:].T


def compare_curves(name: str, before: tuple[Array, Array], after: tuple[Array, Array]) -> Quantity | None:
    """Returns the largest |ln ratio| of the means over seeds of two curves; None where a run diverged.

    Args:
      name: the name of the quantity.
      before: examples, [point], and the objective after them, [seed, point], at the smaller batch.
      after: the same at the larger batch, at whose points the curves are compared.
    """
    examples, values = after
    few, small = before
    both = np.concatenate([values, small], 1)
    if not np.isfinite(both).all():
        return None

    def largest(mean: Array) -> float:
        large_steps, small_steps = np.log(mean[: len(examples)]), np.log(mean[len(examples) :])
        return float(np.abs(large_steps - np.interp(np.log(examples), np.log(few), small_steps)).max())

    interval = jackknife(largest, both)
    return Quantity(name, interval.value, max(interval.low, 0.0), interval.high)


def _check(training: Training) -> None:
    """Raises Refusal where there is no curve over examples, or no rule is known for the optimizer."""
    if training.optimizer.name not in RESPONSES:
        raise Refusal(
            f"`probe` batch_rules needs an optimizer that lrscale translate knows, got {training.optimizer.name}. "
            f"Known: {', '.join(name for name in OPTIMIZERS.names() if name in RESPONSES)}."
        )
    if training.reduction != "mean":
        raise Refusal(f"`reduction` must be mean with probe=batch_rules, got {training.reduction}. Sum follows by algebra.")
    if training.budget.name != "epochs":
        raise Refusal(f"`budget` must be epochs with probe=batch_rules, got {training.budget.name}. Curves are over examples.")
    if training.objective not in CURVES:
        raise Refusal(f"`objective` must be one of {', '.join(CURVES)} with probe=batch_rules, got {training.objective}.")
    assert training.probe is not None
    size, factor = training.step_examples, training.probe.options["factor"]
    if size * factor > training.examples:
        raise Refusal(
            f"`probe.factor` x batch_size must be at most the number of examples, got {factor} x {size} > {training.examples}."
        )


PROBES.declare(
    "batch_rules",
    Probe(
        about="Which rule for lr and knobs keeps the curve over examples at a larger batch size?",
        options={"factor": Option(16, integer(2, 4096), "the larger batch size, as a multiple of the training's")},
        check=_check,
        measure=measure,
        measure_own=measure,
    ),
)
