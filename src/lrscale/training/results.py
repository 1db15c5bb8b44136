"""What came out of one trial: the objective of each seed, divergence, and curves averaged over seeds."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lrscale.spec import Training
from lrscale.training.engine import Array, Curves
from lrscale.training.quantity import Quantity

CAP = 10.0
"""Curves of a trial stop where its loss is above so many times the starting loss."""


@dataclass(frozen=True)
class Result:
    """One trial.

    `objectives`: one a seed, inf where the run diverged or missed its target. `diverged`: one a seed; a
    run has diverged if its training loss is not finite somewhere or ends above where it started.
    `steps`, `examples`: of the curves' points. `curves`: by name, seed means, cut where a run diverges.
    `ends`: seed means at the end, of what is finite. `quantities`: what a probe measured; it has nothing else.
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
        """Mean over seeds; inf where one of them is."""
        return mean_objective(self.objectives)


def probe_result(quantities: Sequence[Quantity]) -> Result:
    """Makes the result of a probe."""
    return Result((), (), (), (), {}, {}, tuple(quantities))


def mean_objective(objectives: tuple[float, ...]) -> float:
    """Mean over seeds; inf where one of them is, 0 for none, as a probe has.

    Example:
      >>> mean_objective((1.0, float("inf")))
      inf
    """
    return math.fsum(objectives) / max(1, len(objectives)) if all(math.isfinite(o) for o in objectives) else math.inf


def results(training: Training, curves: Curves) -> Iterator[Result]:
    """Yields one result a trial.

    Args:
      training: what was trained.
      curves: what `train` returned for it.
    """
    seeds = len(training.seeds)
    diverged = has_diverged(curves.train_loss)
    objectives = np.where(diverged, np.inf, objective(training, curves))
    objectives = np.where(np.isnan(objectives), np.inf, objectives)
    examples = tuple(examples_seen(training, int(step)) for step in curves.steps)
    lines = {"train_loss": curves.train_loss, "minibatch_loss": curves.minibatch_loss, "grad_norm": curves.grad_norm}
    if not np.isnan(curves.excess_risk).all():
        lines = {"excess_risk": curves.excess_risk, **lines}
    ends = {
        "valid_loss": curves.valid_loss,
        "valid_error": curves.valid_error,
        "steps_to_target": curves.steps_to_target,
    }
    for start in range(0, training.trials * seeds, seeds):
        runs = slice(start, start + seeds)
        kept = _points_kept(curves.train_loss[:, runs])
        with np.errstate(invalid="ignore", over="ignore"):
            finals = {name: float(line[-1, runs].mean()) for name, line in lines.items()}
            finals |= {name: float(end[runs].mean()) for name, end in ends.items()}
        yield Result(
            objectives=tuple(objectives[runs].tolist()),
            diverged=tuple(diverged[runs].tolist()),
            steps=tuple(curves.steps[:kept].tolist()),
            examples=examples[:kept],
            curves={name: tuple(line[:kept, runs].mean(1).tolist()) for name, line in lines.items()},
            ends={name: value for name, value in finals.items() if math.isfinite(value)},
        )


def has_diverged(train_loss: Array) -> "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]":
    """Whether each run's loss is not finite somewhere or ends above where it started, [point, run] -> [run]."""
    with np.errstate(invalid="ignore"):
        return np.asarray(~np.isfinite(train_loss).all(0) | (train_loss[-1] > train_loss[0]), dtype=np.bool_)


def objective(training: Training, curves: Curves) -> Array:
    """The objective of each run, [run]; not finite where it diverged."""
    line: Array = getattr(curves, training.objective)
    return np.asarray(np.atleast_2d(line)[-1], dtype=np.float64)


def examples_seen(training: Training, steps: int) -> int:
    """Examples that so many steps have consumed, short last steps of epochs counted as they are."""
    epochs, rest = divmod(steps, training.steps_per_epoch)
    stop = min(training.examples, training.steps_per_epoch * training.step_examples)
    return epochs * stop + min(rest * training.step_examples, stop)


def _points_kept(losses: Array) -> int:
    """Points before the first at which a run's loss is not finite or above the cap, [point, seed]; at least 1."""
    with np.errstate(invalid="ignore", over="ignore"):
        fine = (losses <= CAP * losses[0]).all(1)
    return max(1, int(np.argmin(fine)) if not fine.all() else len(fine))
