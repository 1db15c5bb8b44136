"""One Hydra job: a plain config in, the results of its trials out. It writes nothing and needs nothing else."""

from collections.abc import Mapping
from typing import Any

import torch

from lrscale.datasets import read_files
from lrscale.results import Result, results
from lrscale.spec import training
from lrscale.tasks import make_task
from lrscale.train import train


def work(config: Mapping[str, Any]) -> list[Result]:
    """Trains all trials and seeds of a config.

    Args:
      config: plain values, as `spec.training` takes them; `optimizer.lr` may be a list, one value a trial.

    Returns:
      One result a trial.
    """
    made = training(config)
    torch.set_num_threads(made.threads)
    return list(results(made, train(made, make_task(made, read_files(made.task)))))
