"""Runs a training step on compositions of examples, always from the same state, and reads what happens to the gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from lrscale.audit.draws import DROPPING, SharedDraws, switch_off
from lrscale.audit.examples import Examples
from lrscale.audit.state import State
from lrscale.errors import Refusal

SMALL = 2.0**-20
"""What gradients are multiplied by, so that no clip acts on them."""
ENTRIES = 2**20
"""The most entries of a gradient that are compared. Of larger models a fixed random choice is taken."""
Composition = tuple[tuple[int, ...], ...]
"""The examples of each micro-batch, [micro-batch][example]."""


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


class Micros(list[Any]):
    """The micro-batches of an update. Each is handed out with the generators of random numbers in the same state."""

    def __init__(self, micros: Sequence[Any], draws: SharedDraws) -> None:
        super().__init__(micros)
        self.draws = draws

    def __iter__(self) -> Iterator[Any]:
        for micro in super().__iter__():
            self.draws.restart()
            yield micro

    def __getitem__(self, index: Any) -> Any:
        self.draws.restart()
        return super().__getitem__(index)


class Bench:
    """Runs the step, and puts everything back before each run.

    Args:
      step: makes one update from a list of micro-batches.
      examples: the examples of a batch.
      parameters: the parameters that are trained.
      state: everything that the step reaches.
      dtype: the dtype of floating-point inputs; None for the one they have.
      window: the number of micro-batches in each update, where it is fixed; a composition is repeated up to it.

    `off` holds the kinds of modules that run in eval mode. `runs` counts the runs of the step. `optimizers` holds those that
    took a step in the last run, in their order. `coarsest` is the rounding of the coarsest dtype that was seen. `adds_at` is a
    composition at which the step adds something to the gradient by itself, None where it adds nothing. `is_normalised` says that
    the step divides the gradient by its own size.
    """

    def __init__(
        self,
        step: Callable[[list[Any]], Any],
        examples: Examples,
        parameters: Sequence[Tensor],
        state: State,
        dtype: torch.dtype | None = None,
        window: int | None = None,
    ) -> None:
        self.step, self.examples, self.state, self.dtype, self.window = step, examples, state, dtype, window
        self.parameters = list(parameters)
        self.off: tuple[type, ...] = DROPPING
        self.runs = 0
        self.optimizers: list[Optimizer] = []
        self.coarsest = 0.0
        self.adds_at: Sequence[Sequence[int]] | None = None
        self.is_normalised = False
        self.position = {id(parameter): i for i, parameter in enumerate(self.parameters)}
        self._chosen = _chosen([parameter.numel() for parameter in self.parameters])
        self._cache: dict[Any, Seen] = {}

    @property
    def is_by_hand(self) -> bool:
        """Whether the weights are changed without an optimizer of torch."""
        return not self.optimizers

    def gradient(self, *micros: Sequence[int], draws: Sequence[int] = (0,)) -> Tensor:
        """Returns the gradient that a composition gives to the optimizer, where no clip acts, [entry].

        For a step without an optimizer of torch it is the change of the weights, with its sign changed. What the step adds by
        itself is taken away. Where the step normalises the gradient, it is what the backwards bring.
        """
        return torch.stack([self._gradient(micros, draw) for draw in draws]).mean(0)

    def _gradient(self, micros: Sequence[Sequence[int]], draw: int) -> Tensor:
        if not self.runs:
            self.run(*micros)  # tells whether there is an optimizer
        if self.is_by_hand:
            return self.added(draw) - self.run(*micros, draw=draw).update
        seen = self.run(*micros, r=SMALL, draw=draw, moves=False)
        return (seen.raw if self.is_normalised else seen.given - self.added(draw)) / SMALL

    def added(self, draw: int = 0) -> Tensor:
        """Returns what the step adds by itself to the gradient, as weight decay or noise by hand, [entry].

        It is what the optimizers are given, or how the weights change, where each gradient that a backward brings is 0.
        """
        if self.adds_at is None:
            return torch.zeros((), dtype=torch.float64)
        seen = self.run(*self.adds_at, r=0.0, draw=draw, moves=self.is_by_hand)
        return seen.update if self.is_by_hand else seen.given

    def run(self, *micros: Sequence[int], r: float = 1.0, draw: int = 0, decays: bool = True, moves: bool = True) -> Seen:
        """Runs the step on micro-batches, given as numbers of examples.

        Args:
          micros: the examples of each micro-batch.
          r: what each gradient that a backward brings is multiplied by.
          draw: the seed of the random draws.
          decays: False sets the weight decay of the optimizers to 0.
          moves: False sets their lr to 0, so that a second optimizer finds the weights where the first one found them.
        """
        composition: Composition = tuple(tuple(micro) for micro in micros)
        if self.window is not None:
            composition = tuple(composition[k % len(composition)] for k in range(self.window))
        key = (composition, r, draw, decays, moves)
        if key not in self._cache:
            off = {**({} if decays else {"weight_decay": 0.0}), **({} if moves else {"lr": 0.0})}
            self._cache[key] = self._run(composition, r, draw, off)
        return self._cache[key]

    def forget(self, known: dict[Any, Seen] | None = None) -> dict[Any, Seen]:
        """Forgets earlier runs, as when the model's mode changes, and returns them; takes others in their place."""
        earlier, self._cache = self._cache, {} if known is None else known
        return earlier

    def restore(self) -> None:
        """Puts everything back, with optimizers that have no memory yet: p belongs to the rule."""
        self.state.restore()
        for optimizer in [*self.optimizers, *self.state.optimizers]:
            optimizer.state.clear()
        for parameter in self.parameters:
            parameter.grad = None

    def _run(self, composition: Composition, r: float, draw: int, options: Mapping[str, float]) -> Seen:
        self.restore()
        self.runs += 1
        draws = SharedDraws(draw)
        reading = _Reading(self, r, options, draws)
        made = Micros([self.examples.make(micro, self.dtype) for micro in composition], draws)
        before = [parameter.detach().clone() for parameter in self.parameters]
        with ExitStack() as stack:
            reading.attach(stack)
            stack.enter_context(self.fixed_draws(draws))
            self.step(made)
        self.coarsest = max(self.coarsest, draws.coarsest)
        return reading.seen(before)

    @contextmanager
    def fixed_draws(self, draws: SharedDraws) -> Iterator[None]:
        """Seeds the random draws, shares them among examples, and switches dropout off for a while."""
        draws.restart()
        with ExitStack() as stack:
            switch_off(self.state.modules, self.off, stack)
            stack.enter_context(draws)
            yield

    def sampled(self, tensors: Sequence[Tensor | None]) -> Tensor:
        """Returns the compared entries of one tensor for each parameter, [entry], float64; None counts as 0."""
        return torch.cat([self.sample(i, tensor) for i, tensor in enumerate(tensors)])

    def sample(self, i: int, tensor: Tensor | None) -> Tensor:
        """Returns the compared entries of a tensor that belongs to parameter i, [entry], float64."""
        chosen = self._chosen[i]
        if tensor is None:
            count = self.parameters[i].numel() if chosen is None else len(chosen)
            return torch.zeros(count, dtype=torch.float64)
        flat = (tensor.to_dense() if tensor.is_sparse else tensor).detach().flatten()
        return (flat if chosen is None else flat[chosen.to(flat.device)]).to("cpu", torch.float64, copy=True)

    def met(self, optimizer: Optimizer) -> None:
        """Keeps the state of an optimizer that takes a step, if it is new.

        Raises:
          IsClosure: it computes the loss several times in one step.
        """
        if isinstance(optimizer, LBFGS):
            raise IsClosure
        self.state.add(optimizer)


