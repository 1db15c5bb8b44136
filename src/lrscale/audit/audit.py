"""`lrscale.audit`: what one update of a training step does to the gradient."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from traceback import walk_tb
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lrscale.audit.auditing import SMALLEST, Auditing
from lrscale.audit.bench import Bench
from lrscale.audit.entries import trained
from lrscale.audit.examples import MOST, Examples
from lrscale.audit.finding import Audit
from lrscale.audit.growth import measure_growth
from lrscale.audit.own import without_sizes
from lrscale.audit.parts import measure_parts
from lrscale.audit.processes import in_processes
from lrscale.audit.ranks import Shared, measure_ranks, measure_share
from lrscale.audit.reading import IsClosure
from lrscale.audit.response import measure_response
from lrscale.audit.sanity import can_be_audited, say_closure
from lrscale.audit.size import measure_size
from lrscale.audit.state import State
from lrscale.audit.translations import with_translations
from lrscale.audit.windows import measure_windows
from lrscale.errors import Failure, Refusal
from lrscale.rules import POSITIVE, check, integer

DTYPE_ERRORS = ("dtype", "double", "float", "type", "bfloat16", "half")
"""Words of torch's errors where a step mixes dtypes."""


def audit(
    step: Callable[[list[Any]], Any],
    batch: Any = None,
    model: nn.Module | Iterable[nn.Module | Tensor] | None = None,
    *,
    accumulation: int | None = None,
    reference: Callable[[Any], Tensor] | None = None,
    collate: Callable[[list[Any]], Any] | None = None,
    ranks: int = 1,
    restore: Sequence[Any] = (),
    tolerance: float = SMALLEST,
) -> Audit:
    """Measures what a training step does to the gradient: how it is averaged, accumulated, clipped and turned into an update.

    The step is run up to 60 times on compositions of a few examples of the batch, each time from the same state. Everything
    that the step reaches is put back: weights, buffers, optimizers, schedulers, averages, counters and random states. What it
    prints, logs or writes to files stays.

    It works in float64 where the step can, and else in the dtype of the model. Dropout is switched off, and random draws are
    the same for all examples.

    Args:
      step: makes one update from a list of micro-batches, as in `for batch in micro_batches: loss(batch).backward()` between
        `optimizer.zero_grad()` and `optimizer.step()`. Given alone it is a function without arguments that returns
        `(step, batch, model)`, or `(step, batch, model, options)` with options of this function by name.
      batch: tensors, or tuples, lists, mappings or dataclasses of tensors, with four examples or more along the first axis.
        With `collate`, a list of examples.
      model: the model that is trained, a list of models, or their parameters.
      accumulation: the number of micro-batches in one update; None where they are not accumulated.
      reference: returns the loss for which c is 1, for a batch. It tells the size of the gradient.
      collate: makes a batch of a list of examples, as in a DataLoader. It tells whether padding counts.
      ranks: the number of processes to compare with one. Then `step` is given alone: a function that makes them, and is called
        in each process, in a gloo group of torch.distributed.
      restore: further objects to put back, which the step does not reach by itself.
      tolerance: the smallest share of a gradient that is spoken of.

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
      >>> sorted(audit(step, x, [weight]).kinds)
      ['sum']
    """
    check("accumulation", integer(1), 1 if accumulation is None else accumulation, "It counts the micro-batches of an update.")
    check("ranks", integer(1), ranks, "It is the number of processes.")
    check("tolerance", POSITIVE, tolerance, "It is a share of the gradient, such as 1e-3.")
    if not callable(step):
        raise Refusal(f"`step` must be a function of a list of micro-batches, got {type(step).__name__}.")
    given = Request(step, batch, whole_model(model), accumulation, reference, collate, tuple(restore), tolerance)
    if ranks > 1:
        return _with_ranks(given, ranks)
    return audited(given if batch is not None or model is not None else _made(given))


def whole_model(model: Any) -> Any:
    """Returns several models as one, and parameters of any iterable as a list."""
    if model is None or isinstance(model, nn.Module):
        return model
    parts = list(model.values() if isinstance(model, Mapping) else model) if isinstance(model, Iterable) else []
    return nn.ModuleList(parts) if parts and all(isinstance(part, nn.Module) for part in parts) else parts


class Request(NamedTuple):
    """The arguments of an audit."""

    step: Callable[..., Any]
    batch: Any
    model: Any
    accumulation: int | None = None
    reference: Callable[[Any], Tensor] | None = None
    collate: Callable[[list[Any]], Any] | None = None
    restore: tuple[Any, ...] = ()
    tolerance: float = SMALLEST


