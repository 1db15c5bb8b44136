"""Everything that a training step can change, kept and put back in place."""

import random
import sys
import sysconfig
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType, GeneratorType, MethodType, ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

STANDARD = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib")} | {str(Path(__file__).parents[1])})
"""Folders of code that is not the user's, besides those of installed packages."""
SPARE_BYTES = 2**28
"""The memory for copies of tensors that are not the model's, in bytes."""
VALUES = (bool, int, float, complex, str, bytes, type(None))
"""Types of objects that never change."""
NOT_HELD = (*VALUES, GeneratorType)
"""Types of objects that are left alone. A generator over a watched loader, if it were held, would keep its own audit open."""


class Names(NamedTuple):
    """Variables of a module, by their names: their values are kept, and what the names mean."""

    scope: dict[str, Any]
    names: frozenset[str]


class State:
    """The state of everything that a step reaches: weights, buffers, optimizers, schedulers, averages, counters, draws.

    It is found by looking through the step: the variables that its function sees, the attributes of its object and of the
    user's own classes, and everything with `state_dict`. Iterators, files and loggers stay as they are.

    Args:
      roots: the step, the model, and further objects.
      parameters: tensors that are copied, however large they are.

    `optimizers` and `modules` hold those that were found. `left` names the tensors that were too large to be copied.
    """

    def __init__(self, roots: Iterable[Any], parameters: Iterable[Tensor] = ()) -> None:
        self.optimizers: list[Optimizer] = []
        self.modules: list[nn.Module] = []
        self.left: list[str] = []
        self._restores: list[Callable[[], None]] = []
        self._seen: dict[int, Any] = {}
        self._spare = SPARE_BYTES
        self._draws = draw_states()
        for parameter in parameters:
            self.add(parameter)
        for root in roots:
            self.add(root, is_state=False)

    def restore(self) -> None:
        """Puts everything back."""
        for restore in self._restores:
            restore()
        set_draw_states(self._draws)

    def add(self, thing: Any, is_state: bool = True) -> None:
        """Keeps an object and all that it holds, as an optimizer that the step made.

        Args:
          thing: the object.
          is_state: whether its tensors are copied, however large they are.
        """
        todo = deque([(thing, is_state)])
        while todo:
            part, is_state = todo.popleft()
            if id(part) not in self._seen and not isinstance(part, NOT_HELD):
                self._seen[id(part)] = part
                todo.extend(self._keep(part, is_state))

    def _keep(self, thing: Any, is_state: bool) -> list[tuple[Any, bool]]:
        """Keeps one object, and returns what it holds; with each, whether it belongs to a model or an optimizer."""
        if isinstance(thing, Tensor):
            self._keep_tensor(thing, is_state)
            return []
        if isinstance(thing, np.ndarray):
            self._keep_array(thing)
            return []
        if isinstance(thing, torch.Generator):
            self._restores.append(partial(_set_generator, thing, thing.get_state().clone()))
            return []
        if isinstance(thing, random.Random):
            self._restores.append(partial(thing.setstate, thing.getstate()))
            return []
        if isinstance(thing, np.random.Generator):
            self._restores.append(partial(setattr, thing.bit_generator, "state", thing.bit_generator.state))
            return []
        if isinstance(thing, dict | list | set | deque):
            self._restores.append(_container(thing))
            return [(part, is_state) for part in (thing.values() if isinstance(thing, dict) else list(thing))] + (
                [(key, is_state) for key in thing if isinstance(key, Tensor)] if isinstance(thing, dict) else []
            )
        if isinstance(thing, Names):
            return self._keep_names(thing)
        if isinstance(thing, tuple):
            return [(part, is_state) for part in thing]
        if isinstance(thing, partial):
            return [(part, False) for part in (thing.func, *thing.args, *thing.keywords.values())]
        if isinstance(thing, MethodType):
            return [(thing.__self__, False), (thing.__func__, False)]
        if isinstance(thing, FunctionType):
            return self._keep_function(thing)
        if isinstance(thing, type | ModuleType) or not hasattr(thing, "__dict__"):
            return []
        has_state = isinstance(thing, nn.Module | Optimizer | LRScheduler) or callable(getattr(type(thing), "state_dict", None))
        classes = [kind for kind in type(thing).__mro__ if _is_users(kind)]
        if not has_state and not classes and not isinstance(thing, SimpleNamespace):
            return []
        if isinstance(thing, Optimizer):
            self.optimizers.append(thing)
        if isinstance(thing, nn.Module):
            self.modules.append(thing)
        methods = [part for kind in classes for part in vars(kind).values() if isinstance(part, FunctionType)]
        return [(vars(thing), has_state), *((method, False) for method in methods)]

    def _keep_tensor(self, tensor: Tensor, is_state: bool) -> None:
        size = tensor.numel() * tensor.element_size()
        if not is_state and size > self._spare:
            self.left.append(f"a tensor of shape {list(tensor.shape)}")
            return
        if tensor.layout is not torch.strided or tensor.is_meta:
            return
        self._spare -= 0 if is_state else size
        data, copy, is_leaf = tensor.detach(), tensor.detach().clone(), tensor.is_leaf
        gradient = tensor.grad if is_leaf else None
        kept_gradient = None if gradient is None else gradient.detach().clone()

        def restore() -> None:
            with torch.no_grad():
                if tensor.data_ptr() != data.data_ptr() or tensor.dtype != data.dtype:
                    tensor.data = data
                data.copy_(copy)
                if is_leaf and (tensor.grad is not None or gradient is not None):
                    tensor.grad = None
                    tensor.grad = gradient
                    if gradient is not None and kept_gradient is not None:
                        gradient.copy_(kept_gradient)

        self._restores.append(restore)

    def _keep_array(self, array: "np.ndarray[Any, Any]") -> None:
        if array.nbytes > self._spare or not array.flags.writeable:
            return
        self._spare -= array.nbytes
        copy = array.copy()
        self._restores.append(lambda: np.copyto(array, copy))

    def _keep_function(self, function: FunctionType) -> list[tuple[Any, bool]]:
        """Keeps the variables that a function of the user sees."""
        if not _is_users(function):
            return []
        found: list[tuple[Any, bool]] = [(value, False) for value in function.__defaults__ or ()]
        for cell in function.__closure__ or ():
            try:
                value = cell.cell_contents
            except ValueError:  # not set yet
                continue
            self._restores.append(partial(setattr, cell, "cell_contents", value))
            found.append((value, False))
        return found + self._keep_names(Names(function.__globals__, names_of(function.__code__)))

    def _keep_names(self, variables: Names) -> list[tuple[Any, bool]]:
        found = {name: variables.scope[name] for name in variables.names if name in variables.scope}
        found = {name: value for name, value in found.items() if not isinstance(value, GeneratorType)}
        self._restores += [partial(_set_name, variables.scope, name, value) for name, value in found.items()]
        return [(value, False) for value in found.values()]


