"""The theory of SGD on least squares: edges of stability, the expected loss, and the lr at which it is least.

Features are Gaussian with a diagonal covariance, lam_i its eigenvalues, samples are fresh, and
the loss is 1/2 (w.x + b - y)^2 under mean reduction at learning rate eta. Moments m_i = E e_i^2 are those of
the error e = w - w*, in the covariance's axes; with a bias its moment comes last and counts as lam = 1.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize_scalar

Array = NDArray[np.float64]
TINY = 1e-300
"""Stands for an error of exactly 0, which has no logarithm."""


def fourth_moment(features: int) -> float:
    """Top eigenvalue kappa of the fourth-moment map for `features` isotropic features and a bias.

        kappa = ((d + 3) + sqrt((d + 3)^2 - 8)) / 2

    Example:
      >>> round(fourth_moment(2), 5)
      4.56155
    """
    return (features + 3 + math.sqrt((features + 3) ** 2 - 8)) / 2


def stability_edge(batch_size: int, kappa: float) -> float:
    """Largest mean-reduction lr at which SGD on isotropic least squares stays bounded in mean square.

        eta_max = 2 B / (B - 1 + kappa)

    Single runs survive somewhat larger lrs: this is where the mean over runs starts to grow.

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


def moment_map(spectrum: Array, bias: bool, batch_size: int, lr: float) -> tuple[Array, Array]:
    """One step of SGD on the second moments: m' = A m + sigma^2 v.

        m_i' = (1 - 2 eta lam_i + eta^2 lam_i^2 (1 + 1/B)) m_i + (eta^2/B) lam_i sum_j lam_j m_j + eta^2 sigma^2 lam_i/B

    where a bias counts as lam = 1 with no excess kurtosis: its own term is 1 - 1/B instead of 1 + 1/B.

    Args:
      spectrum: eigenvalues of the features' covariance, [feature].
      bias: whether a bias is trained; its moment comes last.
      batch_size: examples per step, B.
      lr: eta under mean reduction.

    Returns:
      A, [moment, moment], and v, [moment].

    Source:
      Gaussian fourth moments; pinned by `test_the_map_is_one_step_of_sgd`.
    """
    lam = np.append(spectrum, 1.0) if bias else np.asarray(spectrum, dtype=float)
    own = np.full(len(lam), 1 + 1 / batch_size)
    if bias:
        own[-1] = 1 - 1 / batch_size
    a = np.diag(1 - 2 * lr * lam + lr**2 * lam**2 * own) + lr**2 / batch_size * np.outer(lam, lam)
    return a, lr**2 * lam / batch_size


def mean_square_edge(spectrum: Array, bias: bool, batch_size: int) -> float:
    """Mean-reduction lr at which the largest eigenvalue of `moment_map` reaches 1, for any covariance."""

    def growth(lr: float) -> float:
        return float(np.abs(np.linalg.eigvals(moment_map(spectrum, bias, batch_size, lr)[0])).max()) - 1

    high = 2 / max(float(np.max(spectrum)), 1.0 if bias else 0.0)
    return float(brentq(growth, high * 1e-6, high * 1.001)) if growth(high * 1e-6) < 0 else 0.0


def expected_excess(spectrum: Array, bias: bool, batch_size: int, lr: float, steps: int, start: Array, noise: float) -> float:
    """Expected excess risk 1/2 sum_i lam_i m_i after some steps.

    Args:
      spectrum: eigenvalues of the features' covariance, [feature].
      bias: whether a bias is trained.
      batch_size: examples per step, B.
      lr: eta under mean reduction.
      steps: number of updates.
      start: the moments m at the start, [moment].
      noise: standard deviation sigma of the targets' noise.

    Returns:
      Excess risk; inf where it overflows.
    """
    a, v = moment_map(spectrum, bias, batch_size, lr)
    affine = np.eye(len(v) + 1)
    affine[:-1, :-1], affine[:-1, -1] = a, noise**2 * v
    lam = np.append(spectrum, 1.0) if bias else spectrum
    with np.errstate(all="ignore"):
        moments = (np.linalg.matrix_power(affine, steps) @ np.append(start, 1.0))[:-1]
        value = float(lam @ moments / 2)
    return value if math.isfinite(value) else math.inf


def best_lr_after_steps(spectrum: Array, bias: bool, batch_size: int, steps: int, start: Array, noise: float) -> float:
    """Mean-reduction lr with the least expected excess risk after some steps; divide by B for sum.

    Args: as in `expected_excess`.

    Source:
      Minimises the exact recursion; its closed form for isotropic features is `best_lr_after_epochs`.
    """
    edge = mean_square_edge(spectrum, bias, batch_size)

    def loss(log_lr: float) -> float:
        return math.log(max(expected_excess(spectrum, bias, batch_size, math.exp(log_lr), steps, start, noise), 1e-300))

    grid = np.log(edge) + np.linspace(math.log(1e-6), 0, 200)
    values = [min(loss(point), 1e3) for point in grid]
    best = int(np.argmin(values))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    return float(math.exp(minimize_scalar(loss, bounds=(low, high), method="bounded").x))


