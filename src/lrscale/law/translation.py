"""Translates a tuned lr and its companion knobs to another reduction or batch size.

Two questions are kept apart. At one batch size the answer is algebra: a gradient c times larger needs an lr c^p times
smaller, and some other knobs scaled. From one batch size to another the answer depends on the regime: experiments decide.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lrscale.errors import Refusal
from lrscale.law.homogeneity import RESPONSES, Response
from lrscale.rules import BOOLEAN, FRACTION, NOT_NEGATIVE, POSITIVE, Rule, check, integer, is_number, one_of

KNOBS: dict[str, Rule] = {
    "momentum": FRACTION,
    "weight_decay": NOT_NEGATIVE,
    "clip_norm": POSITIVE,
    "clip_value": POSITIVE,
    "eps": NOT_NEGATIVE,
    "l1": NOT_NEGATIVE,
    "l2": NOT_NEGATIVE,
}
SIZE = integer(1)


@dataclass(frozen=True)
class Batch:
    """How the gradient of one update is put together.

    Args:
      reduction: of the loss over a micro-batch: `mean`, `sum` or `sum_over_nominal` (sum / micro-batch size).
      size: examples of one update, over all ranks and micro-batches.
      accumulation: micro-batches whose gradients are added up before an update.
      divided: whether each micro-batch's loss is divided by their number.
      ranks: processes whose gradients DDP averages.
      terms: summed terms an example, on average: K for a loss over K outputs, the kept share of targets with
        ignore_index, the mean weight with class weights. A mean divides by them, a sum does not.

    Raises:
      Refusal: a value breaks its rule, or the size cannot be shared out evenly.
    """

    reduction: str = "mean"
    size: int = 32
    accumulation: int = 1
    divided: bool = False
    ranks: int = 1
    terms: float = 1

    def __post_init__(self) -> None:
        check("reduction", one_of("mean", "sum", "sum_over_nominal"), self.reduction)
        check("batch_size", SIZE, self.size, "It counts the examples of one update.")
        check("accumulation", SIZE, self.accumulation, "1 is none.")
        check("divided", BOOLEAN, self.divided)
        check("ranks", SIZE, self.ranks, "1 is a single process.")
        check("terms", POSITIVE, self.terms, "1 is a plain loss.")
        if self.size % (self.ranks * self.accumulation):
            raise Refusal(
                f"`batch_size` must be a multiple of ranks x accumulation, got {self.size} for {self.ranks} x "
                f"{self.accumulation}. It counts the examples of one update, over all ranks and micro-batches."
            )

    @property
    def micro_batch(self) -> int:
        """Examples of one backward pass."""
        return self.size // (self.ranks * self.accumulation)

    @property
    def backwards(self) -> int:
        """How often something added to each micro-batch's loss counts in one update: DDP averages, accumulation adds."""
        return 1 if self.divided else self.accumulation

    @property
    def c(self) -> float:
        """Gradient scale: the update's gradient is c x the gradient of the mean over its terms.

        Example:
          >>> Batch("sum", 256).c, Batch("sum", 256, ranks=4).c, Batch("mean", 256, accumulation=8).c
          (256.0, 64.0, 8.0)
        """
        one = {"mean": 1.0, "sum": self.micro_batch * self.terms, "sum_over_nominal": self.terms}[self.reduction]
        return float(one * self.backwards)

    def __str__(self) -> str:
        parts = [f"{self.reduction}, B = {self.size}"]
        if self.accumulation > 1:
            parts.append(f"{self.accumulation} micro-batches{' divided' if self.divided else ' not divided'}")
        if self.ranks > 1:
            parts.append(f"{self.ranks} ranks")
        if self.terms != 1:
            parts.append(f"{self.terms:g} terms an example")
        return ", ".join(parts)


@dataclass(frozen=True)
class Knob:
    """One hyperparameter: its name, what it was, what it becomes, and why."""

    name: str
    before: float
    after: float
    reason: str


@dataclass(frozen=True)
class Regime:
    """A rule for the best lr against B: its name, the lr in the target's units, and when it holds."""

    name: str
    lr: float
    when: str


@dataclass(frozen=True)
class Evidence:
    """What a published study measured over a range that contains both batch sizes, and the lr that follows.

    `measure`: `slope`, the power of B in lr_mean*, or `b_c`, of the form lr_sum* = eta_max / (B + B_c); `value` and
    `lr`: each with the ends of its 95 % interval. The lr carries over the form alone: the task was another.
    """

    study: str
    measure: str
    conditions: str
    value: tuple[float, float, float]
    lr: tuple[float, float, float]


