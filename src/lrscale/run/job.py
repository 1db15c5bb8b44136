"""Does the work of a Hydra job: takes plain configs and returns the results of their trials. It writes nothing."""

import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from lrscale.probes import PROBES
from lrscale.run.limits import TookTooLong, time_limit
from lrscale.spec import Compute
from lrscale.study.config import make_training
from lrscale.study.plan import Share
from lrscale.tasks.built_in import BuiltInTask
from lrscale.tasks.registry import make_task
from lrscale.training.engine import train, use_threads
from lrscale.training.results import Result, probe_result, results

Listener = Callable[[float, int, int], None]
"""A function that is told for how many seconds a cell trains, how many steps it has taken, and how many it takes."""
_listeners: list[Listener] = []


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Inside this context, a listener is told how far the jobs are that run in this process."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


class Outcome(NamedTuple):
    """The outcome of one cell's share of a job.

    `results` has one result for each trial; it is empty where the share crashed. `crash` is the traceback of the crash,
    or None. `seconds` is the wall time. `late` says whether the share crashed because it took longer than it may.
    """

    results: list[Result]
    crash: str | None
    seconds: float
    late: bool = False


def work(config: Mapping[str, Any], compute: Compute, told: Callable[[int, int, float], None] | None = None) -> list[Result]:
    """Trains all trials and seeds of a config, or measures with its probe.

    Args:
      config: plain values, as `make_training` takes them; `optimizer.lr` may be a list with one value for each trial.
      compute: settings of the machine.
      told: told of each recorded point while a training runs, as in `train`; None to tell those who are `listening`.

    Returns:
      One result for each trial; a single result for a probe.

    Raises:
      Refusal: the config cannot be used.
    """
    training = make_training(config)
    use_threads(compute.threads)
    if training.probe is not None:
        probe, task = PROBES[training.probe.name], make_task(training)
        if isinstance(task, BuiltInTask):
            return [probe_result(probe.measure(training, task))]
        assert probe.measure_own is not None
        return [probe_result(probe.measure_own(training, task))]
    return list(results(training, train(training, make_task(training), compute, told or partial(_tell, time.perf_counter()))))


def _tell(start: float, step: int, steps: int, loss: float) -> None:
    for listener in _listeners:
        listener(time.perf_counter() - start, step, steps)


def work_all(
    configs: Sequence[Mapping[str, Any]], compute: Compute, limit: float | None = None, may_end_process: bool = False
) -> list[Outcome]:
    """Does the work of several cells. A cell that crashes gives its traceback, and does not affect the others.

    Args:
      configs: the config of each cell, as `work` takes it.
      compute: settings of the machine.
      limit: the longest time that a cell may take, in seconds; None for no limit.
      may_end_process: whether this process may be ended where a cell cannot be stopped in another way.

    Returns:
      One outcome for each config, in the same order.
    """
    outcomes = []
    for config in configs:
        start = time.perf_counter()
        results: list[Result] = []
        crash, late = None, False
        try:
            with time_limit(limit, may_end_process):
                results = work(config, compute)
        except TookTooLong as error:
            crash, late = f"TookTooLong: {error}", True
        except Exception:
            crash = traceback.format_exc()
        outcomes.append(Outcome(results, crash, time.perf_counter() - start, late))
    return outcomes


Launch = Callable[[Sequence[Sequence[Share]]], list[list[Outcome] | str]]
"""A function that runs jobs. Each job is a list of shares, one for each of its cells.

It returns one entry for each job: the outcomes of its shares, or the traceback where the whole job crashed.
"""
