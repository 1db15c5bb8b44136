"""A task of a user: any torch.nn.Module, any loss, and data of the user's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from lrscale.errors import Refusal
from lrscale.tasks.rows import CPU, Rows, Tree, leaves
from lrscale.tasks.terms import TermsOf, terms_of

Groups = Callable[[str, nn.Parameter], Mapping[str, float]]
"""A function of a parameter's name and of the parameter that returns factors for options of the optimizer."""
PIECE_BYTES = 32 * 2**20
"""The memory for the examples that are looked at together, in bytes."""


class Task:
    """A model, a loss and data, for `lrscale run task=FILE.py:FUNCTION` and for `train`.

    The model may use batch norm, dropout, embeddings, attention and recurrent layers. Each run is the module with weights
    and buffers of its own. It is trained in train mode and evaluated in eval mode.

    A loss has terms: one for each example, or several, such as one for each token. c counts terms: `mean` divides a step's
    loss by the sum of the weights of all its terms, `sum` adds them up. The recorded losses are means over the terms of
    the whole data.

    Args:
      model: makes a module with fresh weights. It is called for each seed, after torch's generator was seeded.
      loss: a loss of torch, which is called with `reduction="none"`, or a function of the module's output and the targets.
        The function returns one loss an example, [example], or one a term, [example, term], or a pair of such losses and
        their weights.
      train: a pair of inputs and targets, or a map-style Dataset of such pairs. Inputs and targets are tensors, or tuples
        or dicts of tensors, with the examples along the first axis. The module gets a tuple as its arguments, and a dict as
        keyword arguments. A Dataset that is small and not random is loaded once.
      valid: the validation data, likewise.
      wrong: a function of output and targets that returns 1 where the prediction is wrong and 0 elsewhere, one number a
        term; see `top1`. None where there are no classes.
      groups: a function of a parameter's name and of the parameter that returns factors for options of the optimizer, as in
        `lambda name, p: {"weight_decay": 0} if p.ndim < 2 else {}`. None where all parameters have the same options.

    Raises:
      Refusal: a part cannot be used; the message says what to return instead.

    `draws` says whether the module draws random numbers in train mode, as dropout does.

    Source:
      `tests/training/test_own_runs.py` checks the agreement with plain loops of torch.optim.

    Example:
      >>> x = torch.linspace(-1, 1, 32).unsqueeze(1)
      >>> task = Task(lambda: nn.Linear(1, 1), nn.MSELoss(), (x, 2 * x), (x, 2 * x))
      >>> len(task.train), task.terms.sum().item()
      (32, 32.0)
    """

    def __init__(
        self,
        model: Callable[[], nn.Module],
        loss: Callable[..., Any],
        train: Any,
        valid: Any,
        wrong: Callable[[Any, Any], Tensor] | None = None,
        *,
        groups: Groups | None = None,
    ) -> None:
        for name, function in (("model", model), ("loss", loss), ("wrong", wrong), ("groups", groups)):
            if function is not None and not callable(function):
                raise Refusal(f"`{name}` must be a function, got {type(function).__name__}.")
        if isinstance(model, nn.Module):
            raise Refusal("`model` must make a new module at each call, got a module. Take lambda: nn.Linear(4, 1).")
        self.make, self.loss, self.wrong = model, loss, wrong
        self.terms_of: TermsOf = terms_of(loss)
        self.train, self.valid = Rows("train", train), Rows("valid", valid)
        self.module = self.fresh(torch.Generator().manual_seed(0))
        if self.fresh(torch.Generator().manual_seed(0)) is self.module:
            raise Refusal("`model` must make a new module at each call, got the same one twice. Take lambda: nn.Linear(4, 1).")
        self.names = [name for name, parameter in self.module.named_parameters() if parameter.requires_grad]
        if not self.names:
            raise Refusal("`model` must have parameters that are trained, got none.")
        self.to(next(self.module.parameters()).dtype)
        self.weights = sum(parameter.numel() for parameter in self.module.parameters() if parameter.requires_grad)
        self.factors = _factors(groups, self.module)
        self.width = self._check_step()
        self._check_wrong()
        self.terms = self._count_terms()
        if not self.terms.sum() > 0:
            raise Refusal("`loss` must have terms that count, got weights that are all 0 on the training data.")

    def fresh(self, generator: torch.Generator) -> nn.Module:
        """Makes a module on the CPU from the seed of a generator, in train mode. torch's generator is the same after the call."""
        with torch.random.fork_rng(devices=[]), CPU:
            torch.manual_seed(generator.initial_seed())
            module = self.make()
        if not isinstance(module, nn.Module):
            raise Refusal(f"`model` must return a torch.nn.Module, got {type(module).__name__}.")
        return module.train()

    def to(self, dtype: torch.dtype, device: torch.device = CPU, room: float = math.inf) -> None:
        """Puts the data and the loss on a device; see `Rows.to`. `module` stays on the CPU.

        Args:
          dtype: the dtype of the data.
          device: the device.
          room: how many bytes the training data may take on it, and how many the validation data.
        """
        if device != self.train.device:
            self.terms_of = terms_of(self.loss, device)
        for rows in (self.train, self.valid):
            rows.to(dtype, device, room)

    def _check_step(self) -> int:
        """Takes one gradient. Sets `draws`, and returns how many numbers autograd keeps for an example.

        Raises:
          Refusal: the gradient cannot be taken, or is not that of one loss an example or a term.
        """
        x, y = self.train.take(torch.arange(min(2, len(self.train)), device=CPU))
        module = self.module
        shared = {tensor.data_ptr() for tensor in (*module.parameters(), *module.buffers(), *leaves(x), *leaves(y))}
        saved: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            if tensor.data_ptr() not in shared:
                saved[tensor.data_ptr()] = tensor.numel()
            return tensor

        count = len(next(leaves(x)))
        try:
            with torch.random.fork_rng(devices=[]), saved_tensors_hooks(pack, lambda tensor: tensor):
                state = torch.get_rng_state()
                losses = self.terms_of(called(module, x), y).losses
                self.draws = not torch.equal(state, torch.get_rng_state())
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            first = str(error).partition("\n")[0]
            raise Refusal(
                f"`model` and `loss` must take two training examples, got {type(error).__name__}: {first:.200}. "
                "The module gets the inputs with examples along the first axis, and the loss its output and the targets."
            ) from error
        if losses.shape != (count,):
            raise Refusal(
                f"`loss` must return one number an example or a term, got shape {list(losses.shape)} for {count} examples. "
                "Return losses with examples along the first axis, and do not reduce them."
            )
        if not bool(torch.isfinite(losses).all()):
            raise Refusal(f"`loss` must be finite for fresh weights, got {losses.tolist()!r:.80}. Look for nan in the data.")
        gradients = torch.autograd.grad(losses.sum(), [dict(module.named_parameters())[n] for n in self.names], allow_unused=True)
        unreached = [name for name, gradient in zip(self.names, gradients, strict=True) if gradient is None]
        if unreached:
            raise Refusal(
                f"`model` must use every parameter that is trained, got no gradient for {', '.join(unreached)[:200]}. "
                "Set requires_grad to False for parameters that are not trained."
            )
        return 3 * (math.ceil(sum(saved.values()) / count) + 1)

    def _check_wrong(self) -> None:
        if self.wrong is None:
            return
        x, y = self.valid.take(torch.arange(min(2, len(self.valid)), device=CPU))
        with torch.no_grad():
            result = self.wrong(called(self.module.train(False), x), y)
        self.module.train()
        if (
            not isinstance(result, Tensor)
            or result.shape[:1] != next(leaves(y)).shape[:1]
            or bool(((result != 0) & (result != 1)).any())
        ):
            raise Refusal(
                "`wrong` must return 1 where the prediction is wrong and 0 elsewhere, one an example. Take lrscale.top1."
            )

    def _count_terms(self) -> Tensor:
        """Returns the sum of the weights of each training example's terms, [example], float64."""
        module, sums = self.module.train(False), []
        size = max(1, PIECE_BYTES // (4 * self.width))
        for indices in torch.arange(len(self.train), device=CPU).split(size):
            x, y = self.train.take(indices)
            with torch.no_grad():
                sums.append(self.terms_of(called(module, x), y).weights.double())
        module.train()
        return torch.cat(sums)


def called(module: Callable[..., Any], x: Tree) -> Any:
    """Returns a module's output: a tuple of inputs is its arguments, a dict its keyword arguments."""
    if isinstance(x, Mapping):
        return module(**x)
    return module(*x) if isinstance(x, tuple) else module(x)


def _factors(groups: Groups | None, module: nn.Module) -> list[dict[str, float]]:
    """Returns the factors of each trained parameter; raises Refusal where they cannot be used."""
    found = []
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        factors = {} if groups is None else groups(name, parameter)
        if not isinstance(factors, Mapping) or not all(
            isinstance(f, int | float) and 0 <= f < math.inf for f in factors.values()
        ):
            raise Refusal(
                f"`groups` must return factors >= 0 by option, as in {{'weight_decay': 0}}, got {factors!r:.60} for {name}."
            )
        found.append(dict(factors))
    return found
