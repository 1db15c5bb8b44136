"""Reads what one run of a training step does to the gradient: what backwards bring, optimizers get, and weights do."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim import LBFGS, Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from lrscale.audit.draws import SharedDraws
from lrscale.audit.entries import Entries, norm_of
from lrscale.audit.state import State


@dataclass
class Seen:
    """What one run of the step did.

    `raw` is the sum of what the backwards brought, `given` what the optimizers were given, and `update` the change of the
    weights, each [entry]. `norms` and `moves` are the norms of the whole `given` and `update` of each group of each
    optimizer. `kept` is how far the gradient before the optimizer was from `raw`, as a share. `backwards` counts the
    backwards that reached a parameter.
    """

    raw: Tensor
    given: Tensor
    update: Tensor
    norms: dict[tuple[int, int], float] = field(default_factory=dict)
    moves: dict[tuple[int, int], float] = field(default_factory=dict)
    kept: float = 0.0
    backwards: int = 0
    is_moving: bool = False


class IsClosure(Exception):
    """The optimizer computes the loss several times in one step."""


class Reading:
    """Reads one run through hooks of the parameters and of all optimizers.

    Args:
      entries: the compared entries of the parameters.
      state: everything that the step reaches; the state of an optimizer that the step makes is added.
      r: what each gradient that a backward brings is multiplied by.
      options: what the options of the optimizers are multiplied by.
      draws: the random draws, which begin again after each backward.

    `optimizers` holds those that took a step, in their order.
    """

    def __init__(self, entries: Entries, state: State, r: float, options: Mapping[str, float], draws: SharedDraws) -> None:
        self.entries, self.state, self.r, self.options, self.draws = entries, state, r, options, draws
        self.optimizers: list[Optimizer] = []
        count = len(entries.parameters)
        self.raw: list[Tensor | None] = [None] * count
        self.last: list[Tensor | None] = [None] * count
        self.given: list[Tensor | None] = [None] * count
        self.at: list[Tensor | None] = [None] * count
        self.backwards = [0] * count
        self.norms: dict[tuple[int, int], float] = {}
        self.groups: dict[tuple[int, int], list[int]] = {}
        self.is_moving = False

    def attach(self, stack: ExitStack) -> None:
        for i, parameter in enumerate(self.entries.parameters):
            for hook in (
                parameter.register_hook(lambda gradient, i=i: self._coming(i, gradient)),
                parameter.register_post_accumulate_grad_hook(lambda parameter, i=i: self._landed(i, parameter)),
            ):
                stack.callback(hook.remove)
        stack.callback(register_optimizer_step_pre_hook(self._before).remove)

    def _coming(self, i: int, gradient: Tensor) -> Tensor | None:
        if self.given[i] is not None:  # its optimizer took a step already
            return None
        part = self.entries.sample(i, gradient) * self.r
        raw = self.raw[i]
        self.raw[i] = part if raw is None else raw + part
        return gradient * self.r if self.r != 1 else None

    def _landed(self, i: int, parameter: Tensor) -> None:
        if self.given[i] is not None:
            return
        self.backwards[i] += 1
        self.draws.restart()
        self.last[i] = self.entries.sample(i, parameter.grad)
        now, first = self.entries.sample(i, parameter), self.at[i]
        if first is None:
            self.at[i] = now
        elif not torch.equal(now, first):
            self.is_moving = True

    def _before(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Reads what an optimizer is given; where it computes the loss itself through a closure, after that."""
        if isinstance(optimizer, LBFGS):
            raise IsClosure
        self.state.add(optimizer)
        if not any(known is optimizer for known in self.optimizers):
            self.optimizers.append(optimizer)
        for group in optimizer.param_groups:
            group |= {name: value * group[name] for name, value in self.options.items() if name in group}
        closure = kwargs.get("closure") or next((part for part in args[1:] if callable(part)), None)
        if closure is None:
            self._give(optimizer)
            return None
        calls: list[None] = []

        def counted() -> Any:
            if calls:
                raise IsClosure
            calls.append(None)
            loss = closure()
            self._give(optimizer)
            return loss

        if "closure" in kwargs:
            return args, {**kwargs, "closure": counted}
        return tuple(counted if part is closure else part for part in args), kwargs

    def _give(self, optimizer: Optimizer) -> None:
        """Reads what an optimizer is given."""
        number = next(k for k, known in enumerate(self.optimizers) if known is optimizer)
        for k, group in enumerate(optimizer.param_groups):
            members = [i for p in group["params"] if (i := self.entries.position(p)) is not None]
            if not members or self.given[members[0]] is not None:
                continue
            gradients = [self.entries.parameters[i].grad for i in members]
            self.norms[number, k] = norm_of([g for g in gradients if g is not None])
            self.groups[number, k] = members
            for i, gradient in zip(members, gradients, strict=True):
                self.given[i] = self.entries.sample(i, gradient)

    def seen(self, before: Sequence[Tensor]) -> Seen:
        """Returns what was read.

        Args:
          before: the parameters before the step.
        """
        entries = self.entries
        moved = [parameter.detach() - old for parameter, old in zip(entries.parameters, before, strict=True)]
        raw, last = entries.joined(self.raw), entries.joined(self.last)
        given = [last if given is None else given for given, last in zip(self.given, self.last, strict=True)]
        return Seen(
            raw=raw,
            given=entries.joined(given),
            update=entries.sampled(moved),
            norms=self.norms,
            moves={key: norm_of([moved[i] for i in members]) for key, members in self.groups.items()},
            kept=float((last - raw).norm() / raw.norm().clamp(min=1e-300)),
            backwards=max(self.backwards),
            is_moving=self.is_moving,
        )