@dataclass(frozen=True)
class Translation:
    """The two answers: `knobs` is exact at the target's batch size; `rules` and `evidence` depend on the regime.

    `ratio`: the target's gradient scale over the source's; `lr_mean`: the lr under mean that `knobs` equal at the
    target's batch size. `caveats`: where the exact answer is not exact. `rules` is empty where B does not change.
    """

    optimizer: str
    p: float
    source: Batch
    target: Batch
    ratio: float
    lr_mean: float
    knobs: tuple[Knob, ...]
    caveats: tuple[str, ...]
    rules: tuple[Regime, ...]
    evidence: tuple[Evidence, ...]


def translate(
    optimizer: str,
    lr: float,
    source: Batch,
    target: Batch,
    knobs: Mapping[str, float] | None = None,
    decoupled: bool | None = None,
    reports: Mapping[str, Mapping[str, Any]] | None = None,
) -> Translation:
    """Translates a tuned lr and its companions from one way of making a batch's gradient to another.

        lr' = lr / r^p,   r = c_target / c_source

    which gives the same trajectory where everything compared with a gradient is scaled by r too.

    Args:
      optimizer: a name of `homogeneity.RESPONSES`; capitals do not matter.
      lr: tuned under `source`; > 0.
      source: how the gradient was made when lr was tuned.
      target: how it will be made.
      knobs: values by the names of `KNOBS`; those left out are not used.
      decoupled: whether weight decay acts beside the gradient (lr x wd x weight); None for the optimizer's own way.
      reports: published studies' report.json by study.

    Returns:
      Both answers.

    Raises:
      Refusal: an unknown optimizer or knob, or a value against its rule.

    Source:
      Homogeneity of the update rules; pinned on torch.optim in `tests/law/test_translation.py`.

    Example:
      >>> found = translate("SGD", 0.1, Batch("mean", 32), Batch("sum", 32), {"weight_decay": 1e-4})
      >>> {knob.name: knob.after for knob in found.knobs}
      {'lr': 0.003125, 'weight_decay': 0.0032}
    """
    name = optimizer.lower() if isinstance(optimizer, str) else optimizer
    check("optimizer", one_of(*RESPONSES), name, "Names are those of torch.optim.")
    check("lr", POSITIVE, lr)
    given = dict(knobs or {})
    for knob, value in given.items():
        if knob not in KNOBS:
            raise Refusal(f"`{knob}` is not known, got {value!r:.60}. Known: {', '.join(KNOBS)}.")
        check(knob, KNOBS[knob], value)
    response = RESPONSES[name]
    if decoupled is not None:
        response = response._replace(decay="decoupled" if decoupled else "coupled")
    p, ratio = response.p, target.c / source.c
    lr_mean = lr * source.c**p
    changed = [Knob("lr", lr, lr / ratio**p, f"p = {p:g}: " + ("lr / r" if p else "the gradient's size does not count"))]
    changed += [_knob(name, value, response, source, target) for name, value in given.items()]
    rules: tuple[Regime, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    if target.size != source.size:
        growth = target.size / source.size
        rules = tuple(Regime(n, lr_mean * growth**power / target.c**p, when) for n, power, when in REGIMES)
        evidence = _evidence(reports or {}, p, source.size, target.size, lr_mean, target.c)
    caveats = tuple(_caveats(response, given, ratio, source, target))
    return Translation(name, p, source, target, ratio, lr_mean, tuple(changed), caveats, rules, evidence)


REGIMES = (
    ("linear", 1.0, "lr_mean* ~ B: noise limits, B far below the turn-over"),
    ("square root", 0.5, "lr_mean* ~ sqrt(B): Adam where noise dominates; else in between"),
    ("no change", 0.0, "lr_mean* constant: curvature limits, B far above the turn-over"),
)
"""Name, power of B in lr_mean*, and where it holds (Goyal et al. 2017; Malladi et al. 2022; McCandlish et al. 2018)."""


def _knob(name: str, value: float, response: Response, source: Batch, target: Batch) -> Knob:
    ratio = target.c / source.c
    if name == "momentum":
        return Knob(name, value, value, "has no unit")
    if name in ("l1", "l2"):
        factor = ratio * source.backwards / target.backwards
        why = "part of the loss: x r"
        if source.backwards != target.backwards:
            why = f"part of each micro-batch's loss: x {factor:g}, as it is added {target.backwards} times"
        return Knob(name, value, value * factor, why)
    if name in ("clip_norm", "clip_value"):
        return Knob(name, value, value * ratio, "compared with the gradient: x r")
    if name == "eps":
        if not response.eps:
            return Knob(name, value, value, "not compared with gradients alone")
        return Knob(name, value, value * ratio, "added to a gradient's size: x r")
    if response.decay == "coupled":
        return Knob(name, value, value * ratio, "coupled, added to the gradient: x r")
    if response.p:
        return Knob(name, value, value * ratio**response.p, "decoupled: lr x wd acts, and lr is / r")
    return Knob(name, value, value, "decoupled: lr x wd acts, and lr stays")


def _caveats(response: Response, given: Mapping[str, float], ratio: float, source: Batch, target: Batch) -> list[str]:
    out = []
    if ratio == 1:
        out.append("r = 1: nothing has to change.")
    elif not math.log2(ratio).is_integer():
        out.append("r is no power of two: the trajectories agree to rounding, not bit for bit.")
    if response.note and ratio != 1:
        out.append(response.note)
    if response.p == 0 and response.eps and ratio != 1 and not given.get("eps"):
        out.append("eps (not given) is x r too; left alone, the steps differ where gradients come near it, and p drifts to 1.")
    if response.p and ("clip_norm" in given or "clip_value" in given) and ratio != 1:
        out.append("A clip that is always active makes p = 0: with its threshold left alone, lr would then stay. Scale both.")
    if "sum" in (source.reduction, target.reduction) and source.reduction != target.reduction:
        out.append("A short last batch weighs more under mean than under sum: drop it, or divide by the nominal size.")
    if source.terms != 1 or target.terms != 1:
        out.append("Exact where every micro-batch has the same number of terms; c is an average elsewhere.")
    return out


def _evidence(
    reports: Mapping[str, Mapping[str, Any]], p: float, before: int, after: int, lr_mean: float, c: float
) -> tuple[Evidence, ...]:
    """Returns, for each family with this p, the slope of the narrowest range and the turn-over of each study."""
    found = []
    for study, report in sorted(reports.items()):
        sizes = [cell["batch_size"] for cell in report.get("cells", ()) if is_number(cell.get("batch_size"))]
        if not sizes or not min(sizes) <= min(before, after) <= max(before, after) <= max(sizes):
            continue
        families = [r["of"] for r in report.get("ratios", ()) if -r["expected"] == p]
        for of in families:
            where = ", ".join([str(report.get("objective")), *(f"{k}={v}" for k, v in of.items())])
            lines = [(_range(line, sizes), line) for line in report.get("slopes", ()) if line["of"] == of and line["ci"]]
            lines = [(r, x) for r, x in lines if r[0] <= min(before, after) and max(before, after) <= r[1]]
            lines = [(r, x) for r, x in lines if x["reduction"] in ("mean", "sum")]
            if lines:
                (low, high), line = min(lines, key=lambda pair: (pair[0][1] / pair[0][0], pair[1]["reduction"] == "sum"))
                more = p if line["reduction"] == "sum" else 0.0  # lr_sum* = lr_mean* / B^p
                slope = (line["slope"] + more, line["ci"][0] + more, line["ci"][1] + more)
                lrs = [lr_mean * (after / before) ** power / c**p for power in slope]
                found.append(Evidence(study, "slope", f"B {low:g} to {high:g}, {where}", slope, _ordered(lrs)))
            for turn in report.get("turn_over", ()):
                if p == 1 and turn["of"] == of and turn["ci"] and min(sizes) < turn["b_c"] < max(sizes):
                    b_c = (turn["b_c"], turn["ci"][0], turn["ci"][1])
                    lrs = [lr_mean * after * (before + b) / (before * (after + b)) / c for b in b_c]
                    found.append(Evidence(study, "b_c", f"B {min(sizes)} to {max(sizes)}, {where}", b_c, _ordered(lrs)))
    return tuple(found)


def _range(line: Mapping[str, Any], sizes: Sequence[float]) -> tuple[float, float]:
    """Returns the smallest and the largest batch size over which a slope was measured."""
    low, high = line["low"] or 0, line["high"] or math.inf
    inside = [size for size in sizes if low <= size <= high]
    return (min(inside), max(inside)) if inside else (math.inf, 0)


def _ordered(lrs: Sequence[float]) -> tuple[float, float, float]:
    return lrs[0], min(lrs), max(lrs)
