"""`lrscale.assert_batch_invariant`: an audit as an assertion, for the tests of a team."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from lrscale.audit.audit import audit
from lrscale.audit.auditing import SMALLEST
from lrscale.audit.finding import MISTAKES, Audit
from lrscale.errors import Refusal

ALLOWED = MISTAKES | {"batch norm"}
"""The kinds of finding that may be allowed."""


def assert_batch_invariant(
    step: Callable[..., Any],
    batch: Any = None,
    model: nn.Module | Iterable[nn.Module | Tensor] | None = None,
    *,
    allow: Iterable[str] = (),
    tolerance: float = SMALLEST,
    **options: Any,
) -> Audit:
    """Asserts that the same examples, grouped otherwise, give the same update.

    Args:
      step: makes one update from a list of micro-batches; see `audit`.
      batch: the examples; see `audit`.
      model: the model that is trained.
      allow: kinds of finding that are accepted, as `("sum",)`.
      tolerance: the smallest share of a gradient that counts.
      options: further arguments of `audit`, such as `accumulation`, `reference` or `ranks`.

    Returns:
      The audit.

    Raises:
      AssertionError: the update depends on how the examples are grouped, or is not that of the reference, or the step cannot be
        audited. The text is that of the audit.
      Refusal: an argument cannot be used.
    """
    __tracebackhide__ = True  # pytest shows the line of the test, and not this function
    allowed = frozenset([allow] if isinstance(allow, str) else allow)
    if allowed - ALLOWED:
        unknown = ", ".join(sorted(allowed - ALLOWED))
        raise Refusal(f"`allow` must name kinds of finding, got {unknown}. Known: {', '.join(sorted(ALLOWED))}.")
    result = audit(step, batch, model, tolerance=tolerance, **options)
    found = [finding for finding in result.findings if finding.is_mistake and finding.kind not in allowed]
    if result.ok is None or found:
        raise AssertionError(str(result))
    return result
