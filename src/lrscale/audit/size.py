"""The size of the gradient against a reference: the loss for which c is 1."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lrscale.audit.auditing import Auditing
from lrscale.audit.draws import SharedDraws
from lrscale.audit.vectors import along
from lrscale.errors import Refusal


def measure_size(m: Auditing) -> None:
    """Compares the gradient of all examples with that of the reference."""
    if m.reference is None:
        m.unknown.append(
            "The size of the gradient, such as 1/K of a loss over K outputs. Pass reference=, the loss for which c is 1."
        )
        return
    if m.bench.is_by_hand:
        m.unknown.append(
            "The size of the gradient: the step changes the weights without an optimizer of torch, and hides its lr."
        )
        return
    k = m.accumulation or 1
    c, apart = along(m.gradient(*[m.indices] * k), reference_gradient(m, m.indices))
    m.numbers |= {"c": c, "c at examples": k * len(m.indices), "apart from reference": apart}
    is_explained = m.has("sum", "averaged twice", "odd growth") or (m.has("not divided") and m.near(c, k))
    if apart <= m.accuracy and (m.near(c, 1) or is_explained):
        return
    off = f", and {apart:.1%} of it has another direction" if apart > m.accuracy else ""
    micros = f"{k} equal micro-batches of {len(m.indices)} examples" if k > 1 else f"{len(m.indices)} examples"
    m.say("c", f"The gradient of {micros} is {c:.4g} times the reference's{off}.", {"c": c, "apart": apart})


def reference_gradient(m: Auditing, indices: Sequence[int]) -> Tensor:
    """Returns the gradient of the reference loss on some examples, [entry].

    Raises:
      Refusal: the reference does not return a loss with a gradient.
    """
    assert m.reference is not None
    m.bench.restore()
    batch = m.bench.examples.make(indices, m.bench.dtype)
    with m.bench.fixed_draws(SharedDraws()):
        loss = m.reference(batch)
        if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
            raise Refusal("`reference` must return one loss with a gradient, for a batch. Return losses.mean(), for example.")
        gradients = torch.autograd.grad(loss.sum(), m.bench.entries.parameters, allow_unused=True)
    return m.bench.entries.sampled(gradients)
