"""How the update answers to the gradient's size: p, clipping, loss scaling, eps and weight decay."""

import math
from dataclasses import replace
from typing import Any

from torch.optim import Optimizer

from lrscale.audit.auditing import Auditing
from lrscale.audit.bench import SMALL
from lrscale.audit.reading import Seen
from lrscale.audit.vectors import along
from lrscale.law.homogeneity import RESPONSES

GRADIENT_FACTORS = (SMALL, 0.25, 1.0, 4.0, 1 / SMALL)
"""What the gradients are multiplied by."""
CLIPPED = 1e-3
"""How much smaller than in proportion the given gradient is, where a clip acts on the largest."""
ACTS = 0.999
"""The share of a gradient that is left where a clip acts on it."""
EPS_ACTS = 0.02
"""How far p may be from the rule's where eps is small against the gradients."""


def measure_response(m: Auditing) -> None:
    """Multiplies the gradients by r, and reads what the optimizers are given and what the weights do.

    Gradients times r make updates times r^p. With weight decay switched off p is measured for each group of each optimizer.
    """
    if m.bench.is_by_hand:
        _measure_by_hand(m)
        return
    seen = {r: m.bench.run(m.indices, r=r, decays=False) for r in GRADIENT_FACTORS}
    own = m.bench.added()
    seen = {r: replace(run, given=run.given - own) for r, run in seen.items()}
    m.bench.restore()  # the weight decay too
    groups: list[dict[str, Any]] = []
    for number, optimizer in enumerate(m.bench.optimizers):
        for k, options in enumerate(optimizer.param_groups):
            if (number, k) in seen[1.0].moves:
                groups.append(_measure_group(seen, (number, k), optimizer, options))
    m.numbers["groups"] = groups
    powers = sorted({round(group["p"], 2) for group in groups if math.isfinite(group["p"])})
    if powers:
        m.numbers["p"] = next(group["p"] for group in groups if math.isfinite(group["p"]))
    m.numbers["optimizer"] = " and ".join(dict.fromkeys(group["optimizer"] for group in groups))
    if len(m.bench.optimizers) > 1:
        each = "; ".join(f"{type(optimizer).__name__} of lr {_lr(optimizer)}" for optimizer in m.bench.optimizers)
        m.say(
            "several optimizers", f"{len(m.bench.optimizers)} optimizers take a step in one update: {each}. Each has its own p."
        )
    if len(powers) > 1:
        each = "; ".join(f"{g['optimizer']} group {g['group']}: p = {g['p']:.2f}" for g in groups)
        m.say("several p", f"The groups of parameters answer unlike to the gradient's size: {each}.", {"p": powers})
    if not m.bench.is_normalised:
        _say_clip(m, seen)
        _say_decay(m)
    _say_eps(m, groups)


def _measure_group(
    seen: dict[float, Seen], key: tuple[int, int], optimizer: Optimizer, options: dict[str, Any]
) -> dict[str, Any]:
    """Returns what is measured of one group, with its options."""
    moves = {r: run.moves.get(key, 0.0) for r, run in seen.items()}
    is_near_clip = _ratio(seen[4.0]) < ACTS * _ratio(seen[1.0]) and _ratio(seen[1.0]) >= ACTS * _ratio(seen[SMALL])
    p = _power(moves[0.25], moves[1.0], 4.0) if is_near_clip else _power(moves[1.0], moves[4.0], 4.0)
    name = type(optimizer).__name__
    group = {"optimizer": name, "group": key[1], "p": p, "update": moves[1.0]}
    known = ("lr", "momentum", "betas", "weight_decay", "eps")
    return group | {name: _plain(options[name]) for name in known if name in options}


def _ratio(seen: Seen) -> float:
    """Returns how many times the raw gradient the optimizers are given."""
    return along(seen.given, seen.raw)[0]


def _plain(value: Any) -> Any:
    """Returns an option as plain numbers; None stays, as the first eps of Adafactor."""
    if isinstance(value, tuple | list):
        return tuple(_plain(part) for part in value)
    return None if value is None else float(value)


def _power(small: float, large: float, ratio: float) -> float:
    return math.log(large / small) / math.log(ratio) if small > 0 and large > 0 else math.nan


def _lr(optimizer: Optimizer) -> str:
    return ", ".join(dict.fromkeys(f"{float(group['lr']):g}" for group in optimizer.param_groups if "lr" in group))


