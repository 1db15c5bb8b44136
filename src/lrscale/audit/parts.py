"""What the mean is over: the gradient of a batch as a sum of the gradients of its parts."""

import math
from collections.abc import Sequence

from lrscale.audit.auditing import Auditing
from lrscale.audit.draws import NORMING
from lrscale.audit.examples import tensors_of
from lrscale.audit.vectors import affine_dimension, weights_in

SPLITS = (([0], [1, 2], [3, 4, 5]), ([0, 1], [2, 3, 4, 5]), ([0, 1, 2], [3, 4, 5]))
"""Ways to split the examples in parts; the first that the step can run is taken."""
MIXTURES = (
    *((1, 1, 1), (2, 1, 1), (1, 2, 1), (2, 3, 1), (1, 3, 2), (3, 1, 2)),
    *((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1)),
)
"""How often each third of the examples comes in a batch; their gradients show how many means there are.

Batches without one of the thirds tell two means over different counts from a loss in which examples meet: batches that hold
all of them lie in a plane too where a loss takes the hardest partner of each.
"""
NOT_COUNTED = (-100, 0)
"""Values of whole-number targets that often do not count: torch's `ignore_index`, and padding."""
FINE = 1e-3
"""The accuracy from which two means can be told from a loss that couples examples."""
WEIGHT_TOLERANCE = 1e-4
"""How near the weights of parts must be to their share of a count."""


def measure_parts(m: Auditing) -> None:
    """Solves gradient(batch) = sum of a_j gradient(part_j), and compares the a_j with counts of the batch."""
    if m.has("two terms", "coupled loss"):
        return
    parts, weights, rest, can_tell = _split(m)
    m.numbers |= {"part sizes": [len(part) for part in parts], "part weights": weights, "not from parts": rest}
    if math.isnan(rest) or not can_tell:
        m.unknown.append("What the mean is over: some examples alone give no gradient, or all give the same. Pass another batch.")
    elif rest > m.accuracy:
        _say_coupled(m, rest)
    elif m.numbers.get("reduction") == "mean" and not m.has("random"):
        _say_count(m, parts, weights)


def _split(m: Auditing) -> tuple[list[list[int]], list[float], float, bool]:
    """Returns the parts, their weights in the whole, the share that is not made of them, and whether they can be told apart."""
    whole = m.gradient(m.indices)
    found: tuple[list[list[int]], list[float], float, bool] = ([], [], math.nan, False)
    for split in SPLITS:
        if m.bench.window is not None and any(len(part) < 2 for part in split):
            continue  # a loop of the user's own may not take one example, and its error would end the training
        parts = [[m.indices[i] for i in part if i < len(m.indices)] for part in split]
        try:
            gradients = [m.gradient(part) for part in parts]
        except (ValueError, RuntimeError):  # as batch norm refuses one example
            continue
        found = (parts, *weights_in(whole, gradients))
        if not math.isnan(found[2]):  # an example alone may give no gradient, as in a contrastive loss
            break
    return found


def _say_coupled(m: Auditing, rest: float) -> None:
    """Says why the gradient of the batch is not made of its parts' gradients."""
    norms = [module for module in m.bench.state.modules if isinstance(module, NORMING)]  # the step may end in eval mode
    again = _rest_without_norms(m) if norms else rest
    if norms and again < m.accuracy:
        numbers = {"not from parts": rest}
        m.say(
            "batch norm",
            f"Batch norm mixes the examples of a micro-batch: {rest:.2g} of the gradient is not that of its parts. c holds, but "
            "k micro-batches are not one batch of all of them.",
            numbers,
            "nn.GroupNorm or nn.LayerNorm, or micro-batches of one size in all runs",
            is_mistake=(m.accumulation or 1) > 1,
        )
        return
    thirds = [m.indices[:2], m.indices[2:4], m.indices[4:6] or m.indices[:1]]
    dimension = 9
    if len(m.indices) == 6 and m.accuracy < FINE:
        growth = {"sum": 1, "averaged twice": -1}.get(m.numbers.get("reduction", ""), 0)
        batches = [[i for third, k in zip(thirds, mix, strict=True) for i in third * k] for mix in MIXTURES]
        mixed = [m.gradient(batch) / len(batch) ** growth for batch in batches]
        dimension = affine_dimension(mixed, m.accuracy)
        m.numbers["affine dimension"] = dimension
    if dimension <= 4:
        m.say(
            "two counts",
            "The loss is a sum of two means over different counts, as of two heads, or a quotient of two sums, as a Dice loss "
            "over the batch. No single number of terms stands for both: one may grow against the other where the counts change.",
            {"not from parts": rest, "affine dimension": dimension},
        )
    else:
        padding = " Padding that counts does so too." if m.bench.examples.collate else ""
        m.say(
            "coupled loss",
            f"A share of {rest:.2g} of the batch's gradient is not made of its examples' gradients: the loss or the model "
            f"couples them, and the batch size is part of it.{padding}",
            {"not from parts": rest},
        )