class IsClosure(Exception):
    """The optimizer computes the loss several times in one step."""


class _Reading:
    """Reads one run through hooks of the parameters and of all optimizers."""

    def __init__(self, bench: Bench, r: float, options: Mapping[str, float], draws: SharedDraws) -> None:
        self.bench, self.r, self.options, self.draws = bench, r, options, draws
        self.optimizers: list[Optimizer] = []
        count = len(bench.parameters)
        self.raw: list[Tensor | None] = [None] * count
        self.last: list[Tensor | None] = [None] * count
        self.given: list[Tensor | None] = [None] * count
        self.at: list[Tensor | None] = [None] * count
        self.backwards = [0] * count
        self.norms: dict[tuple[int, int], float] = {}
        self.groups: dict[tuple[int, int], list[int]] = {}
        self.is_moving = False

    def attach(self, stack: ExitStack) -> None:
        for i, parameter in enumerate(self.bench.parameters):
            for hook in (
                parameter.register_hook(lambda gradient, i=i: self._coming(i, gradient)),
                parameter.register_post_accumulate_grad_hook(lambda parameter, i=i: self._landed(i, parameter)),
            ):
                stack.callback(hook.remove)
        stack.callback(register_optimizer_step_pre_hook(self._before).remove)

    def _coming(self, i: int, gradient: Tensor) -> Tensor | None:
        if self.given[i] is not None:  # its optimizer took a step already
            return None
        part = self.bench.sample(i, gradient) * self.r
        raw = self.raw[i]
        self.raw[i] = part if raw is None else raw + part
        return gradient * self.r if self.r != 1 else None

    def _landed(self, i: int, parameter: Tensor) -> None:
        if self.given[i] is not None:
            return
        self.backwards[i] += 1
        self.draws.restart()
        self.last[i] = self.bench.sample(i, parameter.grad)
        now, first = self.bench.sample(i, parameter), self.at[i]
        if first is None:
            self.at[i] = now
        elif not torch.equal(now, first):
            self.is_moving = True

    def _before(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Reads what an optimizer is given; where it computes the loss itself through a closure, after that."""
        self.bench.met(optimizer)
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
            members = [i for p in group["params"] if (i := self.bench.position.get(id(p))) is not None]
            if not members or self.given[members[0]] is not None:
                continue
            gradients = [self.bench.parameters[i].grad for i in members]
            self.norms[number, k] = norm_of([g for g in gradients if g is not None])
            self.groups[number, k] = members
            for i, gradient in zip(members, gradients, strict=True):
                self.given[i] = self.bench.sample(i, gradient)

    def seen(self, before: Sequence[Tensor]) -> Seen:
        """Returns what was read.

        Args:
          before: the parameters before the step.
        """
        bench = self.bench
        bench.optimizers = self.optimizers
        moved = [parameter.detach() - old for parameter, old in zip(bench.parameters, before, strict=True)]
        raw, last = bench.sampled(self.raw), bench.sampled(self.last)
        given = [last if given is None else given for given, last in zip(self.given, self.last, strict=True)]
        return Seen(
            raw=raw,
            given=torch.cat([bench.sample(i, None) if g is None else g for i, g in enumerate(given)]),
            update=bench.sampled(moved),
            norms=self.norms,
            moves={key: norm_of([moved[i] for i in members]) for key, members in self.groups.items()},
            kept=float((last - raw).norm() / raw.norm().clamp(min=1e-300)),
            backwards=max(self.backwards),
            is_moving=self.is_moving,
        )


def norm_of(tensors: Sequence[Tensor]) -> float:
    """Returns the norm of several tensors together."""
    return math.sqrt(sum(float(tensor.detach().double().square().sum()) for tensor in tensors))


def _chosen(sizes: Sequence[int]) -> list[Tensor | None]:
    """Returns the entries of each parameter that are compared, [parameter][entry]; None for all of them."""
    if sum(sizes) <= ENTRIES:
        return [None] * len(sizes)
    generator = torch.Generator().manual_seed(0)
    shares = [max(min(size, 16), size * ENTRIES // sum(sizes)) for size in sizes]
    return [
        None if share >= size else torch.randint(size, (share,), generator=generator)
        for size, share in zip(sizes, shares, strict=True)
    ]


def trained(model: Any) -> list[Tensor]:
    """Returns the parameters of a model, or the tensors of a list, that are trained.

    Raises:
      Refusal: there are none.
    """
    tensors = list(model.parameters()) if isinstance(model, nn.Module) else list(model)
    found = [t for t in tensors if isinstance(t, Tensor) and t.requires_grad]
    if not found:
        raise Refusal("`model` must be a torch.nn.Module or a list of tensors with requires_grad, got none that is trained.")
    return found
