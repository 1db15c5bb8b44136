"""`for batch in lrscale.watch(loader, model)`: audits a training loop of the user's own, and then hands on the real batches."""

import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sized
from queue import SimpleQueue
from threading import Thread
from types import FrameType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from lrscale.audit.audit import Request, auditing, concluded, measure, whole_model
from lrscale.audit.draws import SharedDraws
from lrscale.audit.entries import trained
from lrscale.audit.examples import MOST, Examples
from lrscale.audit.finding import Audit
from lrscale.audit.state import NOT_HELD, Names, State, is_users, names_of
from lrscale.errors import Refusal, printable

LONGEST_WINDOW = 256
"""The most batches that are handed out in search of the first update."""


class watch:
    """Audits a training loop through its loader. The loop is changed in one line.

    The first real batch is handed out first. Where the loop goes on, compositions of a few of its examples follow, as many at a
    time as an update takes, and everything is put back after each update. Then the audit is printed, and the real batches
    follow, the first one included. The audit is made once. A loop that is left after its first batch is not audited: the next
    one is.

    Variables of a module are put back. What the loop counts by itself in local variables of a function, or by `enumerate` or
    `zip`, goes on counting. What it prints or logs is printed or logged. An error in the audit is printed, and the training
    goes on; an error that the loop raises for a batch of another size is the loop's own.

    Args:
      loader: any iterable of batches; see `audit` for what a batch may be.
      model: the model that is trained, a list of models, or their parameters.
      reference: returns the loss for which c is 1, for a batch.
      restore: further objects to put back, which the loop's function does not see.
      show: is called with the audit; None prints it.

    `audit` is the result; None before it.

    Source:
      `tests/audit/test_watch.py` trains with and without it and compares all bits.
    """

    _is_one_at_work: ClassVar[bool] = False

    def __init__(
        self,
        loader: Iterable[Any],
        model: nn.Module | Iterable[nn.Module | Tensor],
        *,
        reference: Callable[[Any], Tensor] | None = None,
        restore: tuple[Any, ...] = (),
        show: Callable[[Audit], Any] | None = None,
    ) -> None:
        self.loader, self.reference, self.restore = loader, reference, restore
        self.model = whole_model(model)
        self.show: Callable[[Audit], Any] = print if show is None else show
        self.audit: Audit | None = None
        self._is_done = False
        trained(self.model)

    def __len__(self) -> int:
        if not isinstance(self.loader, Sized):
            raise TypeError(f"object of type {type(self.loader).__name__!r} has no len()")
        return len(self.loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["loader"], name)

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.loader)
        if not self._is_done:
            try:
                first = next(batches)
            except StopIteration:
                return
            yield from self._compositions(first, _roots(sys._getframe(1)))
        yield from batches

    def _compositions(self, first: Any, roots: list[Any]) -> Iterator[Any]:
        """Yields the first batch, makes the audit of what the loop does with its compositions, and yields it again."""
        try:
            examples = Examples(first)
        except Refusal as refusal:
            self._is_done = True
            _say(str(refusal))
            yield first
            return
        kept = State([self.model, self.reference, *self.restore, *roots], trained(self.model))
        with _Updates(trained(self.model)) as updates:
            yield examples.make(range(examples.count))  # a loop that is left here has trained as without an audit
            self._is_done = True
            if watch._is_one_at_work:
                _say("Another loop is audited now: watch one loader at a time.")
                return
            watch._is_one_at_work = True
            try:
                yield from self._rest(first, examples, roots, kept, updates)
            except GeneratorExit:
                _say("The loop was left during the audit, and everything was put back as before its first batch.")
                raise
            finally:
                watch._is_one_at_work = False
                kept.restore()
        if self.audit is not None:
            self.show(self.audit)
        yield first

    def _rest(self, first: Any, examples: Examples, roots: list[Any], kept: State, updates: "_Updates") -> Iterator[Any]:
        """Yields what follows the first batch: the rest of its window, and the audit's windows."""
        some = examples.make(range(min(examples.count, MOST)))
        more = 0 if updates.one_was_made() else (yield from updates.until_one(some))
        if more is None:
            _say(f"No update in the first {LONGEST_WINDOW} batches.")
            return
        kept.restore()
        if (yield from self._audited(first, roots, 1 + more, updates)):
            return
        _say(
            f"The first update came after {1 + more} batch{'es' if more else ''}, and later ones at other places, as if the loop "
            "counted its batches or left some out. Write the update as a function, and give it to lrscale.audit."
        )
        yield from updates.until_one(some)
        period = (yield from updates.until_one(some)) or 1
        for _ in range((period - 1 - more) % period):  # the loop's own count is again where it was before the first batch
            yield some

    def _audited(self, first: Any, roots: list[Any], window: int, updates: "_Updates") -> Generator[Any, None, bool]:
        """Runs the measurements in a thread. It asks for updates, and waits while the loop makes them.

        Returns False where an update did not come after `window` batches.
        """
        asked: SimpleQueue[list[Any] | None] = SimpleQueue()
        answered: SimpleQueue[SharedDraws | None] = SimpleQueue()

        def work() -> None:
            def step(micros: list[Any]) -> None:
                asked.put(micros)
                if (draws := answered.get()) is None:
                    raise _LoopEnded
                m.bench.coarsest = max(m.bench.coarsest, draws.coarsest)

            try:
                given = Request(step, first, self.model, window, self.reference, None, (*self.restore, *roots))
                m = auditing(given, window=window)
                measure(m)
                self.audit = concluded(m)
            except _LoopEnded:
                pass
            except Exception as error:
                _say(f"{type(error).__name__}: {printable(str(error))[:300]}")
            finally:
                asked.put(None)

        worker = Thread(target=work, name="lrscale.watch", daemon=True)
        worker.start()
        try:
            while (micros := asked.get()) is not None:
                with SharedDraws() as draws:
                    for count, micro in enumerate(micros, 1):
                        yield micro
                        if updates.one_was_made() != (count == window) and (updates.are_of_optimizers or count < window):
                            return False
                answered.put(draws)
        finally:
            answered.put(None)
            worker.join()
        return True


