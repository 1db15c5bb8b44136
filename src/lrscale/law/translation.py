"""Translates a tuned lr and its knobs (weight decay, eps, ...) to another reduction or batch size.

The translation has two parts. At one batch size it is exact algebra: where the gradient is c times as large, the lr must be
divided by c^p, and some other knobs must be scaled. From one batch size to another it depends on the regime, and only
experiments can tell.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lrscale.errors import Refusal
from lrscale.law.batch_size import REGIMES, Knob, Recommendation, Regime, recommend
from lrscale.law.evidence import MODELS, Evidence, find_evidence
from lrscale.law.homogeneity import RESPONSES, Response
from lrscale.rules import BOOLEAN, FRACTION, NOT_NEGATIVE, POSITIVE, Rule, check, integer, one_of

KNOBS: dict[str, Rule] = {
    "momentum": FRACTION,
    "beta1": FRACTION,
    "beta2": FRACTION,
    "weight_decay": NOT_NEGATIVE,
    "clip_norm": POSITIVE,
    "clip_value": POSITIVE,
    "eps": NOT_NEGATIVE,
    "loss_scale": POSITIVE,
    "l1": NOT_NEGATIVE,
    "l2": NOT_NEGATIVE,
}
"""The hyperparameters that are translated together with the lr, and their rules."""
KINDS = ("mean", "sum", "sum_over_nominal")
"""The reductions that a translation knows."""
SIZE = integer(1)


@dataclass(frozen=True)
class Batch:
    """The batch of one update: how its gradient is computed from its examples.

    Args:
      reduction: reduction of the loss over a micro-batch: `mean`, `sum` or `sum_over_nominal` (sum / micro-batch size).
      size: number of examples in one update, over all ranks and micro-batches.
      accumulation: number of micro-batches whose gradients are added up before an update.
      divided: whether the loss of each micro-batch is divided by the number of micro-batches.
      ranks: number of processes whose gradients DDP averages.
      terms: mean number of summed terms per example: K for a loss over K outputs, the share of targets that are not
        ignored with ignore_index, the mean weight with class weights. A mean divides by them, a sum does not.

    Raises:
      Refusal: a value breaks its rule, or the size is no multiple of ranks x accumulation.
    """

    reduction: str = "mean"
    size: int = 32
    accumulation: int = 1
    divided: bool = False
    ranks: int = 1
    terms: float = 1

    def __post_init__(self) -> None:
        check("reduction", one_of(*KINDS), self.reduction)
        check("batch_size", SIZE, self.size, "It is the number of examples in one update.")
        check("accumulation", SIZE, self.accumulation, "1 means no accumulation.")
        check("divided", BOOLEAN, self.divided)
        check("ranks", SIZE, self.ranks, "1 means a single process.")
        check("terms", POSITIVE, self.terms, "1 means one term per example.")
        if self.size % (self.ranks * self.accumulation):
            raise Refusal(
                f"`batch_size` must be a multiple of ranks x accumulation, got {self.size} for {self.ranks} x "
                f"{self.accumulation}. It is the number of examples in one update, over all ranks and micro-batches."
            )

    @property
    def micro_batch(self) -> int:
        """The number of examples in one backward pass."""
        return self.size // (self.ranks * self.accumulation)

    @property
    def backwards(self) -> int:
        """How many times a term of each micro-batch's loss counts in one update: accumulation adds it up, DDP averages it."""
        return 1 if self.divided else self.accumulation

    @property
    def c(self) -> float:
        """The gradient scale c: the update's gradient is c times the gradient of the mean over its terms.

        Example:
          >>> Batch("sum", 256).c, Batch("sum", 256, ranks=4).c, Batch("mean", 256, accumulation=8).c
          (256.0, 64.0, 8.0)
        """
        scales = {"mean": 1.0, "sum": self.micro_batch * self.terms, "sum_over_nominal": self.terms}
        return float(scales[self.reduction] * self.backwards)

    def __str__(self) -> str:
        parts = [f"{self.reduction}, B = {self.size}"]
        if self.accumulation > 1:
            parts.append(f"{self.accumulation} micro-batches{' divided' if self.divided else ' not divided'}")
        if self.ranks > 1:
            parts.append(f"{self.ranks} ranks")
        if self.terms != 1:
            parts.append(f"{self.terms:g} terms per example")
        return ", ".join(parts)


