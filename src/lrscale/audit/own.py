"""What a step does to the gradient by itself, between the last backward and the update: it adds to it, or normalises it."""

from lrscale.audit.auditing import Auditing
from lrscale.audit.bench import SMALL

SMALLER = 1 / 64
"""How much smaller gradients are made, to see whether what the optimizer is given follows in proportion."""
OUT_OF_PROPORTION = 1e-3
"""How far it may be from that, as a share."""
SIZE_KINDS = frozenset(
    {
        *("sum", "averaged twice", "odd growth", "grows with the window", "not divided", "short window"),
        *("falls with the window", "accumulation factor"),
    }
)
"""The kinds that speak of the gradient's size alone, which a step that normalises it does not hand on."""


def measure_own(m: Auditing) -> None:
    """Makes the gradients of the backwards smaller, and looks whether what the optimizer is given follows."""
    bench, s = m.bench, m.indices
    if bench.is_by_hand:
        whole, own = bench.run(s).update, bench.run(s, r=0.0).update
    else:
        small, smaller = (bench.run(s, r=r, moves=False).given for r in (SMALL, SMALLER * SMALL))
        if float((smaller - SMALLER * small).norm()) <= OUT_OF_PROPORTION * float((SMALLER * small).norm()):
            return
        whole, own = bench.run(s).given, bench.run(s, r=0.0, moves=False).given
        if not float(own.norm()) > 0 and float(smaller.norm()) > 2 * float((SMALLER * small).norm()):
            bench.is_normalised = True
            m.say(
                "normalised",
                "The step divides the gradient by its own size, or takes its sign: the size does not reach the optimizer, and p "
                "is 0. All that is said is of the gradient before that.",
            )
    if not float(own.norm()) > 0:  # nan too
        return
    bench.adds_at = (s,)
    share = float(own.norm()) / max(float((whole - own).norm()), 1e-300)
    m.say(
        "added by the step",
        f"The step itself adds to the gradient, as weight decay or noise by hand: {share:.2g} of the loss's gradient here. It "
        "does not follow c, so it must be multiplied by c too. All else that is said is of the loss's gradient alone.",
        {"added by the step": share},
    )


def without_sizes(m: Auditing) -> None:
    """Takes back what was said of the gradient's size, where the step normalises the gradient."""
    if m.bench.is_normalised:
        m.findings = [
            finding
            for finding in m.findings
            if finding.kind not in SIZE_KINDS and not (finding.kind == "c" and finding.numbers["apart"] <= m.accuracy)
        ]
