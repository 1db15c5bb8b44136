"""The gradient scale c, measured: of a reduction, of accumulation, and of torch's DDP over real processes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lrscale.errors import Refusal
from lrscale.law.translation import Batch
from lrscale.probes import PROBES, Probe
from lrscale.rules import integer, one_of
from lrscale.spec import Option, Training
from lrscale.streams import generator
from lrscale.tasks.registry import TASKS
from lrscale.tasks.task import Task
from lrscale.training.process_group import in_ranks
from lrscale.training.quantity import Quantity
from lrscale.training.reference_loop import make_module, module_of

OUTPUTS, IGNORED = 10, -100
CLASS_WEIGHTS = torch.linspace(0.1, 1.9, OUTPUTS, dtype=torch.float64)
MEASURED = ("mean", "sum", "sum_over_nominal")

Loss = Callable[[Tensor, Tensor, str], Tensor]


def _ignored(y: Tensor) -> Tensor:
    gone = torch.rand(len(y), generator=generator("probe", "gradient_scale", "ignored")) < 0.3
    return y.masked_fill(gone, IGNORED)


class LossKind(NamedTuple):
    """A loss of torch.nn.functional: how its targets are made from classes, and how much each target counts (its terms).

    `even`: whether every example has the same number of terms.
    """

    loss: Loss
    targets: Callable[[Tensor], Tensor]
    terms: Callable[[Tensor], Tensor]
    even: bool


LOSSES: dict[str, LossKind] = {
    "plain": LossKind(
        lambda out, y, reduction: nn.functional.cross_entropy(out, y, reduction=reduction),
        lambda y: y,
        lambda y: torch.ones(len(y), dtype=torch.float64),
        True,
    ),
    "outputs": LossKind(
        lambda out, y, reduction: nn.functional.mse_loss(out, y, reduction=reduction),
        lambda y: nn.functional.one_hot(y, OUTPUTS).double(),
        lambda y: torch.full((len(y),), float(OUTPUTS), dtype=torch.float64),
        True,
    ),
    "ignored": LossKind(
        lambda out, y, reduction: nn.functional.cross_entropy(out, y, reduction=reduction, ignore_index=IGNORED),
        _ignored,
        lambda y: (y != IGNORED).double(),
        False,
    ),
    "weighted": LossKind(
        lambda out, y, reduction: nn.functional.cross_entropy(out, y, CLASS_WEIGHTS, reduction=reduction),
        lambda y: y,
        lambda y: CLASS_WEIGHTS[y],
        False,
    ),
}


Way = tuple[str, str, int]
"""A loss, a reduction, and a number of micro-batches."""


class RankShare(NamedTuple):
    """The share of one process: a module, and the examples whose losses it differentiates in micro-batches of a size."""

    module: nn.Module
    ways: tuple[Way, ...]
    size: int
    x: Tensor
    y: dict[str, Tensor]  # by the loss

    def plain(self) -> list[Any]:
        """In JSON's types; `of` reads it back."""
        weights = [parameter.tolist() for parameter in self.module.parameters()]
        return [weights, self.ways, self.size, self.x.tolist(), {name: y.tolist() for name, y in self.y.items()}]

    @classmethod
    def of(cls, plain: list[Any]) -> "RankShare":
        weights, ways, size, x, y = plain
        module = module_of([_tensor(values) for values in weights])
        return cls(module, tuple(map(tuple, ways)), size, _tensor(x), {name: _tensor(values) for name, values in y.items()})


def _tensor(values: Any) -> Tensor:
    """Returns nested lists as a tensor: integers as classes, other numbers as float64."""
    made = torch.tensor(values)
    return torch.tensor(values, dtype=torch.float64) if made.is_floating_point() else made


