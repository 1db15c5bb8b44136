"""Fresh modules from a user's function: the same ones for the same seed, whose weights no other module has."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lrscale.errors import Refusal, said
from lrscale.tasks.rows import CPU


class Maker:
    """Makes modules from a user's function, in train mode. torch's own generator is the same after each call.

    `is_drawn` says whether the seed decides more than weights that are trained and buffers: frozen weights, or what lies in
    attributes, such as a random permutation. Such a module cannot stand for another seed.
    """

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        """Takes a user's function.

        Raises:
          Refusal: it makes no modules, the same one twice, or other ones from the same seed.
        """
        self.make, self.is_copied = make, False
        module, again = self(0), self(0)
        if module is again:
            raise Refusal("`model` must make a new module at each call, got the same one twice. Take lambda: nn.Linear(4, 1).")
        if lazy := [name for name, tensor in _state(module) if is_lazy(tensor)]:
            raise Refusal(
                f"`model` must make weights whose shapes are known, got {', '.join(lazy)[:200]} of a lazy layer. "
                "Take nn.Linear(4, 1) in place of nn.LazyLinear(1)."
            )
        if not {id(tensor) for _, tensor in _state(module)}.isdisjoint(id(tensor) for _, tensor in _state(again)):
            self.is_copied = True
            module, again = self(0), self(0)
        for (name, value), (_, same) in zip(_all(module), _all(again), strict=False):
            if not isinstance(value, int | str) and not _are_same(value, same):  # a number may count the modules
                raise Refusal(
                    f"`model` must draw its weights with torch, got another {name} from the same seed of torch. "
                    "Take torch's functions in place of those of numpy or random."
                )
        self.is_drawn = not all(_are_same(a, b) for (_, a), (_, b) in zip(_rest(module), _rest(self(1)), strict=False))

    def __call__(self, seed: int) -> nn.Module:
        """Makes the module of a seed of torch, on the CPU.

        Where the function hands out parts of others, as a backbone, it is a copy.

        Raises:
          Refusal: the function makes something else, or a module that cannot be copied.
        """
        with torch.random.fork_rng(devices=[]), CPU:
            torch.manual_seed(seed)
            module = self.make()
        if not isinstance(module, nn.Module):
            raise Refusal(f"`model` must return a torch.nn.Module, got {type(module).__name__}.")
        if self.is_copied:
            try:
                module = copy.deepcopy(module)
            except Exception as error:
                raise Refusal(
                    f"`model` must make all its parts anew, as some lie outside of it and cannot be copied, got {said(error)}."
                ) from error
        return module.train()


def _state(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _rest(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yields what a module holds beside trained weights and buffers: frozen weights, and the values of attributes."""
    yield from ((name, parameter) for name, parameter in module.named_parameters() if not parameter.requires_grad)
    for part in module.modules():
        yield from ((name, value) for name, value in vars(part).items() if not name.startswith("_"))


def _all(module: nn.Module) -> Iterator[tuple[str, Any]]:
    yield from _state(module)
    yield from _rest(module)


def _are_same(a: Any, b: Any) -> bool:
    """Returns whether two values are the same, as far as they are tensors, numbers, texts or lists of such."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        follows_weights = not a.is_leaf  # as what weight norm makes of them
        return follows_weights or torch.equal(a, b)
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_are_same, a, b))
    return a == b if isinstance(a, int | float | str) else True
