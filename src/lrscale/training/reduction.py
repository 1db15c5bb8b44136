"""The effect of the loss reduction on the gradient: the weight of each example, and the gradient scale c.

A reduction is declared in `REDUCTIONS`, as a function of the terms of the examples of a step; see `example_weights`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lrscale.spec import Training, is_own

if TYPE_CHECKING:
    from torch import Tensor


def _mean(terms: Tensor, batch_size: int) -> Tensor:
    """Returns 1 / (sum of the terms of the example's micro-batch), [.., example]."""
    import torch

    parts = terms.split(batch_size, dim=-1)
    return torch.cat([(1 / part.sum(-1, keepdim=True)).expand_as(part) for part in parts], -1)


REDUCTIONS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "mean": _mean,
    "sum": lambda terms, batch_size: terms.new_ones(terms.shape),
    "sum_over_nominal": lambda terms, batch_size: terms.new_full(terms.shape, 1 / batch_size),
}
"""Each reduction's function, by name. It returns the weight of each example, [.., example], from the terms [.., example] and
the nominal size of a micro-batch."""


STEP_DIVISORS: dict[str, Callable[[Any, int], Any]] = {
    "mean": lambda terms, batch_size: terms,
    "sum": lambda terms, batch_size: 1.0,
    "sum_over_nominal": lambda terms, batch_size: float(batch_size),
}
"""By what the summed loss of a step is divided in a task of the user's own: a function of the sum of weights of the step's
terms, over all its micro-batches, and of the nominal size of a micro-batch."""


def example_weights(reduction: str, terms: Tensor, batch_size: int) -> Tensor:
    """Returns the weight of each example's loss in the loss that a step differentiates.

    A step takes one or more micro-batches of `batch_size` examples. The last one may be short. The step adds up their
    gradients without dividing them, as `backward` does:

        mean               1 / (sum of the terms of the example's micro-batch)
        sum                1
        sum_over_nominal   1 / batch_size, also where the micro-batch is short

    Args:
      reduction: a name of `REDUCTIONS`.
      terms: how much each example's loss counts, [.., example]: 1 for a plain loss, the class weight of the example
        where classes are weighted, 0 where a target is ignored.
      batch_size: nominal size of a micro-batch, B.

    Returns:
      Weights, [.., example]. They are to be multiplied with the terms and with the losses of the examples.

    Source:
      The losses of torch.nn; pinned by `test_one_step_equals_autograd_over_micro_batches`.
    """
    return REDUCTIONS[reduction](terms, batch_size)


def gradient_scale(reduction: str, terms: Tensor, batch_size: int) -> Tensor:
    """Returns the gradient scale c: the gradient of a step is c x the gradient of the mean loss over its examples.

    This holds exactly where every micro-batch of the step has the same sum of terms.

    Args:
      reduction: a name of `REDUCTIONS`.
      terms: as in `example_weights`, [.., example].
      batch_size: nominal size of a micro-batch, B.

    Returns:
      c, [..]: 1 for one micro-batch under mean, B under sum, k for k micro-batches under mean.

    Example:
      >>> import torch
      >>> gradient_scale("sum", torch.ones(32), batch_size=8).item()
      32.0
      >>> gradient_scale("mean", torch.ones(32), batch_size=8).item()
      4.0
    """
    return (example_weights(reduction, terms, batch_size) * terms).sum(-1)


def step_gradient_scale(training: Training) -> float:
    """Returns the gradient scale c of a full step of a training, of which every example has the mean number of terms.

    In a task of the user's own, `mean` is over the terms of the whole step, however many micro-batches it has.
    """
    if is_own(training.task.name):
        terms = training.task.options["n_terms"] * training.step_examples
        return float(terms / STEP_DIVISORS[training.reduction](terms, training.batch_size))
    if training.batch_size.bit_count() == 1 and training.reduction in STEP_DIVISORS:
        # 1/B and all sums are exact, and torch takes seconds to import
        return float(training.step_examples if training.reduction == "sum" else training.accumulation)
    import torch

    terms = torch.ones(training.step_examples, dtype=torch.float64)
    return float(gradient_scale(training.reduction, terms, training.batch_size))