def _measure_by_hand(m: Auditing) -> None:
    """Measures p of a step that changes the weights without an optimizer of torch."""
    moves = {r: float(m.bench.run(m.indices, r=r).update.norm()) for r in (0.0, 1.0, 4.0)}
    still = m.bench.run(m.indices, r=0.0).update
    one, four = (m.bench.run(m.indices, r=r).update - still for r in (1.0, 4.0))
    m.numbers["p"] = p = _power(float(one.norm()), float(four.norm()), 4.0)
    m.numbers["optimizer"] = "by hand"
    m.numbers["update without gradient"] = moves[0.0] / max(moves[1.0], 1e-300)
    if not abs(p - 1) < 0.01:
        m.unknown.append(
            f"How c grows: the step changes the weights without an optimizer of torch, and not in proportion to the gradient "
            f"(p = {p:.2f}). Write the rule as a torch.optim.Optimizer."
        )


def _say_clip(m: Auditing, seen: dict[float, Seen]) -> None:
    """Says whether gradients are clipped, at which norm, and whether they are still multiplied by a loss scale then."""
    ratios = {r: _ratio(run) for r, run in seen.items()}
    scale = ratios[SMALL]
    if not scale > 0:
        return
    m.numbers["given / raw"] = scale
    is_clipped = ratios[1 / SMALL] < CLIPPED * scale
    if not is_clipped:
        return
    threshold = math.sqrt(sum(norm**2 for norm in seen[1 / SMALL].norms.values()))
    norm = float(seen[1.0].raw.norm()) * scale * m.bench.whole_over_compared(m.indices)
    is_active = ratios[1.0] < ACTS * scale
    m.numbers |= {"clip threshold": threshold, "clip active": is_active, "gradient norm": norm}
    if scale < 1 / 16 and is_active and ratios[1.0] / scale < 16 * scale:
        m.say(
            "clip before unscale",
            f"The loss is multiplied by {1 / scale:g}, and gradients are clipped before they are divided again. The threshold is "
            f"{threshold:.3g} for a gradient of norm {norm:.3g}: almost nothing is left of it.",
            {"clip threshold": threshold, "loss scale": 1 / scale},
            "scaler.unscale_(optimizer)   # and only then clip_grad_norm_()",
        )
        return
    acts = f"it acts here, where the norm is {norm:.3g}" if is_active else f"it does not act here, where the norm is {norm:.3g}"
    m.say(
        "clip",
        f"Gradients are clipped at norm {threshold:.3g}: {acts}. The threshold is compared with the gradient, so it must be "
        "multiplied by c too. While it acts, p is 0.",
        {"clip threshold": threshold, "clip active": is_active},
    )


def _say_decay(m: Auditing) -> None:
    """Says whether weight decay grows with the batch as the gradient does."""
    decays = [
        group["weight_decay"] for optimizer in m.bench.optimizers for group in optimizer.param_groups if "weight_decay" in group
    ]
    growth = m.numbers.get("growth")
    if not any(float(decay) for decay in decays) or growth is None or abs(growth) < 0.5:
        return
    once, twice = (m.bench.run(m.indices * times, r=0.0).update.norm() for times in (1, 2))
    ratio = float(twice / once.clamp(min=1e-300))
    m.numbers["decay(2n)/decay(n)"] = ratio
    if m.near(ratio, 2.0**growth):
        sentence = f"It grows with the batch by {ratio:.2g}, as the gradient does: the two are in step."
    else:
        sentence = (
            f"It stays when the batch doubles, while the gradient is multiplied by {2.0**growth:.2g}. The two are in step where "
            "weight decay is multiplied by the batch size when it is set, as YOLOv5 does with its factor B/64."
        )
    m.say("weight decay", sentence, {"decay(2n)/decay(n)": ratio})


def _say_eps(m: Auditing, groups: list[dict[str, Any]]) -> None:
    """Says where eps is not small against the gradients, or where p is not that of the rule."""
    for group in groups:
        response = RESPONSES.get(group["optimizer"].lower())
        if response is None or not math.isfinite(group["p"]) or m.numbers.get("clip active"):
            continue
        if response.eps and response.p == 0 and abs(group["p"]) > EPS_ACTS:
            m.say(
                "eps acts",
                f"eps = {group.get('eps', math.nan):g} of {group['optimizer']} is not small against the gradients: p is "
                f"{group['p']:.2f} here and not 0, so the lr must change with c, and eps must be multiplied by c.",
                {"p": group["p"]},
            )
            return
