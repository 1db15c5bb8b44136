"""Runs a training step on compositions of examples, always from the same state."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lrscale.audit.draws import DROPPING, SharedDraws, switch_off
from lrscale.audit.entries import Entries
from lrscale.audit.examples import Examples
from lrscale.audit.reading import Reading, Seen
from lrscale.audit.state import State

SMALL = 2.0**-20
"""What gradients are multiplied by, so that no clip acts on them."""
Composition = tuple[tuple[int, ...], ...]
"""The examples of each micro-batch, [micro-batch][example]."""


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
        self.entries = Entries(parameters)
        self.off: tuple[type, ...] = DROPPING
        self.runs = 0
        self.optimizers: list[Optimizer] = []
        self.coarsest = 0.0
        self.adds_at: Sequence[Sequence[int]] | None = None
        self.is_normalised = False
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

    def whole_over_compared(self, *micros: Sequence[int]) -> float:
        """Returns the norm of the whole gradient of a composition over that of its compared entries: 1 where all are."""
        if self.entries.are_all or self.is_by_hand:
            return 1.0
        seen = self.run(*micros, r=SMALL, moves=False)
        return math.hypot(*seen.norms.values()) / float(seen.given.norm())

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
        for parameter in self.entries.parameters:
            parameter.grad = None

    def _run(self, composition: Composition, r: float, draw: int, options: Mapping[str, float]) -> Seen:
        self.restore()
        self.runs += 1
        draws = SharedDraws(draw)
        reading = Reading(self.entries, self.state, r, options, draws)
        made = Micros([self.examples.make(micro, self.dtype) for micro in composition], draws)
        before = [parameter.detach().clone() for parameter in self.entries.parameters]
        with ExitStack() as stack:
            reading.attach(stack)
            stack.enter_context(self.fixed_draws(draws))
            self.step(made)
        self.coarsest = max(self.coarsest, draws.coarsest)
        self.optimizers = reading.optimizers
        return reading.seen(before)

    @contextmanager
    def fixed_draws(self, draws: SharedDraws) -> Iterator[None]:
        """Seeds the random draws, shares them among examples, and switches dropout off for a while."""
        draws.restart()
        with ExitStack() as stack:
            switch_off(self.state.modules, self.off, stack)
            stack.enter_context(draws)
            yield
