"""The updates of many runs: the optimizer's rule with each trial's hyperparameters, and the schedule of the lr."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lrscale.spec import Training, is_own
from lrscale.training.optimizers import OPTIMIZERS
from lrscale.training.own_updates import Factors, OwnUpdates
from lrscale.training.schedules import lr_factor


class Updates:
    """The optimizer of some runs, with its state.

    `lr_factor` returns the factor of the lr at a step; it is None where the lr is constant.
    """

    def __init__(self, training: Training, chunk: slice, parameters: Sequence[Tensor], factors: Factors | None = None) -> None:
        """Prepares the updates.

        Args:
          training: the description of the runs.
          chunk: the trials.
          parameters: the parameters of the runs, [seed, trial, *shape] each.
          factors: factors of some options for each parameter, by name; None where all are 1.
        """
        self.optimizer = OPTIMIZERS[training.optimizer.name]
        self.hypers = [per_trial(training, chunk, parameter) for parameter in parameters]
        for hyper, own in zip(self.hypers, factors or [], strict=factors is not None):
            hyper |= {key: hyper[key] * factor for key, factor in own.items()}
        self.states = [self.optimizer.state(p, h) for p, h in zip(parameters, self.hypers, strict=True)]
        self.lr_factor = lr_factor(training)
        self.full_lrs = [hyper["lr"] for hyper in self.hypers]

    def update(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor], step: int) -> None:
        """Changes the parameters in place by one step; steps are counted from 1."""
        if self.lr_factor is not None:
            factor = self.lr_factor(step)
            for hyper, lr in zip(self.hypers, self.full_lrs, strict=True):
                hyper["lr"] = factor * lr
        for k, gradient in enumerate(gradients):
            self.optimizer.update(parameters[k], gradient, self.states[k], self.hypers[k], step)


def make_updates(
    training: Training, chunk: slice, parameters: Sequence[Tensor], factors: Factors | None = None
) -> Updates | OwnUpdates:
    """Makes the optimizer of some runs; see `Updates`, and `OwnUpdates` for a class of the user's own."""
    kind = OwnUpdates if is_own(training.optimizer.name) else Updates
    return kind(training, chunk, parameters, factors)


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
        name: torch.tensor(value[chunk], dtype=like.dtype, device=like.device).view(shape)
        if declared[name].tunable and isinstance(value, tuple)
        else value
        for name, value in training.optimizer.options.items()
    }
