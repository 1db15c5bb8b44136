"""The theory of a cell: the best lr and the edge of stability of SGD on least squares, or why there is none.

Theory speaks of the population: each step sees fresh examples, the risk is counted from the true weights, and it is the
mean over data draws. What a cell measures can differ: its runs may use an example several times or share one data draw,
and `excess_risk` is counted from the optimum of the training examples. With much noise, each of the three changes the best
lr. So where noise is not negligible, theory is stated only for what it speaks of.
"""

from typing import NamedTuple

from lrscale.estimate.intervals import Array
from lrscale.law import least_squares
from lrscale.law.moments import NO_MOMENTUM, Momentum
from lrscale.spec import Training
from lrscale.tasks.built_in import Population
from lrscale.tasks.registry import population

NEGLIGIBLE = 0.01
"""The largest share of noise, in the risk at the start or in the target loss, at which theory leaves noise out."""


class Theory(NamedTuple):
    """What theory says about a cell, in the cell's own reduction.

    `best_lr` is the best lr, and `edge` the mean-square edge of stability; both are None where theory makes no statement.
    `note` says why there is no best lr, and is empty where there is one.
    """

    best_lr: float | None
    edge: float | None
    note: str


def theory_of(training: Training, c: float) -> Theory:
    """Returns the best lr and the mean-square edge of stability in theory, or why theory gives no best lr.

    Args:
      training: the training of the cell.
      c: its gradient scale.
    """
    if training.is_script:
        return Theory(None, None, "it knows nothing of the data of a training script.")
    source, options = population(training), training.optimizer.options
    if source is None or training.optimizer.name != "sgd":
        return Theory(None, None, "it is known for SGD on least squares only.")
    if options["dampening"] != 0 or options["weight_decay"] != 0:
        return Theory(None, None, "it is known without weight decay and dampening only.")
    if training.schedule is not None:
        return Theory(None, None, f"it is known for a constant lr without warm-up only, got schedule {training.schedule.name}.")
    spectrum, size = source.spectrum.numpy(), training.step_examples
    momentum = Momentum(options["momentum"], options["nesterov"])
    edge = least_squares.mean_square_edge(spectrum, source.bias, size, momentum) / c
    start = source.weights.numpy() ** 2
    start[: len(spectrum)] += 0.01**2
    note = _why_not(training, source, start)
    if note:
        return Theory(None, edge, note)
    if training.objective == "steps_to_target":
        if momentum != NO_MOMENTUM:
            return Theory(None, edge, "of the lr that reaches a target soonest it is known without momentum only.")
        return Theory(_soonest_lr(training, source, start) / c, edge, "")
    best = least_squares.best_lr_after_steps(spectrum, source.bias, size, training.steps, start, source.noise, momentum)
    return Theory(best / c, edge, "")


def displacement(examples: int, noise: float, eigenvalues: Array, start: Array) -> float:
    """Returns how far noise moves the optimum of the training examples, as a share of the risk at the start.

        displacement = (sigma^2 k / (2 N)) / (1/2 sum_i lam_i start_i)

    The numerator is the expected population risk at the optimum of N training examples, for k weights and N >> k. A
    displacement of .01 changes the best lr by about 5 % in 3 epochs, and 20 % in 20 epochs; one of 1 changes it by a factor.

    Args:
      examples: number of training examples, N.
      noise: standard deviation sigma of the targets' noise.
      eigenvalues: lam_i of the Hessian, [weight].
      start: the second moments around the true weights at the start, [weight].

    Source:
      Least squares with Gaussian noise; pinned by `test_the_displacement_is_that_of_drawn_optima`.
    """
    return noise**2 * len(eigenvalues) / examples / float(eigenvalues @ start)


def _why_not(training: Training, source: Population, start: Array) -> str:
    """Returns why theory gives no best lr for SGD on least squares; empty where it gives one."""
    examples, noise, objective = training.examples, source.noise, training.objective
    if objective == "steps_to_target":
        target = training.budget.options["target"]
        is_small = noise**2 / 2 <= NEGLIGIBLE * target
        return "" if is_small else f"noise {noise:g} is not small against the target loss {target:g}. Take a higher target."
    if objective not in ("excess_risk", "population_risk"):
        return f"it is not known for the objective {objective}. Take objective=population_risk."
    is_small = displacement(examples, noise, source.eigenvalues.numpy(), start) <= NEGLIGIBLE
    if is_small:
        return ""
    if objective == "excess_risk":
        return (
            f"noise {noise:g} moves the optimum of {examples} training examples too far from the population's, of which theory "
            "speaks. Take objective=population_risk, data_seeds=own and one epoch, or more examples."
        )
    lacking = [
        *(["data_seeds=own"] if training.data_seeds != "own" else []),
        *(["budget.epochs=1"] if training.steps > training.steps_per_epoch else []),
    ]
    if not lacking:
        return ""
    return (
        f"with noise {noise:g} it holds only for the mean over data draws, with no example used twice. "
        f"Take {' and '.join(lacking)}, or more examples."
    )


def _soonest_lr(training: Training, source: Population, start: Array) -> float:
    """Returns the lr under mean reduction that reaches the target in the fewest steps.

    For a spectrum with a single eigenvalue this is a closed form, which does not depend on the target.
    """
    spectrum, size, target = source.spectrum.numpy(), training.step_examples, training.budget.options["target"]
    if float(spectrum.min()) == float(spectrum.max()):
        return least_squares.fastest_lr(spectrum, source.bias, size)
    return least_squares.soonest_lr(target, spectrum, source.bias, size, start)
