"""One step of SGD on least squares as a linear map of second moments, without and with momentum.

The features, the error e and the lr are those of `lrscale.law.least_squares`.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Momentum(NamedTuple):
    """The momentum of SGD, as in torch.optim.SGD without dampening: v' = beta v + g, and e' = e - eta v'.

    With `nesterov`, e' = e - eta (g + beta v').
    """

    beta: float = 0.0
    nesterov: bool = False

    @property
    def step(self) -> tuple[float, float]:
        """The weights of the old velocity v and of the gradient g in the step: e' = e - eta (a v + b g)."""
        return (self.beta**2, 1 + self.beta) if self.nesterov else (self.beta, 1.0)


NO_MOMENTUM = Momentum()
"""No momentum."""


def eigenvalues(spectrum: Array, bias: bool) -> Array:
    """Returns lam_i of the Hessian, [moment]: those of the features' covariance, and 1 for a bias."""
    return np.append(spectrum, 1.0) if bias else np.asarray(spectrum, dtype=float)


def moment_map(spectrum: Array, bias: bool, batch_size: int, lr: float) -> tuple[Array, Array]:
    """Returns one step of plain SGD as a map of the second moments: m' = A m + sigma^2 v.

        m_i' = (1 - 2 eta lam_i + eta^2 lam_i^2 (1 + 1/B)) m_i + (eta^2/B) lam_i sum_j lam_j m_j + eta^2 sigma^2 lam_i/B

    A bias has lam = 1. Its feature is constant, without excess kurtosis, so its own term has 1 - 1/B instead of 1 + 1/B.

    Args:
      spectrum: eigenvalues of the features' covariance, [feature].
      bias: whether a bias is trained; its moment is the last one.
      batch_size: examples per step, B.
      lr: eta under mean reduction.

    Returns:
      A, [moment, moment], and v, [moment].

    Source:
      Gaussian fourth moments; pinned by `test_the_map_is_one_step_of_sgd`.
    """
    lam = eigenvalues(spectrum, bias)
    a = np.diag(1 - 2 * lr * lam + lr**2 * lam**2 * _own(lam, bias, batch_size)) + lr**2 / batch_size * np.outer(lam, lam)
    return a, lr**2 * lam / batch_size


def _own(lam: Array, bias: bool, batch_size: int) -> Array:
    """Returns the factor of lam_i^2 m_i in E g_i^2, [moment]."""
    factor = np.full(len(lam), 1 + 1 / batch_size)
    if bias:
        factor[-1] = 1 - 1 / batch_size
    return factor


def momentum_map(
    spectrum: Array, bias: bool, batch_size: int, lr: float, momentum: Momentum
) -> tuple[Array, Array, NDArray[np.intp]]:
    """Returns one step of SGD with momentum as a map of three moments of each group: E e^2, E e u and E u^2.

    u = eta v is the velocity times the lr. Weights with equal eigenvalues are one group, whose moments are the sums of
    theirs: features with one eigenvalue need three numbers, however many they are. The arguments are those of `moment_map`.

    Returns:
      A, [3 group, 3 group], and v, [3 group], of x' = A x + sigma^2 v; and the group of each weight, [moment].

    Source:
      `velocity_map` with Gaussian fourth moments; pinned by `test_the_map_with_momentum_is_one_step_of_torch`.
    """
    lam = eigenvalues(spectrum, bias)
    own = _own(lam, bias, batch_size)
    kinds, group, count = np.unique(np.column_stack([lam, own]), axis=0, return_inverse=True, return_counts=True)
    lam, own = kinds.T
    second = np.diag(lam**2 * own) + np.outer(count * lam, lam) / batch_size
    _, b = momentum.step
    of_noise = lr**2 * count * lam / batch_size
    return velocity_map(second, lam, lr, momentum), np.concatenate([b * b * of_noise, -b * of_noise, of_noise]), group.ravel()


def velocity_map(second: Array, lam: Array, lr: float, momentum: Momentum) -> Array:
    """Returns A of `momentum_map` from the moments of the gradient g of fresh examples, without noise.

        E e u' = eta lam m + beta c             E u'^2 = eta^2 S m + 2 eta beta lam c + beta^2 q
        c' = E e u' - E d u'                    m' = m - 2 E e d + E d^2,   d = a u + b eta g

    m, c and q are the moments E e_i^2, E e_i u_i and E u_i^2.

    Args:
      second: S of E g_i^2 = sum_j S_ij m_j, [moment, moment].
      lam: of E g_i = lam_i e_i, [moment].
      lr: eta under mean reduction.
      momentum: the momentum of SGD.
    """
    beta, (a, b) = momentum.beta, momentum.step
    one, mean, square = np.eye(len(lam)), np.diag(lr * lam), lr**2 * second
    e_u = np.hstack([mean, beta * one, 0 * one])
    u_u = np.hstack([square, 2 * beta * mean, beta**2 * one])
    e_d = np.hstack([b * mean, a * one, 0 * one])
    d_d = np.hstack([b * b * square, 2 * a * b * mean, a * a * one])
    d_u = np.hstack([b * square, (a + b * beta) * mean, a * beta * one])
    m = np.hstack([one, 0 * one, 0 * one])
    return np.vstack([m - 2 * e_d + d_d, e_u - d_u, u_u])
