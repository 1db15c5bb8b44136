"""Measures along training the two numbers that limit an lr: the largest curvature of the loss, and the gradient noise scale."""

import math
from collections.abc import Callable

import numpy as np
import torch

from lrscale.estimate.intervals import exponential, jackknife
from lrscale.probes import FRACTION_DONE, PROBES, Probe
from lrscale.rules import integer
from lrscale.spec import Option, Training
from lrscale.tasks.built_in import BuiltInTask
from lrscale.tasks.own import Task
from lrscale.tasks.rows import CPU
from lrscale.training.device import own_settings
from lrscale.training.forms import quiet
from lrscale.training.lanczos import Array
from lrscale.training.landscape import landscape_after
from lrscale.training.quantity import Quantity
from lrscale.training.reduction import step_gradient_scale


def measure(training: Training, task: BuiltInTask | Task) -> list[Quantity]:
    """Measures the largest curvature and the noise scale after a `fraction` of training, over the whole training data.

    - `lam_max`: the largest eigenvalue of the Hessian of the mean loss. It is the mean over seeds in the log.
    - `lr_lam_max`: lr under mean x `lam_max`, for SGD only. On a quadratic loss a step of gradient descent without momentum
      multiplies the error along the steepest direction by 1 - lr lam_max, so it is stable below 2.
    - `b_simple`: tr(Sigma)/|G|^2, where G is the gradient of the mean loss and Sigma the covariance of the examples'
      gradients: what `noise_scale` estimates from batches that are drawn from the training data. Both are added up over
      seeds before they are divided. In the form lr_sum* = eta_max/(B + B_c) it predicts B_c where noise has no preferred
      direction: a batch of B examples has the squared gradient |G|^2 (1 + B_simple/B).

    In a task of the user's own the loss is the one in eval mode: dropout does nothing, and batch norm uses its averages.
    Intervals are over seeds. A quantity that is not finite in some seed is left out.

    Source:
      Cohen et al. 2021, arXiv 2103.00065 (2/lr as the edge of stability of networks); McCandlish et al. 2018,
      arXiv 1812.06162 (B_simple, and the form in section 2.2); `tests/probes/test_curvature.py`.
    """
    assert training.probe is not None
    options = training.probe.options
    with own_settings(CPU), quiet():
        landscape = landscape_after(training, task, round(options["fraction"] * training.steps))
        lam_max = landscape.largest_curvatures(training.seeds, options["iterations"])
        noise = np.array([landscape.noise(run) for run in range(len(training.seeds))])
    quantities = []
    if np.isfinite(lam_max).all() and lam_max.min() > 0:
        quantities.append(_over_seeds("lam_max", np.log(lam_max), float, _expected_lam_max(task)))
        if training.optimizer.name == "sgd":
            mean_lr = float(training.optimizer.options["lr"][0]) * step_gradient_scale(training)
            quantities.append(_over_seeds("lr_lam_max", np.log(mean_lr * lam_max), float))
    if np.isfinite(noise).all() and noise.mean(0).min() > 0:
        quantities.append(_over_seeds("b_simple", noise, lambda mean: math.log(mean[1] / mean[0])))
    return quantities


def _over_seeds(name: str, parts: Array, log: Callable[[Array], float], expected: float | None = None) -> Quantity:
    """Returns the quantity whose log is a function of a mean over seeds, [seed, ...]; one seed gives no interval."""
    if len(parts) == 1:
        return Quantity(name, math.exp(log(parts[0])), expected=expected)
    return Quantity(name, *exponential(jackknife(log, parts)), expected)


def _expected_lam_max(task: BuiltInTask | Task) -> float | None:
    """Returns the largest eigenvalue of the mean of x x^T for least squares, whose Hessian is the same everywhere."""
    optimum = task.optimum if isinstance(task, BuiltInTask) else None
    return None if optimum is None else float(torch.linalg.eigvalsh(optimum.gram)[-1])


PROBES.declare(
    "curvature",
    Probe(
        about="How large are the largest curvature of the loss and the noise scale B_simple during training?",
        options={
            "fraction": FRACTION_DONE,
            "iterations": Option(200, integer(1, 10_000), "largest number of products with the Hessian"),
        },
        measure=measure,
        measure_own=measure,
    ),
)