def measure(training: Training, task: Task) -> list[Quantity]:
    """Measures c by projecting a step's gradient on that of the mean loss over the same terms.

        c = g . g_mean / g_mean . g_mean

    Each of `ranks` processes holds `accumulation` micro-batches of `batch_size` examples; more than one process is a
    real group under DistributedDataParallel. Quantities, for each reduction: `c REDUCTION`, of one micro-batch a
    process, and `c REDUCTION accumulated`, of all; `norm REDUCTION`, the gradient's norm; and `apart`, how far the mean
    reduction's accumulated gradient is from c g_mean, as a part of it. Expected is `translate.Batch.c`.
    """
    assert training.probe is not None
    ranks, loss = training.probe.options["ranks"], training.probe.options["loss"]
    size, parts, kind = training.batch_size, training.accumulation, LOSSES[loss]
    module, each = make_module(task, training.seeds[0]).double(), size * parts
    x = task.data.x[: ranks * each].double()
    y = {name: other.targets(task.data.y[: ranks * each]) for name, other in LOSSES.items()}
    counts = tuple(dict.fromkeys((1, parts)))
    ways = tuple((name, reduction, n) for name in LOSSES for n in counts for reduction in MEASURED)
    pieces = [slice(r * each, (r + 1) * each) for r in range(ranks)]
    shares = [RankShare(module, ways, size, x[p], {name: of[p] for name, of in y.items()}) for p in pieces]
    if ranks == 1:
        found = gradients(shares[0])
    else:  # of every loss: one group serves all
        found = [_tensor(values) for values in in_ranks(gradients_of_rank, [share.plain() for share in shares])]
    out = []
    for (name, reduction, n), gradient in zip(ways, found, strict=True):
        if name != loss:
            continue
        seen = torch.cat([torch.arange(p.start, p.start + n * size) for p in pieces])
        whole = RankShare(module, ((loss, "mean", 1),), len(seen), x[seen], {loss: y[loss][seen]})
        terms = float(kind.terms(y[loss][seen]).mean())
        batch = Batch(reduction, len(seen), accumulation=n, ranks=ranks, terms=terms)
        exact = kind.even or reduction != "mean" or ranks * n == 1
        out += _compared(gradient, gradients(whole)[0], batch, exact)
    return out


def _compared(gradient: Tensor, mean: Tensor, batch: Batch, exact: bool) -> list[Quantity]:
    """Returns the quantities that compare a gradient with the gradient of the mean over all terms."""
    c, label = float(gradient @ mean / (mean @ mean)), batch.reduction + (" accumulated" if batch.accumulation > 1 else "")
    out = [Quantity(f"c {label}", c, expected=batch.c if exact else None)]
    if batch.accumulation == 1:
        expected = batch.c * float(mean.norm()) if exact else None
        return [*out, Quantity(f"norm {label}", float(gradient.norm()), expected=expected)]
    if batch.reduction != "sum_over_nominal":
        apart = float((gradient - c * mean).norm() / gradient.norm())
        out.append(Quantity(f"apart {label}", apart, expected=0.0 if exact else None))
    return out


def gradients(share: RankShare, module: nn.Module | None = None) -> list[Tensor]:
    """Returns the gradient that each way leaves in `.grad`, [parameter]; the module may be wrapped in DistributedDataParallel."""
    module, out = module or share.module, []
    for name, reduction, parts in share.ways:
        module.zero_grad()
        xs, ys = share.x[: parts * share.size].split(share.size), share.y[name][: parts * share.size].split(share.size)
        for x, y in zip(xs, ys, strict=True):
            loss = LOSSES[name].loss(module(x), y, "mean" if reduction == "mean" else "sum")
            (loss / share.size if reduction == "sum_over_nominal" else loss).backward()
        out.append(torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None]))
    return out


def gradients_of_rank(plain: list[Any]) -> list[list[float]]:
    """Returns `gradients` of a share in JSON's types, under DistributedDataParallel, which averages them over the group."""
    share = RankShare.of(plain)
    return [gradient.tolist() for gradient in gradients(share, nn.parallel.DistributedDataParallel(share.module))]


def _check(training: Training) -> None:
    assert training.probe is not None
    if not TASKS[training.task.name].classes:
        raise Refusal(f"`probe` gradient_scale needs a task with classes, got task {training.task.name}. Take task=digits.")
    ranks = training.probe.options["ranks"]
    if ranks * training.step_examples > training.examples:
        raise Refusal(
            f"`probe.ranks` x accumulation x batch_size must not exceed the {training.examples} training examples, "
            f"got {ranks} x {training.step_examples}. Take fewer."
        )


PROBES.declare(
    "gradient_scale",
    Probe(
        about="How large is a step's gradient beside that of the mean loss? Needs a task with classes.",
        options={
            "loss": Option(
                "plain",
                one_of(*LOSSES),
                "plain (cross-entropy), outputs (MSELoss over 10 outputs), ignored (ignore_index) or weighted (class weights)",
            ),
            "ranks": Option(
                1, integer(1, 16), "processes of a torch.distributed group, each with accumulation x batch_size examples"
            ),
        },
        check=_check,
        measure=measure,
    ),
)
