"""The terms of a user's loss: one loss and one weight a term, from any loss of torch or one of the user's own."""

import copy
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrscale.errors import Refusal

RETURN = "Return one loss an example, [example], or one a term, [example, term], or a pair of such losses and their weights."


class Terms(NamedTuple):
    """The terms of some examples: `losses` times weights, and `weights`, [example] each, summed over an example's terms."""

    losses: Tensor
    weights: Tensor


TermsOf = Callable[[Any, Any], Terms]
"""A function of a module's output and of the targets that returns their terms."""


def terms_of(loss: Callable[..., Any]) -> TermsOf:
    """Returns the function that computes the terms of a loss.

    A loss of torch is called with `reduction="none"`. For cross-entropy and the negative log-likelihood, the weights are
    those that torch's mean divides by: 0 where the target is `ignore_index`, the class weight elsewhere.

    Args:
      loss: a loss of torch, as a function or as a module, or a function of output and targets of the user.
    """
    plain = _without_reduction(loss)
    class_weights = _class_weights(loss)

    def function(out: Any, y: Any) -> Terms:
        result = plain(out, y)
        if isinstance(result, tuple | list):
            if len(result) != 2 or not all(isinstance(part, Tensor) for part in result):
                raise Refusal(f"`loss` must return losses, or losses and weights, got {len(result)} values. {RETURN}")
            losses, weights = result
            if losses.shape != weights.shape:
                raise Refusal(
                    f"`loss` must return as many weights as losses, got shapes {list(weights.shape)} and "
                    f"{list(losses.shape)}. {RETURN}"
                )
            weights = weights.to(losses.dtype)
            return Terms(_summed(torch.where(weights == 0, 0, losses * weights)), _summed(weights))
        if not isinstance(result, Tensor):
            raise Refusal(f"`loss` must return a tensor, got {type(result).__name__}. {RETURN}")
        if result.ndim == 0:
            raise Refusal(f"`loss` must not reduce, got a single number. {RETURN}")
        weights = torch.ones_like(result) if class_weights is None else class_weights(result, y)
        return Terms(_summed(result), _summed(weights))

    return function


def _summed(values: Tensor) -> Tensor:
    """Returns the sums over the terms of each example, [example]."""
    return values.flatten(1).sum(1) if values.ndim > 1 else values


def _without_reduction(loss: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    """Returns a loss that does not reduce, where it is one of those that have the option."""
    if isinstance(loss, nn.Module):
        unreduced = copy.copy(loss)
        if hasattr(loss, "reduction"):
            vars(unreduced)["reduction"] = "none"
        return unreduced
    try:
        has_option = "reduction" in inspect.signature(loss).parameters
    except (TypeError, ValueError):  # a function written in C says nothing
        has_option = False
    return partial(loss, reduction="none") if has_option else loss


def _class_weights(loss: Callable[..., Any]) -> Callable[[Tensor, Any], Tensor] | None:
    """Returns the function of losses and targets that returns the weights of cross-entropy or nll; None for other losses."""
    options: dict[str, Any] = {}
    function: Any = loss
    while isinstance(function, partial):
        options = {**function.keywords, **options}
        function = function.func
    if isinstance(function, nn.CrossEntropyLoss | nn.NLLLoss):
        options = {"weight": function.weight, "ignore_index": function.ignore_index}
    elif function not in (F.cross_entropy, F.nll_loss):
        return None
    weight, ignored = options.get("weight"), options.get("ignore_index", -100)

    def of(losses: Tensor, y: Any) -> Tensor:
        if y.is_floating_point():  # probabilities of the classes
            return torch.ones_like(losses)
        counts = y != ignored
        return counts.to(losses.dtype) if weight is None else torch.where(counts, weight.to(losses.dtype)[y.clamp(min=0)], 0)

    return of


def top1(out: Tensor, y: Tensor) -> Tensor:
    """Returns 1 where the most probable class is not the target, and 0 elsewhere: `wrong=lrscale.top1`.

    Args:
      out: the logits, with the classes along axis 1, as `cross_entropy` takes them: [example, class, ...].
      y: the target classes, [example, ...].

    Returns:
      A tensor like the targets.

    Example:
      >>> top1(torch.tensor([[0.1, 2.0], [3.0, 1.0]]), torch.tensor([1, 1]))
      tensor([0., 1.])
    """
    return (out.argmax(1) != y).to(out.dtype)
