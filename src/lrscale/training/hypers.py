"""The hyperparameters of many runs: one value for each trial, as tensors that broadcast over a parameter."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lrscale.spec import Training
from lrscale.training.optimizers import OPTIMIZERS


def per_trial(training: Training, chunk: slice, like: Tensor) -> dict[str, Any]:
    """Returns the hyperparameters of a chunk of trials, for the update of one parameter.

    A hyperparameter with one value per trial becomes a tensor that broadcasts over the parameter.

    Args:
      training: the description of the runs.
      chunk: the trials.
      like: the parameter, [seed, trial, *shape].
    """
    declared = OPTIMIZERS[training.optimizer.name].options
    shape = (1, -1, *[1] * (like.ndim - 2))
    return {
        name: torch.tensor(value[chunk], dtype=like.dtype).view(shape)
        if declared[name].tunable and isinstance(value, tuple)
        else value
        for name, value in training.optimizer.options.items()
    }


def with_factors(hyper: Mapping[str, Any], factors: Mapping[str, float]) -> dict[str, Any]:
    """Returns the hyperparameters of one parameter, some of which are multiplied by a factor."""
    return {key: value * factors[key] if key in factors else value for key, value in hyper.items()}
