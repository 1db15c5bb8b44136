"""Tasks that a program holds as objects, as in a notebook. A config names such a task, but no file holds its code.

So no record of it can be made to run code. Only the program that holds the object can train it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from lrscale.errors import Refusal

if TYPE_CHECKING:
    from torch import Tensor

    from lrscale.tasks.own import Task

PREFIX = "notebook:"
"""The start of the name of such a task in a config."""
LOOKED_AT = 8
"""How many examples the losses are taken of that tell tasks apart."""
NEAR = 0.1
"""How far from the weights of seed 0 the losses are taken: the size of random changes."""
_HELD: WeakValueDictionary[str, Task] = WeakValueDictionary()
"""The tasks of this process by their hash, as long as the program keeps them."""


def is_held(name: object) -> bool:
    """Returns whether a name of a config is that of a task without a file."""
    return isinstance(name, str) and name.startswith(PREFIX)


def no_file(name: str) -> Refusal:
    """Returns the refusal of a task that this process does not hold."""
    return Refusal(
        f"`task` {name:.200} is an object of a program, such as a notebook, and no file holds its code. "
        "Run it in that program, or write it to a file: lrscale new-task NAME."
    )


def hold(task: Task) -> dict[str, str]:
    """Makes a task known in this process, and returns what a config says of it: `name` and `sha256`."""
    sha256 = fingerprint(task)
    _HELD[sha256] = task
    return {"name": f"{PREFIX}{_name(task)}", "sha256": sha256}


def held(name: str, sha256: str) -> Task:
    """Returns a task of this process; raises Refusal where there is none."""
    task = _HELD.get(sha256)
    if task is None:
        raise no_file(name)
    return task


def _name(task: Task) -> str:
    """Returns the name of the function or class that makes the model; `model` where it has none, as a lambda."""
    function: Any = task.make
    while isinstance(function, partial):
        function = function.func
    name = str(getattr(function, "__name__", "model"))
    return name if name.isidentifier() else "model"


def fingerprint(task: Task) -> str:
    """Returns a hash of what a task is: its data, the weights of seed 0, and what a few examples give.

    These are the losses, their gradients and which predictions are wrong, near the weights of seed 0: at these, a layer that
    begins at 0 would hide those before it. The same code and data give the same hash in another process, so a study can be
    continued there. Numbers enter with few digits, because the number of threads changes the last ones.
    """
    import torch

    from lrscale.tasks.own import called
    from lrscale.tasks.rows import CPU, leaves

    module = task.fresh(torch.Generator().manual_seed(0))
    dtype = next(module.parameters()).dtype
    texts = [re.sub(r" at 0x[0-9a-f]+", "", str(module)), str(task.factors), str(task.wrong is not None)]
    digest = hashlib.sha256("\n".join(texts).encode())
    for _, tensor in _state(module):
        digest.update(_content(tensor))
    task.to(dtype)
    draw = torch.Generator().manual_seed(0)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.data += NEAR * torch.randn(parameter.shape, generator=draw, dtype=parameter.dtype, device=CPU)
    for rows in (task.train, task.valid):
        few = torch.arange(min(LOOKED_AT, len(rows)), device=CPU)
        x, y = rows.take(few)
        digest.update(str(len(rows)).encode())
        for tensor in (*leaves(x), *leaves(y)) if rows.dataset is not None else (*leaves(rows.x), *leaves(rows.y)):
            digest.update(_content(tensor))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            out = called(module, x)
            terms = task.terms_of(out, y)
        gradients = torch.autograd.grad(terms.losses.sum(), trained, allow_unused=True)
        norms = torch.stack([torch.zeros((), device=CPU) if g is None else g.detach().norm().float() for g in gradients])
        wrong = [] if task.wrong is None else task.wrong(out, y).flatten().tolist()
        digits = [f"{value:.4g}" for part in terms for value in part.tolist()]
        digits += [f"{value:.3f}" for value in (norms / norms.norm()).tolist()] + [str(bool(value)) for value in wrong]
        digest.update(" ".join(digits).encode())
    return digest.hexdigest()


def _state(module: Any) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _content(tensor: Tensor) -> bytes:
    """Returns the shape, the type and the values of a tensor. Numpy does not know bfloat16, so it becomes float32."""
    import torch

    plain = tensor.detach().float() if tensor.dtype == torch.bfloat16 else tensor.detach()
    return f"{plain.dtype} {list(plain.shape)} ".encode() + plain.contiguous().numpy().tobytes()
