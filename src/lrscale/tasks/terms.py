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
from lrscale.tasks.rows import CPU

RETURN = "Return one loss an example, [example], or one a term, [example, term], or a pair of such losses and their weights."


class Terms(NamedTuple):
    """The terms of some examples: `losses` times weights, and `weights`: [example] each if summed over an example's terms."""

    losses: Tensor
    weights: Tensor


TermsOf = Callable[[Any, Any], Terms]
"""A function of a module's output and of the targets that returns their terms."""


def summed(terms: Terms) -> Terms:
    """Returns the sums over the terms of each example, [example], of losses and weights [example, ...]."""
    return Terms(*(values.flatten(1).sum(1) if values.ndim > 1 else values for values in terms))


def terms_of(loss: Callable[..., Any]) -> TermsOf:
    """Returns the function that computes the terms of a loss, summed over each example's terms; see `each_term_of`."""
    each_term = each_term_of(loss)
    return lambda out, y: summed(each_term(out, y))


def each_term_of(loss: Callable[..., Any], device: torch.device = CPU) -> TermsOf:
    """Returns the function that computes the terms of a loss one by one: losses and weights, [example, ...] each.

    A loss of torch is called with `reduction="none"`. For cross-entropy and the negative log-likelihood, the weights are
    those that torch's mean divides by: 0 where the target is `ignore_index`, the class weight elsewhere. With the reduction
    `batchmean`, as of the KL divergence, an example is one term.

    Args:
      loss: a loss of torch, as a function or as a module, or a function of output and targets of the user.
      device: where it is computed. Class weights, and what a module holds, are copied there.
    """
    known = _known(loss, device)
    if known is not None:
        return known
    plain, is_batchmean = _without_reduction(loss, device), _reduction(loss) == "batchmean"

    def function(out: Any, y: Any) -> Terms:
        result = plain(out, y)
        if isinstance(result, tuple | list):
            if len(result) != 2 or not all(isinstance(part, Tensor) for part in result):
                raise Refusal(f"`loss` must return losses, or losses and weights, got {len(result)} values. {RETURN}")
            losses, weights = result
            if losses.shape != weights.shape:
                shapes = f"{list(weights.shape)} and {list(losses.shape)}"
                raise Refusal(f"`loss` must return as many weights as losses, got shapes {shapes}. {RETURN}")
            weights = weights.to(losses.dtype)
            return Terms(torch.where(weights == 0, 0, losses * weights), weights)
        if not isinstance(result, Tensor):
            raise Refusal(f"`loss` must return a tensor, got {type(result).__name__}. {RETURN}")
        if result.ndim == 0:
            raise Refusal(f"`loss` must not reduce, got a single number. {RETURN}")
        if is_batchmean:
            result = result.flatten(1).sum(1)
        return Terms(result, torch.ones_like(result))

    return function


def _reduction(loss: Callable[..., Any]) -> object:
    """Returns the reduction that a loss was made with; None where it has none."""
    return loss.keywords.get("reduction") if isinstance(loss, partial) else getattr(loss, "reduction", None)


def _without_reduction(loss: Callable[..., Any], device: torch.device) -> Callable[[Any, Any], Any]:
    """Returns a loss that does not reduce, where it is one of those that have the option."""
    if isinstance(loss, nn.Module):
        has_tensors = bool([*loss.buffers(), *loss.parameters()])
        unreduced = copy.deepcopy(loss).to(device) if has_tensors else copy.copy(loss)
        if hasattr(loss, "reduction"):
            vars(unreduced)["reduction"] = "none"
        return unreduced
    try:
        has_option = "reduction" in inspect.signature(loss).parameters
    except (TypeError, ValueError):  # a function written in C says nothing
        has_option = False
    return partial(loss, reduction="none") if has_option else loss


def _known(loss: Callable[..., Any], device: torch.device) -> TermsOf | None:
    """Returns the terms of a loss of torch whose mean is special: cross-entropy and nll have weights; None for other losses.

    The squared error is written out, as torch.func cannot run torch's own for many runs. A class made from one of torch's
    is another loss.
    """
    options: dict[str, Any] = {}
    function: Any = loss
    while isinstance(function, partial) and not function.args:
        options = {**function.keywords, **options}
        function = function.func
    if type(function) is nn.MSELoss or (function is F.mse_loss and not set(options) - {"reduction"}):
        return _squared_errors
    names = ("weight", "ignore_index", "label_smoothing")
    if type(function) is nn.CrossEntropyLoss:
        options, function = {name: getattr(function, name) for name in names}, F.cross_entropy
    elif type(function) is nn.NLLLoss:
        options, function = {name: getattr(function, name) for name in names[:2]}, F.nll_loss
    if function not in (F.cross_entropy, F.nll_loss):
        return None
    weight, ignored = options.get("weight"), options.get("ignore_index", -100)
    weight = None if weight is None else weight.to(device)

    def terms(out: Any, y: Any) -> Terms:
        own = None if weight is None else weight.to(out.dtype)
        losses = function(out, y, **{**options, "weight": own, "reduction": "none"})
        if y.is_floating_point():  # probabilities of the classes
            return Terms(losses, torch.ones_like(losses))
        counts = y != ignored
        weights = counts.to(losses.dtype) if own is None else torch.where(counts, own[torch.where(counts, y, 0)], 0)
        return Terms(losses, weights.expand_as(losses))

    return terms


def _squared_errors(out: Tensor, y: Tensor) -> Terms:
    if out.shape != y.shape:
        raise Refusal(
            f"`loss` MSE must get outputs and targets of one shape, got {list(out.shape)} and {list(y.shape)}. "
            "Take y.unsqueeze(1), or squeeze the output."
        )
    errors = (out - y).square()
    return Terms(errors, torch.ones_like(errors))


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