def _rest_without_norms(m: Auditing) -> float:
    """Returns the share that is not made of the parts where batch norm takes its running averages."""
    known, off = m.bench.forget(), m.bench.off
    m.bench.off = (*off, *NORMING)
    try:
        return _split(m)[2]
    finally:
        m.bench.off = off
        m.bench.forget(known)


def _say_count(m: Auditing, parts: Sequence[Sequence[int]], weights: Sequence[float]) -> None:
    """Says which count the mean is over."""
    tolerance = max(WEIGHT_TOLERANCE, m.accuracy)
    counts = _counts(m, [*parts, [i for part in parts for i in part]])
    fitting = [
        name
        for name, count in counts.items()
        if count[-1] != 0 and all(abs(part / count[-1] - a) < tolerance for part, a in zip(count, weights, strict=False))
    ]
    m.numbers["mean over"] = fitting
    if "examples" in fitting:
        return
    sizes, shares = ", ".join(str(len(part)) for part in parts), ", ".join(f"{a:.3f}" for a in weights)
    if fitting:
        m.numbers["terms per example"] = counts[fitting[0]][-1] / len(m.indices)
        m.say(
            "mean over",
            f"The mean is over {fitting[0]}, not over examples: parts of {sizes} examples weigh {shares}. c counts these.",
            {"part weights": list(weights)},
        )
    elif abs(sum(weights) - 1) > tolerance:
        m.say(
            "not a mean",
            f"Repeated examples change nothing, but the parts weigh {sum(weights):.4f} in all: the loss is another function of "
            "its examples' losses, such as a root or a maximum, and the weight of an example depends on the others.",
            {"part weights": list(weights)},
        )
    else:
        classes = _class_weights(m)
        m.say(
            "mean over",
            f"The mean is over {classes or 'none of the counts tried'}, not over examples: parts of {sizes} examples weigh "
            f"{shares}.",
            {"part weights": list(weights)},
        )


def _counts(m: Auditing, parts: Sequence[Sequence[int]]) -> dict[str, list[float]]:
    """Returns how many of each kind of thing each part has, by the kind, [part]."""
    counts: dict[str, list[float]] = {"examples": [float(len(part)) for part in parts]}
    batches = [dict(tensors_of(m.bench.examples.make(part))) for part in parts]
    for name, tensor in batches[0].items():
        if not tensor.ndim or not all(name in batch for batch in batches):
            continue
        columns = [batch[name] for batch in batches]
        counts[f"the entries of {name}"] = [float(column.numel()) for column in columns]
        if tensor.is_floating_point():
            counts[f"the sum of {name}"] = [float(column.double().sum()) for column in columns]
        else:
            for gone in NOT_COUNTED:
                counts[f"the entries of {name} that are not {gone}"] = [float((column != gone).sum()) for column in columns]
            if tensor.ndim > 1:  # labels that are shifted by one, as of language models
                shifted = [column[:, 1:] for column in columns]
                counts[f"the entries of {name}[:, 1:] that are not -100"] = [float((part != -100).sum()) for part in shifted]
    return counts


def _class_weights(m: Auditing) -> str | None:
    """Returns a sentence on the weights of classes, where each example weighs what its class weighs."""
    try:
        singles = [m.gradient([i]) for i in m.indices]
    except (ValueError, RuntimeError):
        return None
    weights, rest, can_tell = weights_in(m.gradient(m.indices), singles)
    if not can_tell or rest > m.accuracy:
        return None
    for name, tensor in tensors_of(m.bench.examples.make(m.indices)):
        if tensor.is_floating_point() or tensor.shape != (len(m.indices),):
            continue
        by_class: dict[int, list[float]] = {}
        for label, weight in zip(tensor.tolist(), weights, strict=True):
            by_class.setdefault(int(label), []).append(weight)
        spread = max(max(group) - min(group) for group in by_class.values())
        if 1 < len(by_class) < len(m.indices) and spread < max(WEIGHT_TOLERANCE, m.accuracy):
            least = min(group[0] for group in by_class.values())
            shares = " : ".join(f"{by_class[label][0] / least:.3g}" for label in sorted(by_class))
            return f"the weights of the classes in {name} ({', '.join(map(str, sorted(by_class)))} weigh {shares})"
    return None


def heaviest_last(m: Auditing) -> list[int]:
    """Returns the examples in the order of their weight in the whole batch."""
    gradients = {i: m.gradient([i]) for i in m.indices}
    largest = max(float(gradient.norm()) for gradient in gradients.values())
    live = [i for i in m.indices if float(gradients[i].norm()) > 1e-12 * largest]
    weights, _, _ = weights_in(m.gradient(m.indices), [gradients[i] for i in live])
    by_example = dict(zip(live, weights, strict=True))
    return sorted(m.indices, key=lambda i: by_example.get(i, 0.0))
