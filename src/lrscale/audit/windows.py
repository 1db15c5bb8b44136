"""Accumulation: the same examples as one micro-batch and as several."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress

from lrscale.audit.auditing import EXACT, Auditing
from lrscale.audit.bench import SMALL
from lrscale.audit.parts import heaviest_last
from lrscale.audit.size import reference_gradient
from lrscale.audit.vectors import NEAR_ZERO, along, weights_in

NOT_PER_EXAMPLE = 10
"""How many times the accuracy equal micro-batches may differ in direction from their whole."""


def measure_windows(m: Auditing) -> None:
    """Compares micro-batches with one batch of the same examples: first equal ones, whose counts are even, then unlike ones."""
    if m.accumulation is None:
        m.unknown.append("Accumulation: whether k micro-batches are one batch of all. Pass accumulation=k.")
        return
    if m.accumulation < 2:
        return
    if m.bench.window is not None:
        _measure_fixed(m, m.accumulation)
        return
    _measure_equal(m, m.accumulation)
    _measure_unlike(m)


def _measure_fixed(m: Auditing, k: int) -> None:
    """Measures a loop that always takes k micro-batches: whether unlike ones weigh in it as they do in one batch."""
    many = (k + 1) // 2
    one, other = _unlike_pairs(m)
    _say_lost(m, max(m.bench.run(one, r=r).kept for r in (SMALL, 1.0, 1 / SMALL)))
    if m.reference is None:
        m.unknown.append(f"Whether {k} micro-batches are divided by their number: a loop always has {k}. Pass reference=.")
    if m.has("coupled loss", "two terms", "changed between backwards", "batch norm", "random"):
        return
    parts = [m.gradient(one), m.gradient(other)]
    windowed, rest, can_tell = weights_in(m.gradient(*[one] * many, *[other] * (k - many)), parts)
    whole, _, _ = weights_in(m.gradient([*one, *other]), parts)
    if not can_tell or rest > m.accuracy or not all(whole):
        return
    shares = [windowed[0] / many, windowed[1] / (k - many)]  # of one micro-batch
    apart = abs(shares[0] / shares[1] / (whole[0] / whole[1]) - 1)
    m.numbers["unlike micro-batches apart from their whole"] = apart
    if apart > max(EXACT, m.accuracy):
        _say_mean_of_means(m, 2, shares, whole, apart)


def _unlike_pairs(m: Auditing) -> tuple[list[int], list[int]]:
    """Returns the pair of examples that weighs least in the whole batch, and the one that weighs most."""
    pairs = [m.indices[i : i + 2] for i in range(0, len(m.indices) - 1, 2)]
    weights, _, can_tell = weights_in(m.gradient([i for pair in pairs for i in pair]), [m.gradient(pair) for pair in pairs])
    if not can_tell:
        return pairs[0], pairs[-1]
    ranked = [pair for _, pair in sorted(zip(weights, pairs, strict=True))]
    return ranked[0], ranked[-1]


def _measure_equal(m: Auditing, k: int) -> None:
    """Gives j equal micro-batches, and their examples at once."""
    half = _with_gradient(m)
    window = {j: along(m.gradient(*[half] * j), m.gradient(half * j)) for j in sorted({1, 2, k})}
    factors = {j: factor for j, (factor, _) in window.items()}
    bent = max(bend for _, bend in window.values())
    m.numbers |= {"accumulation factor": factors[k], "window of j / whole": factors}
    lost = max(m.bench.run(*[half] * k, r=r).kept for r in (SMALL, 1.0, 1 / SMALL))
    if _say_lost(m, lost):
        return
    if not m.has("two terms", "coupled loss"):
        _say_factor(m, k, half, factors, bent)


def _with_gradient(m: Auditing) -> list[int]:
    """Returns half of the examples; others where these have no gradient, as where a margin is kept, or all of them."""
    least = 1e-9 * float(m.gradient(m.indices).norm())
    halves = (m.indices[: m.half], m.indices[m.half :])
    return next((half for half in halves if float(m.gradient(half).norm()) > least), m.indices)


def _say_lost(m: Auditing, lost: float) -> bool:
    """Says how much of the gradient is lost between the backwards of an update; returns whether any is."""
    m.numbers["changed between backwards"] = lost
    if lost > m.accuracy:
        m.say(
            "changed between backwards",
            f"The gradient changes between two backwards of one update: up to {lost:.0%} of it is lost. It is clipped or zeroed "
            "once a micro-batch.",
            {"lost": lost},
            "zero_grad() before the first micro-batch, clip_grad_norm_() after the last one, then optimizer.step()",
        )
    return lost > m.accuracy


def _say_factor(m: Auditing, k: int, half: Sequence[int], factors: Mapping[int, float], bent: float) -> None:
    """Says how equal micro-batches add up.

    Args:
      m: the audit.
      k: the number of micro-batches of an update.
      half: the examples of each.
      factors: what j micro-batches give against their examples at once, by j.
      bent: the share of their gradient that has another direction.
    """
    factor = factors[k]
    growth = {"sum": 1, "averaged twice": -1}.get(m.numbers.get("reduction", ""), 0)
    if bent > NOT_PER_EXAMPLE * m.accuracy:
        m.say(
            "term once a micro-batch",
            f"Equal micro-batches do not add up to their whole: {bent:.2g} of the gradient has another direction. Something that "
            f"does not count examples, such as a penalty or an auxiliary loss, is added once a micro-batch: {k} times an update.",
            {"bent": bent},
            f"loss = main_loss + penalty / {k}   # its share of the update",
        )
    elif growth and all(m.near(f, j**-growth) for j, f in factors.items()):
        return  # divided by the number of micro-batches, as is right for the mean within each that must replace its loss
    elif all(m.near(f, j) for j, f in factors.items()):
        _say_growing(m, k, half)
    elif all(m.near(f, 1 / j) for j, f in factors.items()):
        m.say(
            "falls with the window",
            f"{k} micro-batches give {factor:.3g} of the gradient of the same examples at once: they are divided by their number "
            "once too often.",
            {"accumulation factor": factor},
            "loss.backward()   # the loss is already divided by the number of micro-batches",
        )
    elif not m.near(factor, 1):
        m.say(
            "accumulation factor",
            f"{k} micro-batches give {factor:.4g} times the gradient of the same examples at once.",
            {"accumulation factor": factor},
        )


def _say_growing(m: Auditing, k: int, half: Sequence[int]) -> None:
    """Says why j micro-batches give j times the gradient: a reference tells which reason holds."""
    size = None
    if m.reference is not None:
        size = along(m.gradient(*[half] * k), reference_gradient(m, half))[0]
    if size is not None and m.near(size, 1):
        m.say(
            "short window",
            f"Every micro-batch is divided by {k}, also where the last update of an epoch has fewer: j of {k} give j/{k} of "
            "their gradient.",
            {"accumulation factor": k},
            "loss = loss / len(micro_batches)   # the micro-batches that this update really has",
        )
    elif size is not None and m.near(size, k):
        m.say(
            "not divided",
            f"The gradients of {k} micro-batches are added up and not divided: c = {k}.",
            {"accumulation factor": k, "c": size},
            f"(loss / {k}).backward()",
        )
    else:
        m.say(
            "grows with the window",
            f"j micro-batches give j times the gradient of the same examples at once: they are not divided by their number (then "
            f"c = {k}), or they are divided by a constant (then a short last window counts less).",
            {"accumulation factor": m.numbers["accumulation factor"]},
            "loss = loss / len(micro_batches)   # the micro-batches that this update really has",
        )
        m.unknown.append("Which of the two: not divided, or divided by a constant. Pass reference=, the loss for which c is 1.")


def _measure_unlike(m: Auditing) -> None:
    """Gives two micro-batches of one size that hold as unlike counts as can be, and all their examples at once."""
    h = m.half
    if m.has("coupled loss", "two terms", "term once a micro-batch", "changed between backwards", "batch norm"):
        return
    orders = [m.indices]
    if not m.has("random"):
        with suppress(ValueError, RuntimeError):  # as batch norm refuses one example
            orders.append(heaviest_last(m))
    apart, one, other = max((_apart(m, o[:h], o[h : 2 * h]), o[:h], o[h : 2 * h]) for o in orders)
    m.numbers["unlike micro-batches apart from their whole"] = apart
    if apart <= m.accuracy:
        return
    parts = [m.gradient(one), m.gradient(other)]
    windowed, _, _ = weights_in(m.gradient(one, other), parts)
    whole, _, _ = weights_in(m.gradient([*one, *other]), parts)
    _say_mean_of_means(m, h, windowed, whole, apart)


def _apart(m: Auditing, one: list[int], other: list[int]) -> float:
    """Returns how far two micro-batches are from their whole, as a share, apart from the factor of equal micro-batches."""
    windowed, whole = m.gradient(one, other), m.gradient(one + other)
    if m.bench.is_normalised:
        return along(windowed, whole)[1]
    factor = m.numbers["window of j / whole"][2]
    return float((windowed - factor * whole).norm() / (factor * whole).norm().clamp(min=NEAR_ZERO))


def _say_mean_of_means(m: Auditing, h: int, windowed: Sequence[float], whole: Sequence[float], apart: float) -> None:
    """Says that two micro-batches weigh otherwise than in one batch.

    Args:
      m: the audit.
      h: the number of examples in each.
      windowed: their weights as micro-batches.
      whole: their weights in one batch.
      apart: the share of the gradient that is off.
    """
    fix = "loss = losses.sum() / count_of_the_whole_update   # counted over all its micro-batches before the first backward"
    if not all(map(math.isfinite, [*windowed, *whole])):  # one of the two has no gradient
        m.say(
            "mean of means",
            f"Two micro-batches of {h} examples weigh otherwise than in one batch. It is a mean of means: {apart:.0%} of the "
            "gradient is off.",
            {"apart": apart},
            fix,
        )
        return
    total = sum(windowed) / sum(whole) if sum(whole) else 1.0
    numbers = {"as micro-batches": windowed, "in one batch": whole, "apart": apart}
    m.numbers |= {"weights as micro-batches": windowed, "weights in one batch": whole}
    m.say(
        "mean of means",
        f"Two micro-batches of {h} examples weigh {windowed[0]:.3g} and {windowed[1]:.3g}; in one batch they weigh "
        f"{whole[0] * total:.3g} and {whole[1] * total:.3g}. It is a mean of means: {apart:.0%} of the gradient is off.",
        numbers,
        fix,
    )