def audited(given: Request, shared: list[Shared] | None = None) -> Audit:
    """Makes an audit in this process.

    Args:
      given: its arguments.
      shared: what the ranks of several processes measured, [rank]; None where there are none.
    """
    if given.batch is None or given.model is None:
        raise Refusal("`batch` and `model` must be given, got None. Only a function that makes step, batch and model goes alone.")
    kept = State([*given], trained(given.model))

    def measured(dtype: torch.dtype | None) -> Auditing:
        m = auditing(given, dtype)
        measure(m, shared)
        return m

    try:
        m = measured(None) if shared else _in_float64(measured, trained(given.model), given.model)
    except Exception as error:
        kept.restore()
        if not isinstance(error, Refusal | Failure) and _is_of_step(error) and _runs_on_all(given):
            raise Refusal(
                f"`step` must run on batches made of 1 to 24 of the batch's examples, got {type(error).__name__}: "
                f"{error!s:.200}. Read the number of examples from the batch, as in len(x)."
            ) from error
        raise
    finally:
        kept.restore()
    return concluded(m)


def _is_of_step(error: Exception) -> bool:
    """Returns whether an error comes from a run of the step."""
    return any(frame.f_code is Bench._run.__code__ for frame, _ in walk_tb(error.__traceback__))


def _runs_on_all(given: Request) -> bool:
    """Returns whether the step runs on the whole batch, so that its errors come from other numbers of examples."""
    examples = Examples(given.batch, given.collate)
    try:
        given.step([examples.make(range(examples.count)) for _ in range(given.accumulation or 1)])
    except Exception:
        return False
    return True


def auditing(given: Request, dtype: torch.dtype | None = None, window: int | None = None) -> Auditing:
    """Returns an empty audit.

    Args:
      given: its arguments.
      dtype: the dtype of floating-point inputs; None for the one they have.
      window: the number of micro-batches of each update, where it is fixed.
    """
    examples = Examples(given.batch, given.collate)
    parameters = trained(given.model)
    bench = Bench(given.step, examples, parameters, State([*given], parameters), dtype, window)
    indices = list(range(min(examples.count, MOST)))
    return Auditing(
        bench, indices, examples.count, given.accumulation, given.reference, given.tolerance, accuracy=given.tolerance
    )


def concluded(m: Auditing) -> Audit:
    """Returns what was found, mistakes first."""
    findings = sorted(with_translations(m), key=lambda finding: not finding.is_mistake)
    return Audit(tuple(findings), m.numbers, tuple(dict.fromkeys(m.unknown)), m.bench.runs)


def _made(given: Request) -> Request:
    """Calls a function that makes step, batch and model, and returns them with the options given beside it."""
    parts = given.step()
    if not isinstance(parts, tuple) or len(parts) not in (3, 4) or not callable(parts[0]):
        raise Refusal(
            f"`step` must return (step, batch, model) or (step, batch, model, options) where it is alone, got {parts!r:.80}. "
            "Or give step, batch and model apart."
        )
    step, batch, model, *rest = parts
    options = dict(rest[0]) if rest else {}
    known = set(Request._fields) - {"step", "batch", "model"}
    if set(options) - known:
        raise Refusal(f"`options` must have the names {', '.join(sorted(known))}, got {', '.join(sorted(set(options) - known))}.")
    beside = {name: getattr(given, name) for name, default in Request._field_defaults.items() if getattr(given, name) != default}
    return Request(**{**options, **beside, "step": step, "batch": batch, "model": whole_model(model)})


def _with_ranks(given: Request, ranks: int) -> Audit:
    """Compares several processes with one. In each the step is made anew."""
    if given.batch is not None or given.model is not None:
        raise Refusal(
            "`ranks` must go with a function that makes step, batch and model in each process, got step, batch and model. "
            "Give make, where make() returns (step, batch, model)."
        )

    def share(rank: int) -> Shared:
        return measure_share(auditing(_made(given)), rank, ranks)

    shared = in_processes(share, ranks)
    audit: Audit = in_processes(lambda rank: audited(_made(given), shared), 1)[0]
    return replace(audit, runs=audit.runs + ranks * shared[0].runs)


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


def measure(m: Auditing, shared: list[Shared] | None = None) -> None:
    """Makes all measurements of a step."""
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
    if shared:
        measure_ranks(m, shared)
    elif m.bench.window is None:
        m.unknown.append("Whether several ranks are one process. Pass ranks=, with a function that makes the step.")
    measure_response(m)
    without_sizes(m)
    if m.bench.state.left:
        m.unknown.append(f"Not put back, as too large: {', '.join(m.bench.state.left)}.")
