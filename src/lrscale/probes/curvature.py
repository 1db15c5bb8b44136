"""Measures along training the two numbers that limit an lr: the largest curvature of the loss, and the gradient noise scale."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lrscale.estimate.intervals import exponential, jackknife
from lrscale.probes import PROBES, Probe
from lrscale.probes.noise_scale import batch_gradients, batches_in_memory
from lrscale.rules import Rule, integer, is_number
from lrscale.spec import Option, Training
from lrscale.streams import generator
from lrscale.tasks.built_in import BuiltInTask
from lrscale.tasks.models import Parameters
from lrscale.training.engine import weights_after
from lrscale.training.minibatches import BLOCK_BYTES
from lrscale.training.quantity import Quantity
from lrscale.training.reduction import step_gradient_scale

Array = NDArray[np.float64]
"""An array of float64."""
Product = Callable[[Tensor], Tensor]
"""A function that multiplies the vector of each run by the symmetric matrix of that run, [run, weight] to [run, weight]."""
RESIDUAL = 1e-3
"""|H v - lam v|/lam at which a run's eigenvalue is taken. The error of lam is about its square: 1e-6, float32's own."""


class Noise(NamedTuple):
    """The gradients of all training examples at one point: |G|^2 of their mean, and tr(Sigma) of their covariance."""

    signal: float
    spread: float


def measure(training: Training, task: BuiltInTask) -> list[Quantity]:
    """Measures the largest curvature and the noise scale after a `fraction` of training, over the whole training data.

    - `lam_max`: the largest eigenvalue of the Hessian of the mean loss. It is the mean over seeds in the log.
    - `lr_lam_max`: lr under mean x `lam_max`, for SGD only. Gradient descent without momentum is stable below 2.
    - `b_simple`: tr(Sigma)/|G|^2, where G is the gradient of the mean loss and Sigma the covariance of the examples'
      gradients: what `noise_scale` estimates from batches that are drawn from the training data. Both are added up over
      seeds before they are divided.

    Intervals are over seeds. A quantity that is not finite in some seed is left out.

    Source:
      Cohen et al. 2021, arXiv 2103.00065 (2/lr as the edge of stability of networks); McCandlish et al. 2018,
      arXiv 1812.06162 (B_simple); `tests/probes/test_curvature.py`.
    """
    assert training.probe is not None
    options = training.probe.options
    weights = weights_after(training, task, round(options["fraction"] * training.steps))
    quantities = []
    lam_max = largest_curvatures(task, weights, training.seeds, options["iterations"])
    if np.isfinite(lam_max).all() and lam_max.min() > 0:
        quantities.append(_over_seeds("lam_max", np.log(lam_max), float, _expected_lam_max(task)))
        if training.optimizer.name == "sgd":
            mean_lr = float(training.optimizer.options["lr"][0]) * step_gradient_scale(training)
            quantities.append(_over_seeds("lr_lam_max", np.log(mean_lr * lam_max), float))
    noise = np.array([noise_of_data(task, [w[index] for w in weights]) for index in range(len(training.seeds))])
    if np.isfinite(noise).all() and noise.mean(0).min() > 0:
        quantities.append(_over_seeds("b_simple", noise, lambda mean: math.log(mean[1] / mean[0])))
    return quantities


def _over_seeds(name: str, parts: Array, log: Callable[[Array], float], expected: float | None = None) -> Quantity:
    """Returns the quantity whose log is a function of a mean over seeds, [seed, ...]; one seed gives no interval."""
    if len(parts) == 1:
        return Quantity(name, math.exp(log(parts[0])), expected=expected)
    return Quantity(name, *exponential(jackknife(log, parts)), expected)


def _expected_lam_max(task: BuiltInTask) -> float | None:
    """Returns the largest eigenvalue of the mean of x x^T for least squares, whose Hessian is the same everywhere."""
    return None if task.optimum is None else float(torch.linalg.eigvalsh(task.optimum.gram)[-1])


def largest_curvatures(task: BuiltInTask, weights: Parameters, seeds: tuple[int, ...], iterations: int) -> Array:
    """Returns the largest eigenvalue of the Hessian of the mean loss over the training data, [seed].

    It is nan for a run that is not finite, and where more iterations would be needed.

    Args:
      task: its model and its data.
      weights: the weights of each run, [seed, 1, *shape] each.
      seeds: the seeds, which draw the first vectors.
      iterations: the largest number of products with the Hessian.
    """
    runs = [w[:, 0] for w in weights]
    count = sum(w[0].numel() for w in runs)
    first = torch.stack([torch.randn(count, generator=generator("curvature", seed), dtype=torch.float64) for seed in seeds])
    return largest_eigenvalues(lambda vectors: hessian_products(task, runs, vectors), first, iterations)


def hessian_products(task: BuiltInTask, runs: Parameters, vectors: Tensor) -> Tensor:
    """Returns the product of each run's Hessian of the mean loss over the training data with a vector, [run, weight].

    The product is the gradient of (gradient x vector), so no Hessian is made. All runs take the same passes.

    Args:
      task: its model and its data.
      runs: the weights, [run, *shape] each.
      vectors: [run, weight], where `weight` goes through the parameters in their order.
    """
    data, dtype = task.data, task.data.x.dtype
    parts = [v.view(w.shape) for v, w in zip(vectors.to(dtype).split([w[0].numel() for w in runs], 1), runs, strict=True)]
    size = max(1, BLOCK_BYTES // (4 * len(vectors) * task.model.width * data.x.element_size()))
    products = torch.zeros_like(vectors)
    for x, y in zip(data.x.split(size), data.y.split(size), strict=True):
        leaves = [w.detach().clone().requires_grad_() for w in runs]
        loss = task.model.losses([leaf.unsqueeze(0) for leaf in leaves], x.unsqueeze(0), y.unsqueeze(0)).sum()
        gradients = torch.autograd.grad(loss, leaves, create_graph=True)
        along = torch.stack([(g * v).sum() for g, v in zip(gradients, parts, strict=True)]).sum()
        second = torch.autograd.grad(along, leaves, materialize_grads=True)
        products += torch.cat([g.flatten(1) for g in second], 1)
    return products / len(data.x)


def largest_eigenvalues(product: Product, first: Tensor, iterations: int) -> Array:
    """Returns the largest eigenvalue of each run's symmetric matrix, by Lanczos with full reorthogonalisation, [run].

    Lanczos makes an orthonormal basis of v, H v, H^2 v, ..., in which H is a tridiagonal matrix. A run is ready when the
    largest eigenvalue of this matrix has a residual of RESIDUAL, or when the basis holds all that H can reach from v.

    Args:
      product: multiplies the vector of each run by its matrix.
      first: the first vector of each run, [run, weight], float64.
      iterations: the largest number of products; a run that is not ready then is nan.

    Source:
      Golub and Van Loan, Matrix Computations, chapter 10.

    Example:
      >>> diagonals = torch.tensor([[5.0, 1.0, -9.0], [2.0, 2.0, 2.0]], dtype=torch.float64)
      >>> largest_eigenvalues(lambda v: diagonals * v, torch.ones(2, 3, dtype=torch.float64), 10).round(9).tolist()
      [5.0, 2.0]
    """
    runs = len(first)
    largest = np.full(runs, math.nan)
    basis: list[Tensor] = []
    diagonal: list[Tensor] = []
    beside: list[Tensor] = []
    vector = first / first.norm(dim=1, keepdim=True)
    for _ in range(min(iterations, first.shape[1])):
        basis.append(vector)
        after = product(vector)
        diagonal.append((after * vector).sum(1))
        for _ in range(2):  # once leaves rounding errors, and twice is enough
            for known in basis:
                after = after - (after * known).sum(1, keepdim=True) * known
        length = after.norm(dim=1)
        values, residuals = _ritz(diagonal, beside, length)
        is_full = len(basis) == first.shape[1]
        is_ready = np.isnan(largest) & ((residuals <= RESIDUAL * np.abs(values)) | is_full)
        largest[is_ready] = values[is_ready]
        if not (np.isnan(largest) & np.isfinite(values)).any():
            break
        beside.append(length)
        vector = after / length.clamp(min=torch.finfo(torch.float64).tiny).unsqueeze(1)
    return largest


def _ritz(diagonal: list[Tensor], beside: list[Tensor], length: Tensor) -> tuple[Array, Array]:
    """Returns the largest eigenvalue of the tridiagonal matrices, and its residual, [run] each; nan where not finite."""
    size = len(diagonal)
    matrices = torch.diag_embed(torch.stack(diagonal, 1))
    if beside:
        above = torch.diag_embed(torch.stack(beside, 1), 1)
        matrices = matrices + above + above.mT
    is_finite = matrices.isfinite().flatten(1).all(1) & length.isfinite()
    values, vectors = torch.linalg.eigh(torch.where(is_finite.view(-1, 1, 1), matrices, 0.0))
    residuals = (length * vectors[:, size - 1, -1]).abs()
    pair = (torch.where(is_finite, tensor, math.nan).numpy() for tensor in (values[:, -1], residuals))
    largest, residual = pair
    return largest, residual


def noise_of_data(task: BuiltInTask, weights: Parameters) -> Noise:
    """Returns the noise of the gradients of all training examples at the weights of one run.

    Args:
      task: its model and its data.
      weights: the weights of one run, [1, *shape] each.
    """
    x, y = task.data.x.unsqueeze(1), task.data.y.unsqueeze(1)  # a batch for each example
    batches = batches_in_memory(task, weights, 1)
    squares = sum(
        float(gradient.double().square().sum())
        for features, targets in zip(x.split(batches), y.split(batches), strict=True)
        for gradient in batch_gradients(task, weights, features, targets)
    )
    whole = batch_gradients(task, weights, task.data.x.unsqueeze(0), task.data.y.unsqueeze(0))
    signal = sum(float(gradient.double().square().sum()) for gradient in whole)
    return Noise(signal, squares / len(x) - signal)


PROBES.declare(
    "curvature",
    Probe(
        about="How large are the largest curvature of the loss and the noise scale B_simple during training?",
        options={
            "fraction": Option(
                0.0,
                Rule("must be from 0 to 1", lambda v: is_number(v) and 0 <= v <= 1),
                "fraction of training after which the probe measures",
            ),
            "iterations": Option(200, integer(1, 10_000), "largest number of products with the Hessian"),
        },
        measure=measure,
    ),
)
