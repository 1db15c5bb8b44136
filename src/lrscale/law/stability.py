"""More edges of stability: of momentum, of single runs (almost sure), and of interpolation.

Features, loss and learning rate are those of `lrscale.law.least_squares`.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from lrscale.law.least_squares import TINY, mean_square_edge

Array = NDArray[np.float64]


def momentum_edge(largest: float, momentum: float) -> float:
    """Largest stable lr of full-batch SGD with momentum (not Nesterov's, no dampening) on a quadratic.

        eta_max = 2 (1 + beta) / lam_max

    Args:
      largest: the largest eigenvalue of the Hessian, lam_max.
      momentum: beta, from 0 to below 1.

    Source:
      Where a root of z^2 - (1 + beta - eta lam) z + beta reaches -1; pinned by
      `test_momentum_is_stable_up_to_its_edge` on torch.optim.SGD.

    Example:
      >>> momentum_edge(1.0, 0.9)
      3.8
    """
    return 2 * (1 + momentum) / largest


def critical_batch(beta: float, largest: float, smallest: float) -> float:
    """Batch size m* beyond which the best lr under interpolation no longer grows in proportion.

        m* = beta / (lam_1 - lam_k) + 1

    Args: as in `interpolation_lr`.
    """
    return beta / (largest - smallest) + 1 if largest > smallest else math.inf


def interpolation_lr(batch_size: int, beta: float, largest: float, smallest: float) -> float:
    """Mean-reduction lr with the fastest guaranteed contraction where the model fits every example.

        eta*(m) = m / (beta + (m - 1) lam_k)                up to m*
                  2 m / (beta + (m - 1) (lam_1 + lam_k))    beyond

    It minimises the larger of 1 - 2 eta lam + (eta^2/m) lam (beta + (m - 1) lam) at lam_1 and lam_k, which bounds the
    contraction of E|e|^2 and is reached where all examples have the same norm.

    Args:
      batch_size: examples per step, m.
      beta: largest squared norm of an example's features.
      largest: lam_1, the largest eigenvalue of the Hessian.
      smallest: lam_k, its smallest eigenvalue above 0.

    Returns:
      A learning rate under mean reduction; divide by m for sum.

    Source:
      Ma, Bassily and Belkin 2018, arXiv 1712.06559; pinned by
      `test_the_lr_under_interpolation_contracts_fastest`.

    Example:
      >>> [round(interpolation_lr(m, beta=1.0, largest=0.6, smallest=0.1), 3) for m in (1, 3, 1000)]
      [1.0, 2.5, 2.856]
    """
    if batch_size <= critical_batch(beta, largest, smallest):
        return batch_size / (beta + (batch_size - 1) * smallest)
    return 2 * batch_size / (beta + (batch_size - 1) * (largest + smallest))


def log_growth(features: int, bias: bool, batch_size: int, lr: float, draws: tuple[Array, Array, Array]) -> float:
    """Mean growth of log |error| a step, of noise-free SGD on isotropic features, over the second half of all steps.

    By symmetry only r = |e_x| and the bias's error c matter. With P = sum u_i and Q = sum u_i^2 over the batch,
    u_i the features along e_x, and K = chi^2 with d - 1 degrees of freedom:

        r'^2 = (r - eta/B (r Q + c P))^2 + (eta/B)^2 (r^2 Q + 2 r c P + c^2 B) K,   c' = c - eta/B (r P + c B)

    Args:
      features: d.
      bias: whether a bias is trained; without one, c = 0.
      batch_size: examples per step, B.
      lr: eta under mean reduction.
      draws: P, Q and K, each [step, chain].
    """
    rate = lr / batch_size
    r, c = np.ones(draws[0].shape[1]), np.full(draws[0].shape[1], float(bias))
    logs = []
    for p, q, k in zip(*draws, strict=True):
        along = r - rate * (r * q + c * p)
        across = rate**2 * np.maximum(r**2 * q + 2 * r * c * p + c**2 * batch_size, 0) * k
        c = c - rate * (r * p + c * batch_size) if bias else c
        r = np.sqrt(along**2 + across)
        size = np.maximum(np.hypot(r, c), TINY)
        r, c = r / size, c / size
        logs.append(np.log(size).mean())
    return float(np.mean(logs[len(logs) // 2 :]))


def almost_sure_edge(
    features: int, bias: bool, batch_size: int, generator: np.random.Generator, chains: int = 2000, steps: int = 200
) -> float:
    """Mean-reduction lr at which single runs of SGD on isotropic least squares stop shrinking: E log|growth| = 0.

    Found by simulation. Never below `mean_square_edge`, which the mean over runs obeys: rare runs that grow much
    carry the mean, and not the typical run. The two meet as B grows.

    Args:
      features: d.
      bias: whether a bias is trained.
      batch_size: examples per step, B.
      generator: of the draws; equal generators give equal results.
      chains: runs side by side.
      steps: steps of each, the first half of which is left out.

    Returns:
      A learning rate under mean reduction, divide by B for sum; its standard error is below 1 %
      with the default chains and steps.

    Source:
      Furstenberg and Kesten 1960 for the exponent; pinned by `test_the_almost_sure_edge_of_one_feature_is_an_integral`
      and `test_long_runs_part_at_the_almost_sure_edge`.

    Example:
      >>> edge = almost_sure_edge(2, False, 1, np.random.default_rng(0))
      >>> bool(1.8 < edge / mean_square_edge(np.ones(2), False, 1) < 1.95)
      True
    """
    shape = (steps, chains)
    p = generator.normal(size=shape) * math.sqrt(batch_size)
    q = p**2 / batch_size + _chi_square(generator, batch_size - 1, shape)
    draws = (p, q, _chi_square(generator, features - 1, shape))
    low = high = mean_square_edge(np.ones(features), bias, batch_size)
    while log_growth(features, bias, batch_size, high, draws) <= 0:
        low, high = high, 1.2 * high
    while log_growth(features, bias, batch_size, low, draws) > 0:
        low *= 0.95
    return float(brentq(lambda lr: log_growth(features, bias, batch_size, lr, draws), low, high, xtol=1e-6 * high))


def _chi_square(generator: np.random.Generator, freedom: int, shape: tuple[int, int]) -> Array:
    return generator.chisquare(freedom, shape) if freedom else np.zeros(shape)
