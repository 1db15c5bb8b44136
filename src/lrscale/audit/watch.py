"""`for batch in lrscale.watch(loader, model)`: audits a training loop of the user's own, and then hands on the real batches."""

import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from queue import SimpleQueue
from threading import Thread
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from lrscale.audit.audit import Request, auditing, concluded, measure
from lrscale.audit.bench import trained
from lrscale.audit.draws import SharedDraws
from lrscale.audit.examples import MOST, Examples
from lrscale.audit.finding import Audit
from lrscale.audit.state import State, is_users, names_of
from lrscale.errors import Refusal, printable

LONGEST_WINDOW = 256
"""The most batches that are handed out in search of the first update."""


class watch:
    """Audits a training loop through its loader. The loop is changed in one line.

    The first batches are compositions of a few examples of the first real batch. They are handed out as many at a time as an
    update takes, and everything is put back after each update. Then the audit is printed, and the real batches follow, the
    first one included. The audit is made in the first epoch only.

    What the loop counts by itself in local variables, or by `enumerate`, goes on counting. What it prints or logs is printed or
    logged. An error in the audit is printed, and the training goes on; an error that the loop raises for a batch of another
    size is the loop's own.

    Args:
      loader: any iterable of batches; see `audit` for what a batch may be.
      model: the model that is trained, or a list of its parameters.
      reference: returns the loss for which c is 1, for a batch.
      restore: further objects to put back, which the loop's function does not see.
      show: is called with the audit; None prints it.

    `audit` is the result; None before it.

    Source:
      `tests/audit/test_watch.py` trains with and without it and compares all bits.
    """

    def __init__(
        self,
        loader: Iterable[Any],
        model: nn.Module | list[Tensor],
        *,
        reference: Callable[[Any], Tensor] | None = None,
        restore: tuple[Any, ...] = (),
        show: Callable[[Audit], Any] | None = None,
    ) -> None:
        self.loader, self.model, self.reference, self.restore = loader, model, reference, restore
        self.show: Callable[[Audit], Any] = print if show is None else show
        self.audit: Audit | None = None
        self._is_done = False
        trained(model)

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["loader"], name)

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.loader)
        if not self._is_done:
            self._is_done = True
            try:
                first = next(batches)
            except StopIteration:
                return
            yield from self._compositions(first, _roots(sys._getframe(1)))
            yield first
        yield from batches

    def _compositions(self, first: Any, roots: list[Any]) -> Iterator[Any]:
        """Yields the compositions of the first batch, and makes the audit of what the loop does with them."""
        try:
            examples = Examples(first)
        except Refusal as refusal:
            print(f"lrscale.watch: not audited. {refusal}")
            return
        kept = State([self.model, self.reference, *self.restore, *roots], trained(self.model))
        try:
            window = yield from self._window(examples)
            kept.restore()
            if window is None:
                print(f"lrscale.watch: not audited. No update in the first {LONGEST_WINDOW} batches.")
                return
            yield from self._audited(first, roots, window)
        finally:
            kept.restore()
        if self.audit is not None:
            self.show(self.audit)

    def _window(self, examples: Examples) -> Generator[Any, None, int | None]:
        """Hands out the same examples until the weights are updated. Returns how many batches that took."""
        parameters = trained(self.model)
        before = [parameter.detach().clone() for parameter in parameters]
        updates: list[None] = []
        hook = register_optimizer_step_pre_hook(lambda *_: updates.append(None))
        try:
            for count in range(1, LONGEST_WINDOW + 1):
                yield examples.make(range(min(examples.count, MOST)))
                if updates or not all(torch.equal(p, old) for p, old in zip(parameters, before, strict=True)):
                    return count
        finally:
            hook.remove()
        return None

    def _audited(self, first: Any, roots: list[Any], window: int) -> Iterator[Any]:
        """Runs the measurements in a thread. It asks for updates, and waits while the loop makes them."""
        asked: SimpleQueue[list[Any] | None] = SimpleQueue()
        answered: SimpleQueue[bool] = SimpleQueue()

        def step(micros: list[Any]) -> None:
            asked.put(micros)
            if not answered.get():
                raise _LoopEnded

        def work() -> None:
            try:
                given = Request(step, first, self.model, window, self.reference, None, (*self.restore, *roots))
                m = auditing(given, window=window)
                measure(m)
                self.audit = concluded(m)
            except _LoopEnded:
                pass
            except Exception as error:
                print(f"lrscale.watch: not audited. {type(error).__name__}: {printable(str(error))[:300]}")
            finally:
                asked.put(None)

        worker = Thread(target=work, name="lrscale.watch", daemon=True)
        worker.start()
        try:
            while (micros := asked.get()) is not None:
                with SharedDraws() as draws:
                    draws.restart()
                    yield from micros
                answered.put(True)
        finally:
            answered.put(False)
            worker.join()


class _LoopEnded(Exception):
    """The loop was left while it was audited."""


def _roots(frame: FrameType | None) -> list[Any]:
    """Returns the objects that the loop's function sees."""
    while frame is not None and not is_users(frame.f_globals.get("__name__"), frame.f_code.co_filename):
        frame = frame.f_back
    if frame is None:
        return []
    names = names_of(frame.f_code)
    return [*frame.f_locals.values(), *(frame.f_globals[name] for name in names if name in frame.f_globals)]
