"""Measures the gradient scale c of a reduction, of gradient accumulation, and of torch's DDP over real processes."""

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
from lrscale.tasks.built_in import BuiltInTask
from lrscale.tasks.registry import TASKS
from lrscale.training.process_group import in_ranks
from lrscale.training.quantity import Quantity
from lrscale.training.reference_loop import make_module, module_of

OUTPUTS, IGNORED = 10, -100
"""The number of outputs of the module, and the target that means "ignore this example"."""
CLASS_WEIGHTS = torch.linspace(0.1, 1.9, OUTPUTS, dtype=torch.float64)
"""The class weights of the loss `weighted`, [class]."""
MEASURED = ("mean", "sum", "sum_over_nominal")
"""The reductions that are measured."""

Loss = Callable[[Tensor, Tensor, str], Tensor]
"""A function of outputs, targets and a reduction of torch (`mean` or `sum`) that returns the reduced loss."""


def _with_ignored(y: Tensor) -> Tensor:
    """Returns the targets with about 30 % of them replaced by IGNORED; a fixed random stream chooses them."""
    ignored = torch.rand(len(y), generator=generator("probe", "gradient_scale", "ignored")) < 0.3
    return y.masked_fill(ignored, IGNORED)


class LossKind(NamedTuple):
    """A loss of torch.nn.functional, with its targets and terms.

    `loss(out, targets, reduction)` returns the reduced loss. `targets(y)` makes the loss's targets from classes. `terms(y)`
    returns the terms of each example, [example]: how much its target counts. `even` says whether every example has the same
    number of terms.
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
        _with_ignored,
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
"""The losses that can be measured, by the value of the option `loss`."""


Way = tuple[str, str, int]
"""One way to make a gradient: a loss, a reduction, and a number of micro-batches."""


class RankShare(NamedTuple):
    """The work of one process: a module, and the examples whose losses it differentiates.

    `ways` are the ways to make a gradient, one after the other. `size` is the number of examples in a micro-batch. `x` are
    the features, [example, feature], and `y` the targets, [example, ...], by the name of the loss.
    """

    module: nn.Module
    ways: tuple[Way, ...]
    size: int
    x: Tensor
    y: dict[str, Tensor]

    def plain(self) -> list[Any]:
        """Returns the share in JSON's types. `of` reads it back."""
        weights = [parameter.tolist() for parameter in self.module.parameters()]
        return [weights, self.ways, self.size, self.x.tolist(), {name: y.tolist() for name, y in self.y.items()}]

    @classmethod
    def of(cls, plain: list[Any]) -> "RankShare":
        """Returns the share that `plain` has written."""
        weights, ways, size, x, y = plain
        module = module_of([_tensor(values) for values in weights])
        return cls(module, tuple(map(tuple, ways)), size, _tensor(x), {name: _tensor(values) for name, values in y.items()})


def _tensor(values: Any) -> Tensor:
    """Returns nested lists as a tensor: integers as classes, other numbers as float64."""
    tensor = torch.tensor(values)
    return torch.tensor(values, dtype=torch.float64) if tensor.is_floating_point() else tensor


