"""The theory of SGD on least squares: edges of stability, the expected loss, and the lr at which the loss is least.

The features are Gaussian; their covariance is diagonal with the eigenvalues lam_i. No example is used twice. The loss is
1/2 (w.x + b - y)^2 under mean reduction, and eta is the learning rate. The second moments m_i = E e_i^2 are those of the
error e = w - w* along the axes of the covariance. If there is a bias, its moment is the last one and has lam = 1. How a step
moves the moments, with and without momentum, stands in `lrscale.law.moments`.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize_scalar

from lrscale.law.moments import NO_MOMENTUM, Momentum, eigenvalues, moment_map, momentum_map

Array = NDArray[np.float64]
TINY = 1e-300
"""Replaces an error of exactly 0, because 0 has no logarithm."""


def fourth_moment(features: int) -> float:
    """Returns kappa, the top eigenvalue of the fourth-moment map, for d isotropic features and a bias.

        kappa = ((d + 3) + sqrt((d + 3)^2 - 8)) / 2

    Example:
      >>> round(fourth_moment(2), 5)
      4.56155
    """
    return (features + 3 + math.sqrt((features + 3) ** 2 - 8)) / 2


def stability_edge(batch_size: int, kappa: float) -> float:
    """Returns the largest mean-reduction lr at which SGD on isotropic least squares stays bounded in mean square.

        eta_max = 2 B / (B - 1 + kappa)

    At this lr the mean over runs starts to grow. A single run is stable up to a somewhat larger lr (see
    `almost_sure_edge`).

    Args:
      batch_size: examples per step, B; >= 1.
      kappa: `fourth_moment(d)` with a bias, d + 2 without.

    Returns:
      A learning rate under mean reduction; divide by B for sum.

    Source:
      Second-moment recursion; pinned by `test_the_edge_is_where_the_map_stops_contracting`.

    Example:
      >>> round(stability_edge(1, kappa=4.56155), 4)
      0.4384
    """
    return 2 * batch_size / (batch_size - 1 + kappa)


def mean_square_edge(spectrum: Array, bias: bool, batch_size: int, momentum: Momentum = NO_MOMENTUM) -> float:
    """Returns the mean-reduction lr at which the mean square of the error stops shrinking, for any covariance.

    There the largest eigenvalue of the map of the second moments reaches 1. For equal eigenvalues `heavy_ball_edge` is the
    closed form with momentum, and `stability_edge` that without.

    Args:
      spectrum: eigenvalues of the features' covariance, [feature].
      bias: whether a bias is trained.
      batch_size: examples per step, B.
      momentum: the momentum of SGD.
    """

    def growth(lr: float) -> float:
        one_step = _map(spectrum, bias, batch_size, lr, momentum)[0]
        return float(np.abs(np.linalg.eigvals(one_step)).max()) - 1

    high = 2 * (1 + momentum.beta) / max(float(np.max(spectrum)), 1.0 if bias else 0.0)
    return float(brentq(growth, high * 1e-6, high * 1.001)) if growth(high * 1e-6) < 0 else 0.0


def _map(spectrum: Array, bias: bool, batch_size: int, lr: float, momentum: Momentum) -> tuple[Array, Array, NDArray[np.intp]]:
    """Returns one step as a map of the moments, and the group of each weight; without momentum each has its own."""
    if momentum.beta:
        return momentum_map(spectrum, bias, batch_size, lr, momentum)
    a, v = moment_map(spectrum, bias, batch_size, lr)
    return a, v, np.arange(len(v))


def expected_excess(
    spectrum: Array,
    bias: bool,
    batch_size: int,
    lr: float,
    steps: int,
    start: Array,
    noise: float,
    momentum: Momentum = NO_MOMENTUM,
) -> float:
    """Returns the expected excess risk, 1/2 sum_i lam_i m_i, after a number of steps.

    Args:
      spectrum: eigenvalues of the features' covariance, [feature].
      bias: whether a bias is trained.
      batch_size: examples per step, B.
      lr: eta under mean reduction.
      steps: number of updates.
      start: the second moments m at the start, [moment].
      noise: standard deviation sigma of the targets' noise.
      momentum: the momentum of SGD.

    Returns:
      The excess risk; inf where it overflows.
    """
    a, v, group = _map(spectrum, bias, batch_size, lr, momentum)
    lam, begin = _ends(spectrum, bias, group, start, len(v))
    with np.errstate(all="ignore"):
        moments = np.linalg.matrix_power(_affine(a, v, noise), steps) @ begin
        value = float(lam @ moments[: len(lam)] / 2)  # the later moments, of the velocity, are no part of the risk
    return value if math.isfinite(value) else math.inf


def _affine(a: Array, v: Array, noise: float) -> Array:
    """Returns one step as a matrix, which maps the moments and a 1, [moment + 1, moment + 1]."""
    affine = np.eye(len(v) + 1)
    affine[:-1, :-1], affine[:-1, -1] = a, noise**2 * v
    return affine


def _ends(spectrum: Array, bias: bool, group: NDArray[np.intp], start: Array, count: int) -> tuple[Array, Array]:
    """Returns the eigenvalue of each group of weights, [group], and the moments at the start with a 1, [count + 1]."""
    lam = np.zeros(int(group.max()) + 1)
    lam[group] = eigenvalues(spectrum, bias)
    return lam, np.append(np.bincount(group, start, minlength=count), 1.0)


def best_lr_after_steps(
    spectrum: Array, bias: bool, batch_size: int, steps: int, start: Array, noise: float, momentum: Momentum = NO_MOMENTUM
) -> float:
    """Returns the mean-reduction lr with the least expected excess risk after a number of steps; divide it by B for sum.

    The arguments are those of `expected_excess`. With momentum and few steps the risk has several minima in lr, since its
    parts swing; this is the lowest of them.

    Source:
      Minimum of the exact recursion of the second moments. For isotropic features `best_lr_after_epochs` is its closed
      form.

    Example:
      >>> beta = Momentum(0.9)
      >>> lrs = [best_lr_after_steps(np.ones(8), False, b, 2048 // b, np.ones(8), 1.0, beta) / b for b in (1, 16, 64)]
      >>> [round(1000 * lr, 4) for lr in lrs]  # under sum: level, then falling
      [0.2185, 0.1735, 0.1108]
    """
    edge = mean_square_edge(spectrum, bias, batch_size, momentum)

    def loss(log_lr: float) -> float:
        excess = expected_excess(spectrum, bias, batch_size, math.exp(log_lr), steps, start, noise, momentum)
        return math.log(max(excess, TINY))

    grid = np.log(edge) + np.linspace(math.log(1e-6), 0, 200)
    excesses = _excesses(np.exp(grid), spectrum, bias, batch_size, steps, start, noise, momentum)
    best = int(np.argmin(np.maximum(excesses, TINY)))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    return float(math.exp(minimize_scalar(loss, bounds=(low, high), method="bounded").x))


def _excesses(
    lrs: Array, spectrum: Array, bias: bool, batch_size: int, steps: int, start: Array, noise: float, momentum: Momentum
) -> Array:
    """Returns `expected_excess` of many lrs at once, [lr], up to rounding: a step's map is a polynomial of degree 2 in the lr."""
    maps = [_map(spectrum, bias, batch_size, lr, momentum) for lr in (-1.0, 0.0, 1.0)]
    down, none, up = (_affine(a, v, noise) for a, v, _ in maps)
    lam, begin = _ends(spectrum, bias, maps[0][2], start, len(maps[0][1]))
    lr = lrs[:, None, None]
    with np.errstate(all="ignore"):
        power = np.linalg.matrix_power(none + lr * (up - down) / 2 + lr**2 * ((up + down) / 2 - none), steps)
        values = (power @ begin)[:, : len(lam)] @ lam / 2
    return np.where(np.isfinite(values), values, math.inf)


def fastest_lr(spectrum: Array, bias: bool, batch_size: int) -> float:
    """Returns the mean-reduction lr at which the second moments contract fastest.

    It is the best lr for reaching a target far above the noise. For isotropic features it is half the edge of stability:
    B / (B - 1 + kappa).
    """
    edge = mean_square_edge(spectrum, bias, batch_size)

    def rate(log_lr: float) -> float:
        return float(np.abs(np.linalg.eigvals(moment_map(spectrum, bias, batch_size, math.exp(log_lr))[0])).max())

    ends = (math.log(edge) - 7, math.log(edge))
    return float(math.exp(minimize_scalar(rate, bounds=ends, method="bounded", options={"xatol": 1e-6}).x))


def steps_to(target: float, spectrum: Array, bias: bool, batch_size: int, lr: float, start: Array) -> float:
    """Returns the number of steps after which the expected excess risk is at a target, without noise.

    The number can have a fraction: the logarithm of the risk is interpolated linearly between two steps. It is inf
    where the risk does not shrink. The other arguments are those of `expected_excess`.
    """
    a, _ = moment_map(spectrum, bias, batch_size, lr)
    lam = eigenvalues(spectrum, bias)
    moments, before, step = np.asarray(start, dtype=float), math.inf, 0
    while (risk := float(lam @ moments / 2)) > target:
        if step > 100 and risk >= before:
            return math.inf
        moments, before, step = a @ moments, risk, step + 1
    return step - math.log(target / risk) / math.log(before / risk) if step else 0.0


def soonest_lr(target: float, spectrum: Array, bias: bool, batch_size: int, start: Array) -> float:
    """Returns the mean-reduction lr with which the expected excess risk needs the fewest steps to a target, without noise.

    It is `fastest_lr` where all eigenvalues are equal and the target is low. Where eigenvalues differ it is larger:
    the slowest direction decides the risk at the end of training, but it can be a small part of the risk at the target.
    The other arguments are those of `expected_excess`.

    Source:
      Minimum of the exact recursion; pinned by `test_the_soonest_lr_is_the_fastest_for_one_eigenvalue`.
    """
    edge = mean_square_edge(spectrum, bias, batch_size)

    def steps(log_lr: float) -> float:
        return min(steps_to(target, spectrum, bias, batch_size, math.exp(log_lr), start), 1e9)

    ends = (math.log(edge) - 2, math.log(edge) - 1e-3)
    return float(math.exp(minimize_scalar(steps, bounds=ends, method="bounded", options={"xatol": 1e-4}).x))


def best_lr_after_epochs(batch_size: int, epochs: int, examples: int, features: int, start_loss: float, noise: float) -> float:
    """Returns the sum-reduction lr with the least excess risk after a fixed number of epochs.

        lr_sum* = (1 - exp(-s* B)) / B,   s* = ln(2 E N L0 / f) / (2 E N),   f = sigma^2 (d + 1) / 4

    This is an approximation for isotropic features, a bias and B << N. It is level far below B ~ 1/s*, and falls as 1/B
    beyond.

    Args:
      batch_size: examples per step, B.
      epochs: passes over the data, E.
      examples: training examples, N.
      features: number of features d, without the bias.
      start_loss: excess risk at the start, L0.
      noise: standard deviation sigma of the targets' noise; > 0.

    Returns:
      A learning rate under sum reduction; multiply it by B for mean.

    Example:
      >>> round(best_lr_after_epochs(1, 3, 1000, 2, 16.6, 0.01), 5)
      0.0035
    """
    floor = noise**2 * (features + 1) / 4
    rate = math.log(2 * epochs * examples * start_loss / floor) / (2 * epochs * examples)
    return (1 - math.exp(-rate * batch_size)) / batch_size


class NoiseScales(NamedTuple):
    """The limits that curvature and noise set to a single step.

    `lr_max` is the best lr of a single full-batch step. `b_noise` is the batch size at which the best lr of a step is
    half of it. `b_simple` is the same without curvature; gradients alone are enough to measure it (see
    `lrscale.estimate.fits.noise_scale`).
    """

    lr_max: float
    b_noise: float
    b_simple: float

    def greedy_lr(self, batch_size: int) -> float:
        """Returns the mean-reduction lr that lowers the expected loss most in one step: lr_max / (1 + B_noise/B)."""
        return self.lr_max / (1 + self.b_noise / batch_size)


def noise_scales(spectrum: Array, bias: bool, error: Array, noise: float) -> NoiseScales:
    """Returns the noise scales of least squares at one point.

        lr_max = |G|^2 / G'HG,   B_noise = tr(H Sigma) / G'HG,   B_simple = tr(Sigma) / |G|^2

    G is the gradient of the expected loss, H its Hessian, and Sigma the covariance of one example's gradient. All three
    describe one step. The best lr of a whole training differs (see `best_lr_after_steps`).

    Args:
      spectrum: eigenvalues of the features' covariance, [feature].
      bias: whether a bias is trained.
      error: w - w* along the axes of the covariance, [moment]; the bias is last; at least one value is not 0.
      noise: standard deviation sigma of the targets' noise.

    Source:
      McCandlish et al. 2018, arXiv 1812.06162, section 2.2; Gaussian fourth moments for Sigma.

    Example:
      >>> scales = noise_scales(np.ones(2), True, np.array([2, -3.4, 4.2]), 0.01)
      >>> round(scales.b_simple, 2), round(scales.greedy_lr(1), 3), round(scales.greedy_lr(1000), 3)
      (2.94, 0.254, 0.997)
    """
    lam = eigenvalues(spectrum, bias)
    sign = np.ones(len(lam))
    if bias:
        sign[-1] = -1
    gradient = lam * error
    variance = lam * (float(lam @ error**2) + noise**2) + sign * gradient**2
    curvature = float(lam @ gradient**2)
    square = float(gradient @ gradient)
    return NoiseScales(square / curvature, float(lam @ variance) / curvature, float(variance.sum()) / square)


def sign_step_lr(batch_size: int, features: int, noise: float) -> float:
    """Returns the best lr of Adam's first step where every weight is off by 1, on isotropic features without a bias.

        lr* = erf( sqrt(B/2) / sqrt(sigma^2 + d + 1) )

    Adam's first step is lr x sign(g). One coordinate of g has mean e_i = +-1 and variance (sigma^2 + d + 1)/B, so its sign is
    right with probability (1 + lr*)/2. Where noise dominates, lr* grows as sqrt(B): the square root rule. It is the same
    under sum and mean.

    Args:
      batch_size: examples per step, B.
      features: number of features, d.
      noise: standard deviation sigma of the targets' noise.

    Returns:
      A learning rate, from 0 to below 1: how far each weight moves, in units of its distance from the optimum.

    Source:
      The gradient of a batch is taken as Gaussian: within 2 % from B = 16 on. A single example's is a product of Gaussians, and
      lr* is (2/pi) asin(1/sqrt(sigma^2 + d)): where noise dominates, a fifth less. Pinned by
      `test_the_best_sign_step_is_that_of_draws`. Malladi et al. 2022, arXiv 2205.10287, derive the rule.

    Example:
      >>> [round(sign_step_lr(b, 32, 30.0), 4) for b in (1, 4, 16, 64, 256, 1024)]
      [0.0261, 0.0522, 0.1042, 0.2066, 0.3996, 0.7052]
    """
    return math.erf(math.sqrt(batch_size / 2) / math.sqrt(noise**2 + features + 1))
