"""`lrscale.audit`: what one update of a training step does to the gradient."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lrscale.audit.auditing import Auditing
from lrscale.audit.bench import Bench, IsClosure, trained
from lrscale.audit.examples import MOST, Examples
from lrscale.audit.finding import Audit
from lrscale.audit.growth import measure_growth
from lrscale.audit.parts import measure_parts
from lrscale.audit.response import measure_response
from lrscale.audit.sanity import can_be_audited, say_closure
from lrscale.audit.size import measure_size
from lrscale.audit.state import State
from lrscale.audit.translations import with_translations
from lrscale.audit.windows import measure_windows
from lrscale.errors import Refusal
from lrscale.rules import check, integer

DTYPE_ERRORS = ("dtype", "double", "float", "type", "bfloat16", "half")
"""Words of torch's errors where a step mixes dtypes."""


def audit(
    step: Callable[[list[Any]], Any],
    batch: Any,
    model: nn.Module | Sequence[Tensor],
    *,
    accumulation: int | None = None,
    reference: Callable[[Any], Tensor] | None = None,
    collate: Callable[[list[Any]], Any] | None = None,
    ranks: int = 1,
    restore: Sequence[Any] = (),
) -> Audit:
    """Measures what a training step does to the gradient: how it is averaged, accumulated, clipped and turned into an update.

    The step is run up to 60 times on compositions of a few examples of the batch, each time from the same state. Everything
    that the step reaches is put back: weights, buffers, optimizers, schedulers, averages, counters and random states. What it
    prints, logs or writes to files stays.

    It works in float64 where the step can, and else in the dtype of the model. Dropout is switched off, and random draws are
    the same for all examples.

    Args:
      step: makes one update from a list of micro-batches, as in `for batch in micro_batches: loss(batch).backward()` between
        `optimizer.zero_grad()` and `optimizer.step()`.
      batch: tensors, or tuples, lists, mappings or dataclasses of tensors, with four examples or more along the first axis.
        With `collate`, a list of examples.
      model: the model that is trained, or a list of its parameters.
      accumulation: the number of micro-batches in one update; None where they are not accumulated.
      reference: returns the loss for which c is 1, for a batch. It tells the size of the gradient.
      collate: makes a batch of a list of examples, as in a DataLoader. It tells whether padding counts.
      ranks: the number of processes to compare with one; see `audit_ranks`.
      restore: further objects to put back, which the step does not reach by itself.

    Returns:
      The findings, with their numbers.

    Raises:
      Refusal: an argument cannot be used, or the step does not run on batches of other sizes.

    Source:
      `tests/audit/test_cases.py` audits the mistakes and the right steps of `tests/cases`.

    Example:
      >>> weight = torch.ones(3, requires_grad=True)
      >>> optimizer = torch.optim.SGD([weight], lr=0.1)
      >>> def step(micro_batches):
      ...     optimizer.zero_grad()
      ...     for x in micro_batches:
      ...         (x @ weight).square().sum().backward()
      ...     optimizer.step()
      >>> x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
      >>> sorted(lrscale.audit(step, x, [weight]).kinds)
      ['sum']
    """
    check(
        "accumulation", integer(1), 1 if accumulation is None else accumulation, "It is the number of micro-batches of an update."
    )
    check("ranks", integer(1), ranks, "It is the number of processes.")
    if not callable(step):
        raise Refusal(f"`step` must be a function of a list of micro-batches, got {type(step).__name__}.")
    examples, parameters = Examples(batch, collate), trained(model)
    kept = State([step, model, reference, collate, *restore])

    def measured(dtype: torch.dtype | None) -> Auditing:
        indices = list(range(min(examples.count, MOST)))
        state = State([step, model, reference, collate, *restore])
        bench = Bench(step, examples, parameters, state, dtype)
        m = Auditing(bench, indices, examples.count, accumulation, reference, model)
        _measure(m)
        return m

    try:
        m = _in_float64(measured, parameters, model)
    finally:
        kept.restore()
    return Audit(tuple(_by_weight(m)), m.numbers, tuple(dict.fromkeys(m.unknown)), m.bench.runs)


def _in_float64(measured: Callable[[torch.dtype | None], Auditing], parameters: Sequence[Tensor], model: Any) -> Auditing:
    """Measures in float64, or in the model's dtype where the step cannot."""
    dtypes = {tensor.dtype for tensor in parameters}
    if dtypes == {torch.float64}:
        return measured(torch.float64)
    try:
        with _as_float64(model, parameters):
            return measured(torch.float64)
    except Refusal:
        raise
    except (RuntimeError, TypeError) as error:
        if not any(word in str(error).lower() for word in DTYPE_ERRORS):
            raise
    m = measured(None)
    m.say("not in float64", "The step does not run in float64: effects below its rounding cannot be seen.")
    return m


@contextmanager
def _as_float64(model: Any, parameters: Sequence[Tensor]) -> Iterator[None]:
    """Gives all floating-point tensors of a model float64 copies for a while."""
    tensors = [*model.parameters(), *model.buffers()] if isinstance(model, nn.Module) else list(parameters)
    kept = [(tensor, tensor.data, tensor.grad) for tensor in tensors if tensor.is_floating_point()]
    for tensor, data, _ in kept:
        tensor.grad = None
        tensor.data = data.double()
    try:
        yield
    finally:
        for tensor, data, gradient in kept:
            tensor.grad = None
            tensor.data = data
            tensor.grad = gradient


def _measure(m: Auditing) -> None:
    """Makes all measurements of a step in one process."""
    try:
        if not can_be_audited(m):
            return
    except IsClosure:
        say_closure(m)
        return
    measure_growth(m)
    measure_parts(m)
    measure_windows(m)
    measure_size(m)
    measure_response(m)
    if m.bench.state.left:
        m.unknown.append(f"Not put back, as too large: {', '.join(m.bench.state.left)}.")


def _by_weight(m: Auditing) -> list[Any]:
    """Returns the findings with their translations, mistakes first."""
    return sorted(with_translations(m), key=lambda finding: not finding.is_mistake)
