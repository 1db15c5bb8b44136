"""A task of a user: any torch.nn.Module, any loss, and data of the user's own."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from lrscale.errors import Refusal, said
from lrscale.tasks.fresh import Maker
from lrscale.tasks.rows import CPU, Rows, Tree, leaves
from lrscale.tasks.terms import Terms, TermsOf, each_term_of, summed

Groups = Callable[[str, nn.Parameter], Mapping[str, float]]
"""A function of a parameter's name and of the parameter that returns factors for options of the optimizer."""
PIECE_BYTES = 32 * 2**20
"""The memory for the examples that are looked at together, in bytes."""


_checks: list[Callable[[int], None]] = []


@contextmanager
def checking_weights(check: Callable[[int], None]) -> Iterator[None]:
    """Inside this context, a task that is made calls a function with its number of weights before it tries a step.

    Args:
      check: the function. It raises Refusal where there are too many.
    """
    _checks.append(check)
    try:
        yield
    finally:
        _checks.remove(check)


class Task:
    """A model, a loss and data, for `lrscale run task=FILE.py:FUNCTION` and for `train`.

    The model may use batch norm, dropout, embeddings, attention and recurrent layers. Each run is the module with weights
    and buffers of its own. It is trained in train mode and evaluated in eval mode.

    A loss has terms: one for each example, or several, such as one for each token. c counts terms: `mean` divides a step's
    loss by the sum of the weights of all its terms, `sum` adds them up. The recorded losses are means over the terms of
    the whole data.

    Args:
      model: makes a module with fresh weights. It is called for each seed, after torch's generator was seeded. A part that it
        hands out at each call, such as a pretrained backbone, is copied. What changes from step to step is kept in buffers.
      loss: a loss of torch, which is called with `reduction="none"`, or a function of the module's output and the targets.
        The function returns one loss an example, [example], or one a term, [example, term], or a pair of such losses and
        their weights, which follow from the targets.
      train: a pair of inputs and targets, or a map-style Dataset of such pairs. Inputs and targets are tensors, or tuples
        or dicts of tensors, with the examples along the first axis. The module gets a tuple as its arguments, and a dict as
        keyword arguments. A Dataset that is small and not random is loaded once. A list of more than two pairs is a Dataset
        too. Items may be random where torch draws them.
      valid: the validation data, likewise.
      wrong: a function of output and targets that returns 1 where the prediction is wrong and 0 elsewhere, one number a
        term; see `top1`. It counts unless the weight of its term is 0. None where there are no classes.
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
        if isinstance(loss, nn.Module) and any(parameter.requires_grad for parameter in loss.parameters()):
            raise Refusal(
                "`loss` must have no weights that are trained, as only those of `model` are, "
                f"got {next(name for name, _ in loss.named_parameters())}. Make them part of the model and of its output."
            )
        self.make, self.loss, self.wrong = model, loss, wrong
        self.each_term_of: TermsOf = each_term_of(loss)
        self.train, self.valid = Rows("train", train), Rows("valid", valid)
        self.maker = Maker(model)
        self.module = self.fresh(torch.Generator().manual_seed(0))
        self.names = [name for name, parameter in self.module.named_parameters() if parameter.requires_grad]
        if not self.names:
            raise Refusal("`model` must have parameters that are trained, got none.")
        self.to(next(self.module.parameters()).dtype)
        self.weights = sum(parameter.numel() for parameter in self.module.parameters() if parameter.requires_grad)
        for check_weights in _checks:
            check_weights(self.weights)
        self.factors = _factors(groups, self.module)
        self.width = self._check_step()
        self._check_wrong()
        self.terms, _ = (self._count_terms(rows) for rows in (self.train, self.valid))

    def terms_of(self, out: Any, y: Any) -> Terms:
        """Returns the terms of a module's output, summed over each example's terms, [example]."""
        return summed(self.each_term_of(out, y))

    def fresh(self, generator: torch.Generator) -> nn.Module:
        """Makes a module on the CPU from the seed of a generator, in train mode. torch's generator is the same after the call."""
        return self.maker(generator.initial_seed())

    def to(self, dtype: torch.dtype, device: torch.device = CPU, room: float = math.inf) -> None:
        """Puts the data and the loss on a device; see `Rows.to`. `module` stays on the CPU.

        Args:
          dtype: the dtype of the data.
          device: the device.
          room: how many bytes the training data may take on it, and how many the validation data.
        """
        if device != self.train.device:
            self.each_term_of = each_term_of(self.loss, device)
        for rows in (self.train, self.valid):
            rows.to(dtype, device, room)

    def _check_step(self) -> int:
        """Takes one gradient. Sets `draws`, and returns how many numbers autograd keeps for an example.

        Raises:
          Refusal: the gradient cannot be taken, or is not that of one loss an example or a term; or a second step with the
            same weights and draws is another one.
        """
        x, y = self.train.take(torch.arange(min(2, len(self.train)), device=CPU))
        module = self.module
        shared = {tensor.data_ptr() for tensor in (*module.parameters(), *module.buffers(), *leaves(x), *leaves(y))}
        versions = [tensor._version for tensor in (*leaves(x), *leaves(y))]
        saved: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            if tensor.data_ptr() not in shared:
                saved[tensor.data_ptr()] = tensor.numel()
            return tensor

        count, buffers = len(next(leaves(x))), copy.deepcopy(list(module.buffers()))
        with torch.random.fork_rng(devices=[]), saved_tensors_hooks(pack, lambda tensor: tensor):
            torch.manual_seed(0)
            state = torch.get_rng_state()
            losses, weights = self._terms(module, x, y, "two training examples")
            self.draws = not torch.equal(state, torch.get_rng_state())
        if losses.shape != (count,):
            raise Refusal(
                f"`loss` must return one number an example or a term, got shape {list(losses.shape)} for {count} examples. "
                "Return losses with examples along the first axis, and do not reduce them."
            )
        if not bool(torch.isfinite(losses).all()):
            raise Refusal(f"`loss` must be finite for fresh weights, got {losses.tolist()!r:.80}. Look for nan in the data.")
        if versions != [tensor._version for tensor in (*leaves(x), *leaves(y))]:
            raise Refusal(
                "`model` and `loss` must leave inputs and targets as they are, got one that was changed in place. "
                "Take x = x / 255 in place of x.div_(255), y.clone() before y[...] = 0, and no inplace=True on the inputs."
            )
        gradients = torch.autograd.grad(losses.sum(), [dict(module.named_parameters())[n] for n in self.names], allow_unused=True)
        unreached = [name for name, gradient in zip(self.names, gradients, strict=True) if gradient is None]
        if unreached:
            raise Refusal(
                f"`model` must use every parameter that is trained, got no gradient for {', '.join(unreached)[:200]}. "
                "Set requires_grad to False for parameters that are not trained."
            )
        self._check_again(x, y, buffers, losses.detach())
        self._check_weights(weights)
        return 3 * (math.ceil(sum(saved.values()) / count) + 1)

    def _check_again(self, x: Tree, y: Tree, buffers: Sequence[Tensor], losses: Tensor) -> None:
        """Raises Refusal where the losses are others when the buffers and torch's draws are the same as before."""
        for buffer, before in zip(self.module.buffers(), buffers, strict=True):
            buffer.data = before
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            again = self._terms(self.module, x, y, "two training examples").losses
        if not torch.allclose(losses, again, rtol=1e-4, atol=1e-6):
            raise Refusal(
                "`model` and `loss` must give the same losses for the same weights, buffers and draws of torch, "
                f"got {float(losses[0]):.5g} and then {float(again[0]):.5g}. Keep what changes from step to step in buffers "
                "(register_buffer), and draw with torch's functions."
            )

    def _check_weights(self, weights: Tensor) -> None:
        """Raises Refusal where the weights of the first examples' terms depend on more than the examples.

        Args:
          weights: their sums over each example's terms, in train mode.
        """
        module = self.fresh(torch.Generator().manual_seed(1)).train(False)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(1)
            x, y = self.train.take(torch.arange(min(3, len(self.train)), device=CPU), seed=1)
            others = self._terms(module, x, y, "three training examples").weights[: len(weights)]
        if not torch.allclose(weights, others):
            raise Refusal(
                "`loss` must weigh the terms of an example by its targets alone, whatever the other examples, the model's "
                f"weights and the draws are, got weights {weights.tolist()!r:.40} and then {others.tolist()!r:.40}. "
                "If the loss has weights of 1, look for outputs and targets whose shapes differ, as [8, 1] and [8]."
            )

    def _terms(self, module: nn.Module, x: Tree, y: Tree, what: str) -> Terms:
        """Returns the terms of some examples; raises Refusal, which names them, where the model or the loss cannot take them."""
        try:
            return self.terms_of(called(module, x), y)
        except Refusal:
            raise
        except Exception as error:
            raise Refusal(
                f"`model` and `loss` must take {what}, got {said(error)}. "
                "The module gets the inputs with examples along the first axis, and the loss its output and the targets."
            ) from error

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

    def _count_terms(self, rows: Rows) -> Tensor:
        """Returns the sum of the weights of each example's terms, [example], float64.

        Raises:
          Refusal: the model or the loss cannot take an example, its loss is not finite, or no term counts.
        """
        module, sums = self.module.train(False), []
        size = max(1, PIECE_BYTES // (4 * self.width))
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            for indices in torch.arange(len(rows), device=CPU).split(size):
                what = f"examples {indices[0]} to {indices[-1]} of `{rows.name}` in eval mode"
                losses, weights = self._terms(module, *rows.take(indices), what)
                if not bool(torch.isfinite(losses).all()):
                    place = int(indices[int((~torch.isfinite(losses)).nonzero()[0])])
                    raise Refusal(
                        f"`loss` must be finite for fresh weights, got nan or inf for example {place} of `{rows.name}`."
                    )
                sums.append(weights.double())
        module.train()
        if not (terms := torch.cat(sums)).sum() > 0 or bool((terms < 0).any()):
            raise Refusal(
                f"`loss` must have terms that count, of weights >= 0, got weights from {float(terms.min()):g} to "
                f"{float(terms.max()):g} for the examples of `{rows.name}`."
            )
        return terms


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
