"""The result of one trial: the objective of each seed, which seeds diverged, and curves averaged over seeds."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lrscale.spec import Training
from lrscale.training.quantity import Quantity

if TYPE_CHECKING:  # the engine imports torch, which reading records does not need
    from lrscale.training.engine import Array, Curves

CAP = 10.0
"""The curves of a trial end before the first point where a run's loss is above CAP x its starting loss."""


@dataclass(frozen=True)
class Result:
    """The result of one trial.

    `objectives` has one value per seed; it is inf where the run diverged or missed its target. `diverged` has one value per
    seed. A run has diverged if its training loss is not finite at some point, or is larger at the end than at the start.
    `steps` and `examples` are the numbers of steps and examples at the points of the curves. `curves` holds the means over
    seeds by name, up to the point where a run diverges. `ends` holds the means over seeds at the end, where they are
    finite. `quantities` is what a probe measured. The result of a probe has only quantities.
    """

    objectives: tuple[float, ...]
    diverged: tuple[bool, ...]
    steps: tuple[int, ...]
    examples: tuple[int, ...]
    curves: Mapping[str, tuple[float, ...]]
    ends: Mapping[str, float]
    quantities: tuple[Quantity, ...] = ()

    @property
    def objective(self) -> float:
        """The mean objective over seeds; inf where the objective of a seed is inf."""
        return mean_objective(self.objectives)

    @property
    def diverged_in_words(self) -> str:
        """How many seeds diverged, in words.

        Example:
          >>> Result((1.0, float("inf")), (False, True), (0, 1), (0, 4), {}, {}).diverged_in_words
          '1 of 2 seeds diverged'
        """
        return f"{sum(self.diverged)} of {len(self.diverged)} seeds diverged"


def probe_result(quantities: Sequence[Quantity]) -> Result:
    """Returns the result of a probe that measured these quantities."""
    return Result((), (), (), (), {}, {}, tuple(quantities))


def same_run(result: Result, r: float) -> Result:
    """Returns the result of the same run in a cell whose gradients are r times as large: only their norm differs."""
    scaled = {name: tuple(r * value for value in line) if name == "grad_norm" else line for name, line in result.curves.items()}
    ends = {name: r * value if name == "grad_norm" else value for name, value in result.ends.items()}
    return replace(result, curves=scaled, ends=ends)


def mean_objective(objectives: tuple[float, ...]) -> float:
    """Returns the mean objective over seeds; inf where one objective is not finite, and 0 without objectives, as for a probe.

    Example:
      >>> mean_objective((1.0, float("inf")))
      inf
    """
    return math.fsum(objectives) / max(1, len(objectives)) if all(math.isfinite(value) for value in objectives) else math.inf


def results(training: Training, curves: "Curves") -> Iterator[Result]:
    """Yields the result of each trial, in the order of the trials.

    Args:
      training: the training that gave the curves.
      curves: the curves that `train` returned.
    """
    seeds = len(training.seeds)
    diverged = has_diverged(curves.train_loss)
    objectives = np.where(diverged, np.inf, objective(training, curves))
    objectives = np.where(np.isnan(objectives), np.inf, objectives)
    examples = tuple(examples_seen(training, int(step)) for step in curves.steps)
    lines = {"train_loss": curves.train_loss, "minibatch_loss": curves.minibatch_loss, "grad_norm": curves.grad_norm}
    for name, line in (("population_risk", curves.population_risk), ("excess_risk", curves.excess_risk)):
        if not np.isnan(line).all():
            lines = {name: line, **lines}
    ends = {
        "valid_loss": curves.valid_loss,
        "valid_error": curves.valid_error,
        "steps_to_target": curves.steps_to_target,
    }
    for start in range(0, training.trials * seeds, seeds):
        runs = slice(start, start + seeds)
        points = _points_before_divergence(curves.train_loss[:, runs])
        with np.errstate(invalid="ignore", over="ignore"):
            finals = {name: float(line[-1, runs].mean()) for name, line in lines.items()}
            finals |= {name: float(end[runs].mean()) for name, end in ends.items()}
        yield Result(
            objectives=tuple(objectives[runs].tolist()),
            diverged=tuple(diverged[runs].tolist()),
            steps=tuple(curves.steps[:points].tolist()),
            examples=examples[:points],
            curves={name: tuple(line[:points, runs].mean(1).tolist()) for name, line in lines.items()},
            ends={name: value for name, value in finals.items() if math.isfinite(value)},
        )


def has_diverged(train_loss: "Array") -> "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]":
    """Returns whether each run has diverged, [run], from its training loss, [point, run].

    A run has diverged if its loss is not finite at some point, or is larger at the end than at the start.
    """
    with np.errstate(invalid="ignore"):
        return np.asarray(~np.isfinite(train_loss).all(0) | (train_loss[-1] > train_loss[0]), dtype=np.bool_)


def objective(training: Training, curves: "Curves") -> "Array":
    """Returns the objective of each run, [run]. It may be finite where the run diverged."""
    line: Array = getattr(curves, training.objective)
    return np.asarray(np.atleast_2d(line)[-1], dtype=np.float64)


def examples_seen(training: Training, steps: int) -> int:
    """Returns the number of examples in the first `steps` steps. A short last step of an epoch counts only its examples."""
    epochs, rest = divmod(steps, training.steps_per_epoch)
    epoch_examples = min(training.examples, training.steps_per_epoch * training.step_examples)
    return epochs * epoch_examples + min(rest * training.step_examples, epoch_examples)


def _points_before_divergence(losses: "Array") -> int:
    """Returns the number of points before the first one at which a run's loss is not finite or above the cap; at least 1.

    `losses` is [point, seed], of one trial.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        valid = (losses <= CAP * losses[0]).all(1)
    return max(1, int(np.argmin(valid)) if not valid.all() else len(valid))