def measure(training: Training, task: BuiltInTask) -> list[Quantity]:
    """Measures c by projecting the gradient g of a step on the gradient g_mean of the mean loss over the same terms.

        c = g . g_mean / g_mean . g_mean

    Each of `ranks` processes holds `accumulation` micro-batches of `batch_size` examples. If there are several processes,
    they form a real group of torch.distributed and use DistributedDataParallel. Each reduction has these quantities:

    - `c REDUCTION`: c of one micro-batch per process.
    - `c REDUCTION accumulated`: c of all micro-batches, where there is more than one per process.
    - `norm REDUCTION`: the norm of the gradient of one micro-batch per process.
    - `apart REDUCTION accumulated`: |g - c g_mean| / |g| of all micro-batches, for mean and sum.

    The expected c is `Batch.c` of `law.translation`. Nothing is expected under mean where the micro-batches differ in terms.
    """
    assert training.probe is not None
    ranks, loss = training.probe.options["ranks"], training.probe.options["loss"]
    size, accumulation, kind = training.batch_size, training.accumulation, LOSSES[loss]
    module, rank_examples = make_module(task, training.seeds[0]).double(), size * accumulation
    x = task.data.x[: ranks * rank_examples].double()
    y = {name: other.targets(task.data.y[: ranks * rank_examples]) for name, other in LOSSES.items()}
    counts = tuple(dict.fromkeys((1, accumulation)))
    ways = tuple((name, reduction, count) for name in LOSSES for count in counts for reduction in MEASURED)
    slices = [slice(rank * rank_examples, (rank + 1) * rank_examples) for rank in range(ranks)]
    shares = [RankShare(module, ways, size, x[part], {name: targets[part] for name, targets in y.items()}) for part in slices]
    if ranks == 1:
        step_gradients = gradients(shares[0])
    else:  # the gradients of every loss, so that cells that differ only in the loss need one group
        step_gradients = [_tensor(values) for values in in_ranks(gradients_of_rank, [share.plain() for share in shares])]
    quantities = []
    for (name, reduction, count), gradient in zip(ways, step_gradients, strict=True):
        if name != loss:
            continue
        indices = torch.cat([torch.arange(part.start, part.start + count * size) for part in slices])
        all_examples = RankShare(module, ((loss, "mean", 1),), len(indices), x[indices], {loss: y[loss][indices]})
        terms = float(kind.terms(y[loss][indices]).mean())
        batch = Batch(reduction, len(indices), accumulation=count, ranks=ranks, terms=terms)
        exact = kind.even or reduction != "mean" or ranks * count == 1
        quantities += _compared(gradient, gradients(all_examples)[0], batch, exact)
    return quantities


def _compared(gradient: Tensor, mean: Tensor, batch: Batch, exact: bool) -> list[Quantity]:
    """Returns the quantities that compare a gradient with the gradient `mean` of the mean loss over all terms.

    `exact` says whether theory gives an exact c for this batch.
    """
    c, label = float(gradient @ mean / (mean @ mean)), batch.reduction + (" accumulated" if batch.accumulation > 1 else "")
    quantities = [Quantity(f"c {label}", c, expected=batch.c if exact else None)]
    if batch.accumulation == 1:
        expected_norm = batch.c * float(mean.norm()) if exact else None
        return [*quantities, Quantity(f"norm {label}", float(gradient.norm()), expected=expected_norm)]
    if batch.reduction != "sum_over_nominal":
        residual = float((gradient - c * mean).norm() / gradient.norm())
        quantities.append(Quantity(f"apart {label}", residual, expected=0.0 if exact else None))
    return quantities


def gradients(share: RankShare, module: nn.Module | None = None) -> list[Tensor]:
    """Returns the gradient of each way of a share, as `backward` leaves it in `.grad`, [parameter] each.

    `module` is the share's module wrapped in DistributedDataParallel; None takes the share's module itself.
    """
    module, vectors = module or share.module, []
    for name, reduction, count in share.ways:
        module.zero_grad()
        xs, ys = share.x[: count * share.size].split(share.size), share.y[name][: count * share.size].split(share.size)
        for x, y in zip(xs, ys, strict=True):
            loss = LOSSES[name].loss(module(x), y, "mean" if reduction == "mean" else "sum")
            (loss / share.size if reduction == "sum_over_nominal" else loss).backward()
        vectors.append(torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None]))
    return vectors


def gradients_of_rank(plain: list[Any]) -> list[list[float]]:
    """Returns the `gradients` of a share under DistributedDataParallel. Both the share and the answer have JSON's types.

    DistributedDataParallel averages the gradients of each backward pass over the group.
    """
    share = RankShare.of(plain)
    return [gradient.tolist() for gradient in gradients(share, nn.parallel.DistributedDataParallel(share.module))]


def _check(training: Training) -> None:
    """Raises Refusal unless the task has classes, and enough examples for all ranks."""
    assert training.probe is not None
    if not TASKS[training.task.name].classes:
        raise Refusal(f"`probe` gradient_scale needs a task with classes, got task {training.task.name}. Take task=digits.")
    ranks = training.probe.options["ranks"]
    if ranks * training.step_examples > training.examples:
        raise Refusal(
            f"`probe.ranks` x accumulation x batch_size must not exceed the {training.examples} training examples, "
            f"got {ranks} x {training.step_examples}. Take fewer ranks or a smaller batch_size."
        )


PROBES.declare(
    "gradient_scale",
    Probe(
        about="How many times larger is a step's gradient than the gradient of the mean loss? Needs a task with classes.",
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
