"""Known mistakes in the scale of a gradient, one small file each: what went wrong in public, and the right form beside it.

Each file has `right(seed, dtype)`, and `wrong(seed, dtype)` where a mistake is known. Both return a Case. A seed draws the
data and the weights. Files named ddp_* have `make_wrong` and `make_right` instead, which build a step in each process of a
group of torch.distributed, and WRONG and RIGHT, which say what an audit must find. This module holds the pieces that the
files share. The page README.md is made from the files and from real audits: python -m tests.cases
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Batch = dict[str, Tensor]
"""A batch or a micro-batch: tensors with the examples along the first axis."""
Step = Callable[[Sequence[Any]], None]
"""Makes one update from the micro-batches of a window."""
Loss = Callable[[Batch, Sequence[Batch]], Tensor]
"""The scalar loss of one micro-batch; it also sees all micro-batches of the window."""

Model = TypeVar("Model", bound=nn.Module)

EXAMPLES, FEATURES, LENGTH = 6, 5, 6
"""Sizes of the small batches: examples, numbers per input, and tokens per sentence."""
IGNORED = -100
"""The target of a token that does not count, as in torch's cross entropy."""


VERDICTS: dict[str | None, bool | None] = {
    None: True,
    **dict.fromkeys(("clip before unscale", "not a mean", "two counts"), True),
    **dict.fromkeys(("closure", "weights move"), None),
}
"""The verdicts of an audit other than False, by the kind of finding: right steps, what is said and not blamed, and refusals."""


class Case(NamedTuple):
    """A training step, and what an audit must find in it.

    Attributes:
      step: makes one update from a list of micro-batches.
      batch: the examples, as `lrscale.audit` takes them.
      model: what the step trains.
      options: further arguments of `lrscale.audit`.
      kind: the kind of finding that the audit must name; None where the step is right.
      numbers: numbers that the audit must measure, by their keys in `Audit.numbers`.
    """

    step: Step
    batch: Any
    model: nn.Module
    options: Mapping[str, Any] = {}
    kind: str | None = None
    numbers: Mapping[str, Any] = {}


Made = tuple[Step, Any, nn.Module, dict[str, Any]]
"""What each rank makes: a step, a batch, a model, and further arguments of `lrscale.audit`."""


class Expected(NamedTuple):
    """What an audit over two ranks must find; see Case."""

    kind: str | None = None
    numbers: Mapping[str, Any] = {}


def generator(seed: int) -> torch.Generator:
    """A generator of random numbers for the data."""
    return torch.Generator().manual_seed(seed)


def points(seed: int, dtype: torch.dtype, classes: int = 3) -> Batch:
    """Inputs x [example, feature] with their classes y [example]; each class is there equally often."""
    draw = generator(seed)
    x = torch.randn(EXAMPLES, FEATURES, generator=draw, dtype=torch.float64)
    return {"x": x.to(dtype), "y": torch.randperm(EXAMPLES, generator=draw) % classes}


def sentences(seed: int, dtype: torch.dtype, classes: int = 4) -> Batch:
    """Inputs x [example, token, feature] with a class for each token, y [example, token].

    One to six tokens of a sentence count, another number in each; the other targets are IGNORED.
    """
    draw = generator(seed)
    x = torch.randn(EXAMPLES, LENGTH, FEATURES, generator=draw, dtype=torch.float64)
    y = torch.randint(classes, (EXAMPLES, LENGTH), generator=draw)
    counted = 1 + torch.randperm(EXAMPLES, generator=draw)
    y[torch.arange(LENGTH) >= counted[:, None]] = IGNORED
    return {"x": x.to(dtype), "y": y}


def seeded(seed: int, dtype: torch.dtype, build: Callable[[], Model]) -> Model:
    """The model that `build` returns, with weights that come from the seed; torch's own random state is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build().to(dtype)


def net(seed: int, dtype: torch.dtype, outputs: int = 3) -> nn.Sequential:
    """A small network of one hidden layer."""
    return seeded(seed, dtype, lambda: nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, outputs)))


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    """Plain SGD over all weights."""
    return torch.optim.SGD(model.parameters(), lr=0.1)


def loop(model: nn.Module, loss: Loss, optimizer: torch.optim.Optimizer | None = None, clip: float | None = None) -> Step:
    """The usual step: one backward for each micro-batch, then clip if asked to, then one update."""
    optimizer = optimizer or sgd(model)

    def step(window: Sequence[Batch]) -> None:
        optimizer.zero_grad()
        for micro in window:
            loss(micro, window).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()

    return step


def class_loss(model: nn.Module, micro: Batch, reduction: str = "mean") -> Tensor:
    """Cross entropy of the examples' classes."""
    return F.cross_entropy(model(micro["x"]), micro["y"], reduction=reduction)


def token_loss(model: nn.Module, micro: Batch, reduction: str = "mean") -> Tensor:
    """Cross entropy of the tokens that count."""
    return F.cross_entropy(model(micro["x"]).flatten(0, 1), micro["y"].flatten(), reduction=reduction)


def tokens(micro: Batch) -> int:
    """How many tokens count."""
    return int((micro["y"] != IGNORED).sum())


def tokens_of_all_ranks(window: Sequence[Batch]) -> int:
    """How many tokens count in the windows of all processes of the group together."""
    count = torch.tensor(sum(map(tokens, window)))
    torch.distributed.all_reduce(count)
    return int(count)


def penalty(model: nn.Module) -> Tensor:
    """The sum of squares of all weights: a term that belongs to no example."""
    return torch.stack([weight.square().sum() for weight in model.parameters()]).sum()
