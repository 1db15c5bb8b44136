"""Random draws that are the same for all examples: grouped otherwise, the same examples draw the same."""

import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

DROPPING = (nn.modules.dropout._DropoutNd, nn.MultiheadAttention, nn.RNNBase)
"""Modules with dropout."""
NORMING = (nn.modules.batchnorm._BatchNorm,)
"""Modules that mix the examples of a micro-batch."""
DROPOUTS = frozenset({F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout, torch.dropout})
"""Functions that return their input where nothing is dropped."""
LIKE = frozenset({torch.rand_like, torch.randn_like, torch.randint_like})
"""Functions that draw a tensor with the shape of their argument."""
SIZED = frozenset({torch.rand, torch.randn})
"""Functions that draw a tensor of a size."""
IN_PLACE = frozenset({Tensor.normal_, Tensor.uniform_, Tensor.exponential_, Tensor.bernoulli_, Tensor.random_})
"""Methods that fill a tensor with draws."""


ROUNDING_OF = {torch.bfloat16: 3e-2, torch.float16: 1e-2}
"""How far apart gradients of coarse dtypes may be by their rounding, as a share, where batches have other sizes."""


class SharedDraws(TorchFunctionMode):
    """Switches dropout of functions off, and gives all examples the same draws.

    A draw with the shape [example, ...] is made for one example and repeated. So the gradient of a batch is made of the
    gradients of its examples, as it is without random numbers. Draws of numpy and Python, and orders (torch.randperm), stay as
    they are.

    Args:
      draw: the seed.

    `coarsest` is the rounding of the coarsest dtype that was seen.
    """

    def __init__(self, draw: int = 0) -> None:
        super().__init__()
        self.draw, self.coarsest = draw, 0.0

    def restart(self) -> None:
        """Begins again with the first draw, as for each micro-batch and after each backward."""
        seed_all(self.draw)

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        if func in DROPOUTS:
            return args[0] if args else options["input"]
        if func is F.scaled_dot_product_attention:
            options = {**dict(zip(("attn_mask", "dropout_p", "is_causal"), args[3:], strict=False)), **options, "dropout_p": 0.0}
            return func(*args[:3], **options)
        result = _drawn(func, args, options)
        if isinstance(result, Tensor):
            self.coarsest = max(self.coarsest, ROUNDING_OF.get(result.dtype, 0.0))
        return result


def seed_all(seed: int) -> None:
    """Seeds the generators of random numbers of torch, numpy and Python."""
    torch.default_generator.manual_seed(seed)  # torch.manual_seed writes down three stacks for devices that are not used
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    np.random.seed(seed)
    random.seed(seed)


def _drawn(func: Callable[..., Any], args: Sequence[Any], options: dict[str, Any]) -> Any:
    """Calls a function; where it draws, it draws one example's numbers."""
    first = args[0] if args else None
    if func in LIKE and isinstance(first, Tensor) and first.ndim:
        return _repeated(func(first[:1], *args[1:], **options), first.shape)
    if func in SIZED and not options.get("out"):
        size = options.pop("size", None) or (first if isinstance(first, Sequence) else args)
        if size:
            return _repeated(func((1, *size[1:]), **options), size)
        return func(size, **options)
    if func is torch.randint:
        return _whole_numbers(args, options)
    if func in IN_PLACE and isinstance(first, Tensor) and first.ndim and len(first):
        with torch.no_grad():
            return first.copy_(func(first[:1].clone(), *args[1:], **options).expand_as(first))
    if func is torch.bernoulli and isinstance(first, Tensor) and first.ndim and len(args) == 1 and not options:
        return (torch.rand_like(first[:1]) < first).to(first.dtype)
    if func is torch.normal and len(args) == 2 and all(isinstance(part, Tensor) and part.ndim for part in args):
        return first + args[1] * torch.randn_like(torch.broadcast_tensors(*args)[0][:1])
    return func(*args, **options)


def _whole_numbers(args: Sequence[Any], options: dict[str, Any]) -> Any:
    """Calls torch.randint([low,] high, size) for one example, as for its time step, and repeats it."""
    place = next((i for i, part in enumerate(args) if isinstance(part, Sequence)), None)
    size: Sequence[int] | None = options.get("size") if place is None else args[place]
    if not size or options.get("out") is not None:
        return torch.randint(*args, **options)
    if place is None:
        options = {**options, "size": (1, *size[1:])}
    else:
        args = [*args[:place], (1, *size[1:]), *args[place + 1 :]]
    return _repeated(torch.randint(*args, **options), size)


def _repeated(row: Tensor, size: Sequence[int]) -> Tensor:
    """Returns one example's numbers for all examples, of a size [example, ...]."""
    return row.detach().expand(*size).clone(memory_format=torch.contiguous_format).requires_grad_(row.requires_grad)


def switch_off(modules: Iterable[nn.Module], kinds: tuple[type, ...], stack: ExitStack) -> None:
    """Runs the modules of some kinds in eval mode until the stack is closed, whatever mode the step sets."""
    for module in modules:
        if isinstance(module, kinds):
            stack.callback(module.register_forward_pre_hook(_to_eval).remove)


def _to_eval(module: nn.Module, inputs: Any) -> None:
    module.training = False
