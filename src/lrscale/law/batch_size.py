"""Recommends an lr and its knobs for another batch size, by the rules that the literature knows.

At one batch size a translation is algebra. From one to another it is a rule with an assumption, which only experiments can
test.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lrscale.law.homogeneity import Response


@dataclass(frozen=True)
class Knob:
    """One translated hyperparameter: its name, its value before and after, and the reason."""

    name: str
    before: float
    after: float
    reason: str


@dataclass(frozen=True)
class Regime:
    """A rule for the best lr against B. `lr` is the lr that it gives for the target; `when` says where it holds."""

    name: str
    lr: float
    when: str


@dataclass(frozen=True)
class Recommendation:
    """The lr and the knobs to train with, the rule that gives them, what it assumes and what would change it."""

    rule: str
    knobs: tuple[Knob, ...]
    assumption: str
    otherwise: str


REGIMES = (
    (
        "linear",
        1.0,
        "Far below the turn-over, where noise limits lr. Goyal et al. 2017: SGD with momentum, ResNet-50 on ImageNet, B up to "
        "8192, 5 epochs of warm-up",
    ),
    (
        "square root",
        0.5,
        "Adam and RMSprop where noise dominates (Malladi et al. 2022); LAMB (You et al. 2019: BERT, B up to 32768, warm-up); "
        "proposed for SGD too (Hoffer et al. 2017)",
    ),
    (
        "constant lr",
        0.0,
        "Far above the turn-over, where curvature limits lr (McCandlish et al. 2018)",
    ),
)
"""Each rule for the best lr: its name, the power of B in lr_mean*, and where it holds.

Source: Goyal et al. 2017, arXiv 1706.02677; Malladi et al. 2022, 2205.10287; McCandlish et al. 2018, 1812.06162; You et al.
2019, 1904.00962; Hoffer et al. 2017, 1705.08741. Shallue et al. 2019, 1811.03600, tested such rules.
"""


def recommend(
    optimizer: str, response: Response, before: int, after: int, exact: Sequence[Knob], b_crit: float | None
) -> Recommendation:
    """Returns the recommended lr and knobs: the exact translation, then one rule where the batch size changes.

    With k = B'/B and lr_mean' = f lr_mean, a run over the same examples takes 1/k as many steps. Decay that is multiplied
    by lr is scaled by k/f, so lr x wd x steps stays. Coupled decay and penalties under p = 0 are divided by a gradient's size
    too, which noise makes s = sqrt(k) times smaller, so they are scaled by k/(f s), and eps by 1/s. With a turn-over B_c, k
    becomes k (B + B_c)/(B' + B_c) in f and s. Adagrad divides by a root of summed squares, for which s = k.

    Args:
      optimizer: a name of `homogeneity.RESPONSES`.
      response: its response, with the way in which decay acts.
      before: batch size under which the lr was tuned.
      after: batch size that is asked for.
      exact: lr and knobs translated by algebra alone.
      b_crit: the turn-over batch size; None where it is not known.

    Source:
      Goyal et al. 2017 (linear); McCandlish et al. 2018 (turn-over); Malladi et al. 2022 (square root, betas, eps). Decay: this
      derivation; for AdamW the study `batch_rules` confirms it, and in `batch_rules_chars` decay does too little to tell.
    """
    k = after / before
    if k == 1:
        return Recommendation(
            "exact", tuple(exact), "nothing: B does not change, so this is algebra.", "Nothing would change it."
        )
    turn = 1.0 if b_crit is None else (before + b_crit) / (after + b_crit)
    beta = next((knob.before for knob in exact if knob.name == "momentum"), 0.0)
    if response.p == 1:
        factor, rule = k * turn, "linear" if b_crit is None else "turn-over"
        assumption = "gradient noise limits lr: both batch sizes are far below the turn-over B_c."
        otherwise = "Far above it the best lr under mean is constant: give --b-crit if you know B_c."
    else:
        factor, rule = math.sqrt(k * turn), "square root" if b_crit is None else "square root with turn-over"
        assumption = "gradient noise dominates the size of a gradient at both batch sizes."
        otherwise = "Where it does not, the best lr under mean grows less: give --b-crit if you know the turn-over B_c."
    if optimizer == "adagrad":  # its root of summed squares over the same examples is k times smaller, its steps k times fewer
        factor, rule, otherwise = 1.0, "constant lr", "Where it does not, measure it with lrscale run -m."
    elif b_crit is not None:
        power = "" if response.p == 1 else "the square root of "
        assumption = f"the best lr under mean grows as {power}B / (B + {b_crit:g})."
        otherwise = "Another turn-over batch size would change it."
    if beta and response.p == 1 and b_crit is None:  # studies momentum_edge and momentum
        shift = (1 + beta) / (1 - beta)
        otherwise += (
            f" On least squares heavy-ball momentum {beta:g} moves B_c: x {shift:.3g} where stability limits lr, down where few "
            "epochs do."
        )
    # how much smaller the divisor of a gradient becomes: its size, whose square goes with 1 + B_c/B, or Adagrad's root
    size = 1.0 if response.p else k if optimizer == "adagrad" else math.sqrt(k * turn)
    with_gradient = k / (factor * size), "goes with lr over the size of a gradient, so pull x steps stays"
    timescale = k / factor, "lr x weight decay x steps stays"
    penalty = with_gradient if response.p == 0 else (k / factor, "lr x penalty x steps stays")
    companions = {
        "lr": (factor, f"{rule} rule"),
        "weight_decay": with_gradient if response.p == 0 and response.decay == "coupled" else timescale,
        "l1": penalty,
        "l2": penalty,
    }
    if response.eps:
        of_root = optimizer == "adagrad"
        companions["eps"] = 1 / size, "as the root of summed squares" if of_root else "noise makes a gradient smaller"
    knobs = []
    for knob in exact:
        if knob.name in ("beta1", "beta2"):
            reason = "power B'/B: the same memory in examples"  # to first order Malladi's 1 - beta' = k (1 - beta)
            knobs.append(Knob(knob.name, knob.before, knob.before**k, reason))
            continue
        scale, why = companions.get(knob.name, (1.0, "as in 1"))
        knobs.append(Knob(knob.name, knob.before, knob.after * scale, why if scale == 1 else f"{why}: x {scale:.4g}"))
    return Recommendation(rule, tuple(knobs), assumption, otherwise)
