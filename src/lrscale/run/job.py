"""The work of a Hydra job: plain configs in, the results of their trials out. It writes nothing and needs nothing else."""

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from lrscale.probes import PROBES
from lrscale.spec import Compute
from lrscale.study.config import make_training
from lrscale.study.plan import Share
from lrscale.tasks.registry import make_task
from lrscale.training.engine import train, use_threads
from lrscale.training.results import Result, probe_result, results


class Outcome(NamedTuple):
    """What came of a cell: a result a trial, or the traceback of its crash; and the seconds it took."""

    results: list[Result]
    crash: str | None
    seconds: float


def work(config: Mapping[str, Any], compute: Compute) -> list[Result]:
    """Trains all trials and seeds of a config, or measures what its probe says.

    Args:
      config: plain values, as `make_training` takes them; `optimizer.lr` may be a list, one value a trial.
      compute: settings of the machine.

    Returns:
      One result a trial; one for a probe.
    """
    training = make_training(config)
    use_threads(compute.threads)
    task = make_task(training)
    if training.probe is not None:
        return [probe_result(PROBES[training.probe.name].measure(training, task))]
    return list(results(training, train(training, task, compute.memory_mb)))


def work_all(configs: Sequence[Mapping[str, Any]], compute: Compute) -> list[Outcome]:
    """Does the work of several cells; one that crashes gives its traceback and leaves the others alone."""
    outcomes = []
    for config in configs:
        started = time.perf_counter()
        try:
            results, crash = work(config, compute), None
        except Exception:
            results, crash = [], traceback.format_exc()
        outcomes.append(Outcome(results, crash, time.perf_counter() - started))
    return outcomes


Launch = Callable[[Sequence[Sequence[Share]]], list[list[Outcome] | str]]
"""Runs jobs, each the shares of some cells, and returns for each job the outcomes of its shares, or its traceback."""
