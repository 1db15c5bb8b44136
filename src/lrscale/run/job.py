"""The work of a Hydra job: plain configs in, the results of their trials out. It writes nothing and needs nothing else."""

import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from lrscale.spec import training
from lrscale.tasks.images import read_files
from lrscale.tasks.task import make_task
from lrscale.training.engine import train
from lrscale.training.results import Result, measured, results


class Outcome(NamedTuple):
    """What came of a cell: a result a trial, or the traceback of its crash; and the seconds it took."""

    results: list[Result]
    crash: str | None
    seconds: float


def work(config: Mapping[str, Any]) -> list[Result]:
    """Trains all trials and seeds of a config, or measures what its probe says.

    Args:
      config: plain values, as `spec.training` takes them; `optimizer.lr` may be a list, one value a trial.

    Returns:
      One result a trial; one for a probe.
    """
    made = training(config)
    torch.set_num_threads(made.threads)
    task = make_task(made, read_files(made.task))
    if made.probe is not None:
        from lrscale.probes import PROBES  # scipy: only where there is something to measure

        return [measured(PROBES[made.probe.name](made, task))]
    return list(results(made, train(made, task)))


def work_all(configs: Sequence[Mapping[str, Any]]) -> list[Outcome]:
    """Does the work of several cells; one that crashes gives its traceback and leaves the others alone."""
    outcomes = []
    for config in configs:
        started = time.perf_counter()
        try:
            results, crash = work(config), None
        except Exception:
            results, crash = [], traceback.format_exc()
        outcomes.append(Outcome(results, crash, time.perf_counter() - started))
    return outcomes