def fastest_lr(spectrum: Array, bias: bool, batch_size: int) -> float:
    """Mean-reduction lr at which the moments contract fastest: the best one for reaching a target far above the noise.

    Half the edge for isotropic features: B / (B - 1 + kappa).
    """
    edge = mean_square_edge(spectrum, bias, batch_size)

    def rate(log_lr: float) -> float:
        return float(np.abs(np.linalg.eigvals(moment_map(spectrum, bias, batch_size, math.exp(log_lr))[0])).max())

    found = minimize_scalar(rate, bounds=(math.log(edge) - 7, math.log(edge)), method="bounded", options={"xatol": 1e-6})
    return float(math.exp(found.x))


def steps_to(target: float, spectrum: Array, bias: bool, batch_size: int, lr: float, start: Array) -> float:
    """Steps in which the expected excess risk falls to a target, without noise; inf where it does not shrink.

    Returns fractions of steps: the logarithm of the risk is interpolated linearly between two steps.

    Args: as in `expected_excess`.
    """
    a, _ = moment_map(spectrum, bias, batch_size, lr)
    lam = np.append(spectrum, 1.0) if bias else spectrum
    moments, before, step = np.asarray(start, dtype=float), math.inf, 0
    while (risk := float(lam @ moments / 2)) > target:
        if step > 100 and risk >= before:
            return math.inf
        moments, before, step = a @ moments, risk, step + 1
    return step - math.log(target / risk) / math.log(before / risk) if step else 0.0


def soonest_lr(target: float, spectrum: Array, bias: bool, batch_size: int, start: Array) -> float:
    """Mean-reduction lr with which the expected excess risk is first at a target, without noise.

    Where all eigenvalues are equal and the target is low it is `fastest_lr`. With a spectrum it is larger, as the
    slowest direction, which decides in the end, may count little at the target.

    Args: as in `expected_excess`.

    Source:
      Minimises the exact recursion; pinned by `test_the_soonest_lr_is_the_fastest_for_one_eigenvalue`.
    """
    edge = mean_square_edge(spectrum, bias, batch_size)

    def steps(log_lr: float) -> float:
        return min(steps_to(target, spectrum, bias, batch_size, math.exp(log_lr), start), 1e9)

    ends = (math.log(edge) - 2, math.log(edge) - 1e-3)
    return float(math.exp(minimize_scalar(steps, bounds=ends, method="bounded", options={"xatol": 1e-4}).x))


def best_lr_after_epochs(batch_size: int, epochs: int, examples: int, features: int, start_loss: float, noise: float) -> float:
    """Sum-reduction lr with the least excess risk after a fixed number of epochs, isotropic features and a bias.

        lr_sum* = (1 - exp(-s* B)) / B,   s* = ln(2 E N L0 / f) / (2 E N),   f = sigma^2 (d + 1) / 4

    An approximation for B << N: level up to B ~ 1/s*, then falling as 1/B.

    Args:
      batch_size: examples per step, B.
      epochs: passes over the data, E.
      examples: training examples, N.
      features: d, bias not counted.
      start_loss: excess risk at the start, L0.
      noise: standard deviation sigma of the targets' noise; > 0.

    Returns:
      A learning rate under sum; times B for mean.

    Example:
      >>> round(best_lr_after_epochs(1, 3, 1000, 2, 16.6, 0.01), 5)
      0.0035
    """
    floor = noise**2 * (features + 1) / 4
    rate = math.log(2 * epochs * examples * start_loss / floor) / (2 * epochs * examples)
    return (1 - math.exp(-rate * batch_size)) / batch_size


class NoiseScales(NamedTuple):
    """How much curvature and how much noise limit a single step.

    `lr_max`: best lr of a single full-batch step; `b_noise`: batch size at which it halves; `b_simple`: the same
    without curvature, which can be measured from gradients alone (see `forms.noise_scale`).
    """

    lr_max: float
    b_noise: float
    b_simple: float

    def greedy_lr(self, batch_size: int) -> float:
        """Mean-reduction lr that lowers the expected loss most in one step: lr_max / (1 + B_noise/B)."""
        return self.lr_max / (1 + self.b_noise / batch_size)


def noise_scales(spectrum: Array, bias: bool, error: Array, noise: float) -> NoiseScales:
    """The noise scales of least squares at one point.

        lr_max = |G|^2 / G'HG,   B_noise = tr(H Sigma) / G'HG,   B_simple = tr(Sigma) / |G|^2

    G is the gradient of the expected loss, Sigma the covariance of one example's gradient. All three are for one
    step: the lr that is best for a whole training is another matter (see `best_lr_after_steps`).

    Args:
      spectrum: eigenvalues of the features' covariance, [feature].
      bias: whether a bias is trained.
      error: w - w* in the covariance's axes, [moment]; a bias comes last; not all 0.
      noise: standard deviation sigma of the targets' noise.

    Source:
      McCandlish et al. 2018, arXiv 1812.06162, section 2.2; Gaussian fourth moments for Sigma.

    Example:
      >>> scales = noise_scales(np.ones(2), True, np.array([2, -3.4, 4.2]), 0.01)
      >>> round(scales.b_simple, 2), round(scales.greedy_lr(1), 3), round(scales.greedy_lr(1000), 3)
      (2.94, 0.254, 0.997)
    """
    lam = np.append(spectrum, 1.0) if bias else np.asarray(spectrum, dtype=float)
    own = np.ones(len(lam))
    if bias:
        own[-1] = -1
    gradient = lam * error
    variance = lam * (float(lam @ error**2) + noise**2) + own * gradient**2
    bent = float(lam @ gradient**2)
    square = float(gradient @ gradient)
    return NoiseScales(square / bent, float(lam @ variance) / bent, float(variance.sum()) / square)