class _Updates:
    """Tells whether the weights were updated: by an optimizer of torch, or else by hand.

    `are_of_optimizers` says which of the two.
    """

    def __init__(self, parameters: list[Tensor]) -> None:
        self.parameters, self.before = parameters, [parameter.detach().clone() for parameter in parameters]
        self.are_of_optimizers = self._is_new = False

    def __enter__(self) -> "_Updates":
        self._hook = register_optimizer_step_pre_hook(self._count)
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()

    def _count(self, *_: Any) -> None:
        self.are_of_optimizers = self._is_new = True

    def one_was_made(self) -> bool:
        """Whether an optimizer took a step since this was asked last; without optimizers, whether the weights have changed."""
        is_new, self._is_new = self._is_new, False
        if self.are_of_optimizers:
            return is_new
        return not all(torch.equal(p, old) for p, old in zip(self.parameters, self.before, strict=True))

    def until_one(self, batch: Any) -> Generator[Any, None, int | None]:
        """Hands out a batch until the next update. Returns how often that was; None where no update came."""
        for count in range(1, LONGEST_WINDOW):
            yield batch
            if self.one_was_made():
                return count
        return None


class _LoopEnded(Exception):
    """The loop was left while it was audited."""


def _say(why: str) -> None:
    print(f"lrscale.watch: not audited. {why}")


def _roots(frame: FrameType | None) -> list[Any]:
    """Returns the objects that the loop's function sees."""
    while frame is not None and not is_users(frame.f_globals.get("__name__"), frame.f_code.co_filename):
        frame = frame.f_back
    if frame is None:
        return []
    of_module = Names(frame.f_globals, names_of(frame.f_code))
    if frame.f_locals is frame.f_globals:
        return [of_module]
    return [*(value for value in frame.f_locals.values() if not isinstance(value, NOT_HELD)), of_module]
