"""How the gradient grows when the same examples come again: their mean stays, so the growth is that of c."""

import math

from lrscale.audit.auditing import Auditing
from lrscale.audit.vectors import along

NAMES = {0: "mean", 1: "sum", -1: "averaged twice"}
"""The reductions, by the power of the number of examples with which c grows."""


def measure_growth(m: Auditing) -> None:
    """Gives the step all examples once, twice and four times.

        c ~ n^q:  q = 0 for a mean, 1 for a sum, -1 for a loss that is averaged twice

    Where the direction changes, the loss has two parts that grow unlike, or it compares examples with each other.
    """
    n = len(m.indices)
    once, twice, four = (m.gradient(m.indices * times) for times in (1, 2, 4))
    (c2, bend2), (c4, bend4) = along(twice, once), along(four, once)
    m.numbers |= {"c(2n)/c(n)": c2, "c(4n)/c(n)": c4}
    whole = m.bench.whole_over_compared(m.indices)
    m.numbers["sizes"] = {times * n: whole * float(g.norm()) for times, g in ((1, once), (2, twice), (4, four))}
    if max(bend2, bend4) > m.accuracy:
        ratio, bend = along(four - twice, twice - once)
        if bend < max(100 * m.accuracy, 1e-3) and ratio > 0 and (m.near(ratio, 2) or m.near(ratio, 0.5)):
            power = round(math.log2(ratio))
            growing = (twice - once) / (2.0**power - 1)
            share = float((once - growing).norm() / growing.norm())
            m.numbers |= {"growing part": power, "still part / growing part": share}
            m.say(
                "two terms",
                f"The loss has two parts that do not grow alike: one grows as n^{power}, one stays. At n = {n} the one that "
                f"stays is {share:.2g} of the other. Which of the two rules depends on the batch size.",
                {"growing part": power, "still part / growing part": share},
                "loss = losses.mean() + penalty   # both once, over the same count",
            )
        else:
            bent = max(bend2, bend4)
            m.numbers["bent by repetition"] = bent
            m.say(
                "coupled loss",
                f"The same examples, repeated, give a gradient of another direction ({bent:.2g} of it): the loss compares "
                "examples with each other, as contrastive losses do, and the batch size is part of it. There is no c.",
                {"bent": bent},
            )
        return
    q = math.log2(c2) if c2 > 0 else math.nan
    m.numbers["growth"] = q
    name = next((NAMES[power] for power in NAMES if m.near(c2, 2.0**power)), "odd growth")
    m.numbers["reduction"] = name
    if name == "sum":
        m.say(
            name,
            f"The gradient grows in proportion to the number of examples (n^{q:.2f}): the loss is a sum, or a sum over a fixed "
            "count.",
            {"growth": q},
            "loss = losses.mean()   # or losses.sum() / the number of terms of the whole update",
        )
    elif name == "averaged twice":
        m.say(
            name,
            f"The gradient falls as one over the number of examples (n^{q:.2f}): the loss is averaged twice.",
            {"growth": q},
            "loss = losses.mean()   # and no further division by the batch size",
        )
    elif name == "odd growth":
        m.say(name, f"The gradient grows as n^{q:.2f} with the number of examples: neither a mean nor a sum.", {"growth": q})