@dataclass(frozen=True)
class Translation:
    """The answer and its reasons: `knobs` is exact at the target's batch size; `rules` and `evidence` depend on the regime.

    `ratio` is the target's gradient scale divided by the source's. `lr_mean` is the lr under mean reduction that takes the
    same steps at the target's batch size. `caveats` says where the exact part is not exact. `rules` is empty where B does
    not change. `is_exact` says whether the knobs, as they are given, make exactly the same updates at one batch size.
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
    answer: Recommendation
    is_exact: bool


def translate(
    optimizer: str,
    lr: float,
    source: Batch,
    target: Batch,
    knobs: Mapping[str, float] | None = None,
    decoupled: bool | None = None,
    reports: Mapping[str, Mapping[str, Any]] | None = None,
    b_crit: float | None = None,
    model: str = "network",
) -> Translation:
    """Translates a tuned lr and its knobs from one way of computing a batch's gradient to another.

        lr' = lr / r^p,   r = c_target / c_source

    The trajectory stays the same if everything that is compared with a gradient is multiplied by r too.

    Args:
      optimizer: a name of `homogeneity.RESPONSES`, in upper or lower case.
      lr: the lr that was tuned under `source`; > 0.
      source: how the gradient was computed when lr was tuned.
      target: how it will be computed.
      knobs: values by the names of `KNOBS`; knobs that are left out are not used in training.
      decoupled: whether weight decay acts on the weights directly (lr x wd x weight) and is not added to the gradient;
        None for the optimizer's own way.
      reports: the report.json of published studies, by the name of the study.
      b_crit: the turn-over batch size of the task, > 0; None where it is not known.
      model: `network` or `least_squares`: the kind of model whose studies are quoted.

    Returns:
      The answer, and both parts of its reasons.

    Raises:
      Refusal: an optimizer or knob is not known, or a value breaks its rule.

    Source:
      Homogeneity of the update rules; tested on torch.optim in `tests/law/test_translation.py`.

    Example:
      >>> translation = translate("SGD", 0.1, Batch("mean", 32), Batch("sum", 32), {"weight_decay": 1e-4})
      >>> {knob.name: knob.after for knob in translation.knobs}
      {'lr': 0.003125, 'weight_decay': 0.0032}
    """
    name = optimizer.lower() if isinstance(optimizer, str) else optimizer
    check("optimizer", one_of(*RESPONSES), name)
    check("lr", POSITIVE, lr)
    if b_crit is not None:
        check("b_crit", POSITIVE, b_crit, "It is the batch size at the turn-over.")
    check("model", one_of(*MODELS), model, "It is the kind of model that is trained.")
    values = dict(knobs or {})
    for knob, value in values.items():
        if knob not in KNOBS:
            raise Refusal(f"`{knob}` is not known, got {value!r:.60}. Known: {', '.join(KNOBS)}.")
        check(knob, KNOBS[knob], value)
    response = RESPONSES[name]
    if decoupled is not None:
        response = response._replace(decay="decoupled" if decoupled else "coupled")
    p, ratio = response.p, target.c / source.c
    lr_mean = lr * source.c**p
    translated = [Knob("lr", lr, lr / ratio**p, f"p = {p:g}: " + ("lr / r" if p else "the gradient's size does not matter"))]
    translated += [_knob(name, value, response, source, target) for name, value in values.items()]
    rules: tuple[Regime, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    if target.size != source.size:
        growth = target.size / source.size
        rules = tuple(Regime(rule, lr_mean * growth**power / target.c**p, when) for rule, power, when in REGIMES)
        evidence = find_evidence(reports or {}, name, values, model, source.size, target.size, lr_mean, target.c)
    caveats = tuple(_caveats(name, response, values, ratio, source, target))
    if b_crit is not None and values.get("momentum"):
        caveats += (f"B_c must be one that was measured with momentum {values['momentum']:g}.",)
    answer = recommend(name, response, source.size, target.size, translated, b_crit)
    is_exact = ratio == 1 or not (response.note or _lacks_eps(response, values))
    return Translation(name, p, source, target, ratio, lr_mean, tuple(translated), caveats, rules, evidence, answer, is_exact)


def _lacks_eps(response: Response, knobs: Mapping[str, float]) -> bool:
    """Whether an eps that must be scaled was not given."""
    return response.p == 0 and response.eps and not knobs.get("eps")


def _knob(name: str, value: float, response: Response, source: Batch, target: Batch) -> Knob:
    """Returns the exact translation of one knob."""
    ratio = target.c / source.c
    if name in ("momentum", "beta1", "beta2"):
        return Knob(name, value, value, "has no unit")
    if name in ("l1", "l2"):
        factor = ratio * source.backwards / target.backwards
        reason = "part of the loss: x r"
        if source.backwards != target.backwards:
            reason = f"part of each micro-batch's loss, added {target.backwards} times: x {factor:g}"
        return Knob(name, value, value * factor, reason)
    if name in ("clip_norm", "clip_value"):
        return Knob(name, value, value * ratio, "compared with the gradient: x r")
    if name == "eps":
        if not response.eps:
            return Knob(name, value, value, "not compared with gradients alone")
        return Knob(name, value, value * ratio, "added to a gradient's size: x r")
    if name == "loss_scale":
        return Knob(name, value, value / ratio, "loss x scale stays in float16's range: / r")
    if response.decay == "coupled":
        return Knob(name, value, value * ratio, "coupled, added to the gradient: x r")
    if response.p:
        return Knob(name, value, value * ratio**response.p, "decoupled: lr x wd stays, and lr is / r")
    return Knob(name, value, value, "decoupled: lr x wd stays, and lr stays")


def _caveats(name: str, response: Response, knobs: Mapping[str, float], ratio: float, source: Batch, target: Batch) -> list[str]:
    """Returns the sentences that say where the exact part is not exact."""
    sentences = []
    if ratio == 1:
        same = source.size == target.size
        sentences.append("r = 1: nothing has to change." if same else "r = 1: only the batch size changes, see 2.")
    elif not math.log2(ratio).is_integer():
        sentences.append("r is not a power of two: the trajectories agree up to rounding, not bit for bit.")
    if response.note and ratio != 1:
        sentences.append(response.note)
    if ratio != 1 and _lacks_eps(response, knobs):
        sentences.append(
            "Multiply eps (not given) by r too: if eps stays, steps differ where gradients are near it, and p goes towards 1."
        )
    if response.p and ("clip_norm" in knobs or "clip_value" in knobs) and ratio != 1:
        sentences.append(
            "A clip that is always active makes p = 0: if its threshold stays, lr would have to stay too. Scale both."
        )
    if "sum" in (source.reduction, target.reduction) and source.reduction != target.reduction:
        sentences.append("A short last batch has more weight under mean than under sum: drop it, or divide by the nominal size.")
    if target.size != source.size:
        k = target.size / source.size
        if response.p == 0 and name not in ("adam", "adamw", "rmsprop", "lamb", "adagrad"):
            sentences.append(f"The square root rule was derived for Adam and RMSprop: for {name} it is an assumption.")
        if name in ("lars", "lamb"):  # You et al. 2017, arXiv 1708.03888; You et al. 2019, 1904.00962
            sentences.append(
                "Biases and norms that take a plain SGD step have p = 1: from one B to another theirs is the linear rule."
            )
        if name == "rmsprop":
            sentences.append(f"alpha is a beta: it goes to the power B'/B too, as in 0.99^{k:g} = {0.99**k:.4g}.")
        if name == "adafactor":
            sentences.append("torch takes min(lr, 1/sqrt(step)) as Adafactor's step: lr acts only while it is the smaller one.")
        if k * (1 - min(knobs.get("beta1", 1), knobs.get("beta2", 1))) > 1:
            sentences.append(
                "B'/B x (1 - beta) is above 1: the average becomes shorter than a step, and the rule was derived for long ones. "
                "Expect to tune again."
            )
        if "clip_norm" in knobs or "clip_value" in knobs:
            sentences.append("The clip threshold is not scaled with B: noise shrinks gradients as B grows, so a clip acts less.")
    if response.decay == "decoupled" and "weight_decay" in knobs:
        sentences.append(
            "Decay is taken as lr x weight_decay a step, as in torch. Decay that does not go through lr stays at one batch size, "
            "and from one to another it is multiplied by their ratio."
        )
    if "loss_scale" in knobs:  # torch.amp.GradScaler.step, DeepSpeed's fp16 optimizers
        sentences.append(
            "The loss scale is divided out before the step, so it is no part of c. A dynamic one (GradScaler, DeepSpeed) finds "
            "its value itself. Clip after scaler.unscale_(optimizer)."
        )
    if source.terms != 1 or target.terms != 1:
        sentences.append("Exact only where every micro-batch has the same number of terms; elsewhere c is an average.")
    return sentences
