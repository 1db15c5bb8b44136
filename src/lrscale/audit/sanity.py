"""Can the step be audited at all, and how exactly: refusals, random draws and rounding."""

import math

import torch

from lrscale.audit.auditing import Auditing
from lrscale.audit.own import measure_own
from lrscale.audit.reading import Seen
from lrscale.audit.vectors import along, is_same

AVERAGED_DRAWS = 6
"""Over how many draws a gradient is averaged, where the step draws at random in a way that cannot be shared."""

ROUNDING_AT_MOST = 1e-3
"""The most that another order of the examples changes by rounding, as a share of the gradient."""
MOST_NOISE = 0.2
"""The coarsest accuracy at which something can be said, as a share of the gradient."""


def can_be_audited(m: Auditing) -> bool:
    """Says why a step cannot be audited; returns whether it can be. Sets the accuracy."""
    s, h = m.indices, m.half
    if any(parameter.dtype is torch.float16 for parameter in m.bench.entries.parameters):
        m.say(
            "float16",
            "The weights are float16, and the step does not run in float64. Their gradients would vanish where they are made "
            "smaller. Audit the step with a model in bfloat16 or float32.",
        )
        return False
    one = _first_update(m)
    if one.backwards == 0:
        m.say("no gradient", _OTHER_GRADIENT if _has_updated(m, one) else _NO_BACKWARD)
    elif not bool(one.raw.isfinite().all()):
        m.say(
            "not finite",
            f"The gradient is nan or infinite for this batch, in {int((~one.raw.isfinite()).sum())} of {len(one.raw)} entries. "
            "Look for such values in the loss and in the batch.",
        )
    elif float(one.raw.norm()) == 0:
        m.say("no gradient", "The gradient is 0 for this batch. Give a batch on which the loss is not at its minimum.")
    elif not _has_updated(m, one):
        m.say("no update", _NO_UPDATE)
    elif one.is_moving:
        m.say(
            "weights move",
            "The weights change between two backwards of one update, as in SAM. The gradient is not that of one point, and has "
            "no c. Audit the step with its base optimizer.",
        )
    elif all(is_same(one.raw, m.bench.run(part).raw) for part in (s[:h], s[h:])):
        m.say("ignores the batch", "The gradient is the same whatever batch is given: the step does not use its micro-batches.")
    if m.findings:
        return False
    measure_own(m)
    _measure_accuracy(m)
    return not m.has("too random")


_NO_BACKWARD = "No backward reached the model's parameters. Give the model that the step trains."
_OTHER_GRADIENT = (
    "The weights change, but no backward reached them: the step takes its gradient from torch.autograd.grad or torch.func.grad. "
    "An audit reads what backward() brings. Write the step with loss.backward()."
)
_NO_UPDATE = (
    "The step does not change the weights, and calls no optimizer of torch. Where it counts its micro-batches itself, and "
    "updates after some of them, pass accumulation=, their number."
)


def _first_update(m: Auditing) -> Seen:
    """Runs the step once. Where it makes no update, as it counts its micro-batches itself, each run gets as many as it needs."""
    one = m.bench.run(m.indices)
    if one.backwards and not _has_updated(m, one) and (m.accumulation or 1) > 1:
        m.bench.forget()
        m.bench.window = m.accumulation
        one = m.bench.run(m.indices)
    return one


def _has_updated(m: Auditing, seen: Seen) -> bool:
    """Returns whether the last run made an update."""
    return not m.bench.is_by_hand or float(seen.update.norm()) > 0


_CLOSURE = (
    "The optimizer computes the loss several times in one step through a closure, as LBFGS does. Its gradient is not that of one "
    "point. Audit the step with SGD in its place."
)


def say_closure(m: Auditing) -> None:
    """Says that the optimizer computes the loss itself, several times."""
    m.say("closure", _CLOSURE)


def _measure_accuracy(m: Auditing) -> None:
    """Measures the rounding and the noise: the same examples in another order, under the same draws and under others."""
    bench, s = m.bench, m.indices
    one = bench.gradient(s)
    turned = max(along(bench.gradient(s[i:] + s[:i]), one)[1] for i in (1, 2, 3))
    m.accuracy = max(m.tolerance, bench.coarsest)
    if turned < ROUNDING_AT_MOST:
        m.numbers["rounding"] = turned
        m.accuracy = max(m.accuracy, 20 * turned)
        return
    noise = along(bench.gradient(s, draws=(1,)), one)[1]
    if noise < ROUNDING_AT_MOST:
        return  # the order of the examples matters without draws: the loss couples them
    m.draws = tuple(range(AVERAGED_DRAWS))
    m.numbers["noise"] = noise
    m.accuracy = 8 * max(noise, turned) / math.sqrt(AVERAGED_DRAWS)
    way_out = "Pass a step without augmentation or sampling for an exact answer."
    if m.accuracy > MOST_NOISE:
        sentence = f"The step draws at random: its gradient differs by {noise:.2g} of itself from draw to draw. {way_out}"
        m.say("too random", sentence, {"noise": noise})
        return
    m.say(
        "random",
        f"The step draws at random: its gradient differs by {noise:.2g} of itself. Means of {AVERAGED_DRAWS} draws are compared, "
        f"good to {m.accuracy:.1g}. {way_out}",
        {"noise": noise, "accuracy": m.accuracy},
    )
