"""Edges of stability with momentum and of single runs (almost sure), and the best lr under interpolation.

The features, the loss and the learning rate are those of `lrscale.law.least_squares`.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from lrscale.law.least_squares import TINY, mean_square_edge

Array = NDArray[np.float64]


def momentum_edge(largest: float, momentum: float) -> float:
    """Returns the largest stable lr of full-batch SGD with momentum on a quadratic.

        eta_max = 2 (1 + beta) / lam_max

    The momentum is not Nesterov's, and there is no dampening.

    Args:
      largest: the largest eigenvalue of the Hessian, lam_max.
      momentum: beta, from 0 to below 1.

    Source:
      At this lr a root of z^2 - (1 + beta - eta lam) z + beta reaches -1; pinned by
      `test_momentum_is_stable_up_to_its_edge` on torch.optim.SGD.

    Example:
      >>> momentum_edge(1.0, 0.9)
      3.8
    """
    return 2 * (1 + momentum) / largest


def heavy_ball_edge(batch_size: int, beta: float, kappa: float) -> float:
    """Returns the mean-reduction lr at which SGD with momentum on isotropic least squares stops shrinking in mean square.

        eta_max = 2 (1 - beta^2) B / ((1 - beta) B + (1 + beta) (kappa - 1))

    Under sum this is eta / (B + B_c): level, then falling as 1/B, with the half-value point of `heavy_ball_turn_over`. For
    beta = 0 it is `stability_edge`; for large B it is `momentum_edge`. The momentum is not Nesterov's, for which
    `mean_square_edge` has no closed form.

    Args:
      batch_size: examples per step, B; >= 1.
      beta: the momentum, from 0 to below 1.
      kappa: `fourth_moment(d)` with a bias, d + 2 without.

    Returns:
      A learning rate under mean reduction; divide it by B for sum.

    Source:
      At the edge the moments of `momentum_map` are stationary. With E g^2 = K m, K = 1 + (kappa - 1)/B, they give in turn
      E e v = -m/(1 + beta), E v^2 = 2 m/(eta (1 + beta)) and 2 (1 - beta)/eta = K - 2 beta/(1 + beta). Pinned by
      `test_the_edge_with_momentum_is_where_the_map_stops_contracting`.

    Example:
      >>> [round(heavy_ball_edge(b, 0.5, kappa=4.56155), 4) for b in (1, 4, 16, 64)]
      [0.2567, 0.8172, 1.7988, 2.5708]
      >>> [round(heavy_ball_edge(b, 0.9, kappa=10), 4) for b in (1, 4, 16, 64, 256)]
      [0.0221, 0.0869, 0.3251, 1.0349, 2.2782]
    """
    return 2 * (1 - beta**2) * batch_size / ((1 - beta) * batch_size + (1 + beta) * (kappa - 1))


def heavy_ball_turn_over(beta: float, kappa: float) -> float:
    """Returns B_c, the batch size at which the edge of SGD with momentum under sum is half of its small-batch value.

        B_c = (1 + beta)/(1 - beta) (kappa - 1)

    So heavy-ball momentum moves this turn-over to larger batches: 19 times as large for beta = 0.9. On least squares the best
    lr after few epochs turns over earlier with momentum, not later (study `momentum`). That of the two networks of
    `turn_over_momentum` turns over at 11 and 16 times the B_c of plain SGD in `turn_over`.

    Args:
      beta: the momentum, from 0 to below 1; not Nesterov's.
      kappa: `fourth_moment(d)` with a bias, d + 2 without.

    Returns:
      A batch size, in examples; it may be a fraction.

    Source:
      `heavy_ball_edge`, which is half of its limit for small B, in units of sum, at this B. Pinned by
      `test_the_edge_with_momentum_is_where_the_map_stops_contracting` and measured by the study `momentum_edge`.

    Example:
      >>> round(heavy_ball_turn_over(0.9, kappa=10) / heavy_ball_turn_over(0.0, kappa=10), 6)
      19.0
      >>> b_c = heavy_ball_turn_over(0.5, kappa=5)  # 3 x 4 examples
      >>> round(heavy_ball_edge(round(b_c), 0.5, kappa=5) / b_c / (2 * 1.5 / b_c), 6)  # under sum, over 2 (1 + beta)/B_c
      0.5
    """
    return (1 + beta) / (1 - beta) * (kappa - 1)


def critical_batch(beta: float, largest: float, smallest: float) -> float:
    """Returns the batch size m* up to which the best lr under interpolation grows about in proportion to the batch size.

        m* = beta / (lam_1 - lam_k) + 1

    It is inf where lam_1 = lam_k. The arguments are those of `interpolation_lr`.
    """
    return beta / (largest - smallest) + 1 if largest > smallest else math.inf


def interpolation_lr(batch_size: int, beta: float, largest: float, smallest: float) -> float:
    """Returns the mean-reduction lr with the fastest guaranteed contraction where the model can fit every example.

        eta*(m) = m / (beta + (m - 1) lam_k)                up to m*
                  2 m / (beta + (m - 1) (lam_1 + lam_k))    beyond

    The larger value of 1 - 2 eta lam + (eta^2/m) lam (beta + (m - 1) lam) at lam_1 and at lam_k bounds the contraction
    of E|e|^2. This lr minimises that bound. The contraction reaches the bound where all examples have the same norm.

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
    """Returns the mean growth of log |error| per step, over the second half of the steps, for noise-free isotropic SGD.

    By symmetry only r = |e_x|, the norm of the weights' error, and c, the bias's error, matter. Let u_i be the features
    of example i along e_x, P = sum u_i and Q = sum u_i^2 over the batch, and K = chi^2 with d - 1 degrees of freedom:

        r'^2 = (r - eta/B (r Q + c P))^2 + (eta/B)^2 (r^2 Q + 2 r c P + c^2 B) K,   c' = c - eta/B (r P + c B)

    Args:
      features: number of features, d.
      bias: whether a bias is trained; without a bias, c = 0.
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
    """Returns the mean-reduction lr at which the error of a single run stops shrinking: E log|growth| = 0.

    The runs are SGD on isotropic least squares without noise, and the edge is measured by simulation. It is never below
    `mean_square_edge`, the edge of the mean over runs: between the edges, rare runs that grow much dominate the
    mean, and the typical run still shrinks. The difference between the two edges vanishes as B grows.

    Args:
      features: number of features, d.
      bias: whether a bias is trained.
      batch_size: examples per step, B.
      generator: source of the random draws; equal generators give equal results.
      chains: number of simulated runs.
      steps: number of steps of each run; the first half of them is left out of the mean.

    Returns:
      A learning rate under mean reduction; divide it by B for sum. Its standard error is below 1 % with the default
      chains and steps.

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
    """Returns chi-square draws with `freedom` degrees of freedom; they are 0 for 0 degrees."""
    return generator.chisquare(freedom, shape) if freedom else np.zeros(shape)