def _set_name(scope: dict[str, Any], name: str, value: Any) -> None:
    if scope.get(name) is not value:
        scope[name] = value


def _set_generator(generator: torch.Generator, state: Tensor) -> None:
    generator.set_state(state)


def names_of(code: CodeType) -> frozenset[str]:
    """Returns the names that a function may look up outside itself."""
    return frozenset(code.co_names).union(*(names_of(const) for const in code.co_consts if isinstance(const, CodeType)))


def is_users(module: str | None, file: str | None) -> bool:
    """Returns whether a module is code of the user: a program, a file or a notebook, and no package."""
    if module == "__main__":
        return True
    return file is not None and not file.startswith(STANDARD) and not {"site-packages", "dist-packages"} & set(Path(file).parts)


def _is_users(thing: Any) -> bool:
    """Returns whether a function or a class is defined in code of the user."""
    name = thing.__module__ or ""
    return is_users(name, getattr(sys.modules.get(name), "__file__", None))


def _container(thing: Any) -> Callable[[], None]:
    """Returns a function that puts the content of a dict, list, set or deque back."""
    if isinstance(thing, dict):
        content = list(thing.items())

        def restore() -> None:
            now = list(thing.items())
            if len(now) != len(content) or any(a is not c or b is not d for (a, b), (c, d) in zip(now, content, strict=True)):
                thing.clear()
                thing.update(content)

        return restore
    parts = list(thing)

    def restore_parts() -> None:
        now = list(thing)
        if len(now) != len(parts) or any(a is not b for a, b in zip(now, parts, strict=True)):
            thing.clear()
            thing.update(parts) if isinstance(thing, set) else thing.extend(parts)

    return restore_parts


def draw_states() -> dict[str, Any]:
    """Returns the states of the generators of random numbers of torch, numpy and Python."""
    accelerator = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    return {"torch": torch.get_rng_state(), "numpy": np.random.get_state(), "python": random.getstate(), "cuda": accelerator}


def set_draw_states(states: dict[str, Any]) -> None:
    """Sets the states of these generators."""
    torch.set_rng_state(states["torch"])
    np.random.set_state(states["numpy"])
    random.setstate(states["python"])
    if states["cuda"] is not None:
        torch.cuda.set_rng_state_all(states["cuda"])
