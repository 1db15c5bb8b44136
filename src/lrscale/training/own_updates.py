"""The updates of many runs by a user's own torch.optim.Optimizer class: all runs of a trial stacked, or each run apart."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lrscale.spec import Training
from lrscale.streams import generator
from lrscale.training.device import seed_generators
from lrscale.training.named_optimizer import class_options, load_class
from lrscale.training.schedules import lr_factor

Make = Callable[..., torch.optim.Optimizer]
"""A class of optimizers, or a function that makes one."""
Factors = Sequence[Mapping[str, float]]
"""Factors of some options for each parameter, by name."""


class OwnUpdates:
    """The optimizers of some runs. A trial has options of its own; see `Updates` for `lr_factor`.

    Stacked, one optimizer has a group of parameters for each trial, of tensors [seed, *shape]. Apart, each run has an
    optimizer. All see views of the parameters of the runs, and copies of the gradients, which they may change.
    """

    def __init__(
        self, training: Training, chunk: slice, parameters: Sequence[Tensor], factors: Factors | None = None, way: str = ""
    ) -> None:
        """Makes the optimizers.

        Args:
          training: the description of the runs.
          chunk: the trials.
          parameters: the parameters of the runs, [seed, trial, *shape] each. They are changed in place.
          factors: factors of some options for each parameter, by name; None where all are 1.
          way: `stacked` or `apart`; empty for what the training names.
        """
        self.lr_factor, self.seeds = lr_factor(training), training.seeds
        make, options = load_class(training.optimizer.name, training.optimizer.options["sha256"]), training.optimizer.options
        trials = per_trial_options(options, chunk)
        self.copies = [torch.empty_like(parameter) for parameter in parameters]
        factors = [{}] * len(parameters) if factors is None else factors
        stacked = (way or options["way"]) == "stacked"
        runs = list(itertools.product(range(len(parameters[0])), range(len(trials))))
        parts = [[(slice(None), t) for t in range(len(trials))]] if stacked else [[run] for run in runs]
        self.seed_of = [None] if stacked else [s for s, _ in runs]
        self.views: list[tuple[Tensor, Tensor, Tensor]] = []
        self.optimizers = []
        for part in parts:
            tuned = options["tunable"] if stacked else ()  # one optimizer for all trials takes them from the groups
            groups = [g for s, t in part for g in self._groups(parameters, factors, s, t, trials[t], tuned)]
            plain = groups[0]["params"] if len(groups) == 1 and len(groups[0]) == 1 else groups
            self.optimizers.append(make(plain, **trials[part[0][1]]))
        self.full_lrs = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]

    def _groups(
        self,
        parameters: Sequence[Tensor],
        factors: Factors,
        s: int | slice,
        t: int,
        options: Mapping[str, Any],
        tuned: Sequence[str],
    ) -> list[dict[str, Any]]:
        """Returns the groups of parameters of one trial, and of one seed or all; parameters with equal factors share a group."""
        shared, groups = {key: options[key] for key in tuned}, dict[str, dict[str, Any]]()
        for parameter, copy, own in zip(parameters, self.copies, factors, strict=True):
            view = parameter[s, t].requires_grad_()
            self.views.append((view, parameter[s, t], copy[s, t]))
            changed = {key: options[key] * factor for key, factor in own.items()}
            groups.setdefault(repr(sorted(own.items())), {**shared, **changed, "params": []})["params"].append(view)
        return list(groups.values())

    @torch.no_grad()
    def update(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor], step: int) -> None:
        """Changes the parameters in place by one step; steps are counted from 1."""
        for copy, gradient in zip(self.copies, gradients, strict=True):
            _ = copy.copy_(gradient)
        for view, _, gradient in self.views:
            view.grad = gradient
        factor = 1.0 if self.lr_factor is None else self.lr_factor(step)
        for optimizer, full_lrs, s in zip(self.optimizers, self.full_lrs, self.seed_of, strict=True):
            if self.lr_factor is not None:
                for group, lr in zip(optimizer.param_groups, full_lrs, strict=True):
                    group["lr"] = factor * lr
            if s is not None:  # where the optimizer draws, all lrs of a seed have the same draws
                seed_generators(parameters[0].device, generator("optimizer", self.seeds[s], step).initial_seed())
            _ = optimizer.step()
        for view, target, _ in self.views:
            if view.data_ptr() != target.data_ptr():  # the class has put another tensor in its place
                _ = target.copy_(view)


def per_trial_options(options: Mapping[str, Any], chunk: slice) -> list[dict[str, Any]]:
    """Returns the values of the class's parameters for each trial of a chunk."""
    tuned = {key: options[key][chunk] for key in options["tunable"] if isinstance(options[key], tuple)}
    return [{**class_options(options), **dict(zip(tuned, values, strict=True))} for values in zip(*tuned.values(), strict=True)]
