"""Theory against Monte Carlo and against its own other forms."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.optimize import brentq, minimize_scalar

from lrscale.law import least_squares as theory
from lrscale.law import stability as edges
from lrscale.law.moments import Momentum, moment_map, momentum_map

SAMPLES = 400_000
MONTE_CARLO = 0.01  # five standard errors at this many samples


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("batch_size", [1, 3, 10])
def test_the_map_is_one_step_of_sgd(bias: bool, batch_size: int) -> None:
    rng = np.random.default_rng(batch_size)
    spectrum, lr, noise = np.array([1.0, 0.5, 0.2]), 0.3, 0.5
    error = np.array([1.0, 2.0, -1.0, 0.7][: 3 + bias])
    x = rng.normal(size=(SAMPLES, batch_size, 3)) * np.sqrt(spectrum)
    if bias:
        x = np.concatenate([x, np.ones((SAMPLES, batch_size, 1))], -1)
    residual = x @ error - noise * rng.normal(size=(SAMPLES, batch_size))
    after = error - lr * np.einsum("nbd,nb->nd", x, residual) / batch_size
    a, v = moment_map(spectrum, bias, batch_size, lr)
    assert_allclose((after**2).mean(0), a @ error**2 + noise**2 * v, rtol=MONTE_CARLO)


@pytest.mark.parametrize("batch_size", [1, 2, 16, 500])
@pytest.mark.parametrize("features", [1, 2, 10])
def test_the_edge_is_where_the_map_stops_contracting(batch_size: int, features: int) -> None:
    ones = np.ones(features)
    with_bias = theory.stability_edge(batch_size, theory.fourth_moment(features))
    assert_allclose(theory.mean_square_edge(ones, True, batch_size), with_bias, rtol=1e-6)
    assert_allclose(theory.mean_square_edge(ones, False, batch_size), 2 * batch_size / (batch_size + features + 1), rtol=1e-6)


def test_the_edge_of_any_covariance_is_the_papers_condition() -> None:
    spectrum, size = 1 / np.arange(1, 9), 4
    edge = theory.mean_square_edge(spectrum, False, size)
    assert_allclose(edge / size * (spectrum / (2 - edge * spectrum * (1 + 1 / size))).sum(), 1, rtol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_contraction_is_fastest_at_half_the_edge(batch_size: int) -> None:
    edge = theory.mean_square_edge(np.ones(3), True, batch_size)
    assert_allclose(theory.fastest_lr(np.ones(3), True, batch_size), edge / 2, rtol=1e-3)


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_the_soonest_lr_is_the_fastest_for_one_eigenvalue(batch_size: int) -> None:
    ones, start = np.full(3, 0.5), np.array([4.0, 1.0, 0.1])
    found = theory.soonest_lr(1e-4, ones, False, batch_size, start)
    assert_allclose(found, theory.fastest_lr(ones, False, batch_size), rtol=0.01)


@pytest.mark.parametrize("batch_size", [1, 16, 1024])
def test_the_soonest_lr_needs_the_fewest_steps_of_all(batch_size: int) -> None:
    spectrum, start = 1 / np.arange(1, 17), np.ones(16)
    edge = theory.mean_square_edge(spectrum, False, batch_size)
    soonest = theory.soonest_lr(0.05, spectrum, False, batch_size, start)
    fewest = theory.steps_to(0.05, spectrum, False, batch_size, soonest, start)
    assert (
        fewest
        <= min(theory.steps_to(0.05, spectrum, False, batch_size, x * edge, start) for x in np.linspace(0.15, 0.99, 60)) + 0.1
    )


def test_the_risk_is_at_the_target_after_the_steps_to_it() -> None:
    spectrum, start, lr = 1 / np.arange(1, 9), np.ones(8), 0.3
    steps = theory.steps_to(0.1, spectrum, True, 4, lr, np.append(start, 1.0))
    around = [
        theory.expected_excess(spectrum, True, 4, lr, s, np.append(start, 1.0), 0.0)
        for s in (math.floor(steps), math.ceil(steps))
    ]
    share = steps - math.floor(steps)
    assert_allclose((1 - share) * math.log(around[0]) + share * math.log(around[1]), math.log(0.1), rtol=1e-9)
    assert theory.steps_to(10.0, spectrum, False, 4, lr, start) == 0
    assert theory.steps_to(1e-3, spectrum, False, 1, 1.5, start) == math.inf


@pytest.mark.parametrize("batch_size", [1, 4, 16, 64, 256])
def test_the_closed_form_of_fixed_epochs_is_the_minimum_of_the_recursion(batch_size: int) -> None:
    start = np.array([2.0, -3.4, 4.2]) ** 2
    steps = math.ceil(3 * 1000 / batch_size)
    exact = theory.best_lr_after_steps(np.ones(2), True, batch_size, steps, start, 0.01) / batch_size
    closed = theory.best_lr_after_epochs(batch_size, 3, 1000, 2, float(start.sum()) / 2, 0.01)
    assert abs(math.log(exact / closed)) < 0.02


@pytest.mark.parametrize("momentum", [theory.NO_MOMENTUM, theory.Momentum(0.9), theory.Momentum(0.5, nesterov=True)])
def test_many_lrs_at_once_have_the_excess_of_each(momentum: theory.Momentum) -> None:
    problem = np.array([2.0, 0.3]), True, 4, 500, np.ones(3), 0.1, momentum
    spectrum, bias, batch_size, steps, start, noise, _ = problem
    lrs = np.geomspace(1e-4, 100, 60)  # beyond the edge too, where it overflows
    each = [theory.expected_excess(spectrum, bias, batch_size, lr, steps, start, noise, momentum) for lr in lrs]
    assert not np.isfinite(each).all()
    assert_allclose(theory._excesses(lrs, *problem), each, rtol=1e-9)


def test_expected_excess_is_infinite_where_it_overflows() -> None:
    assert theory.expected_excess(np.ones(2), False, 1, 5.0, 10_000, np.ones(2), 0.0) == math.inf


Array = NDArray[np.float64]
SPECTRUM = np.array([1.0, 0.5, 0.2])
ERROR = np.array([1.0, 2.0, -1.0, 0.7])


def one_step(
    rng: np.random.Generator,
    bias: bool,
    batch_size: int,
    lr: float,
    noise: float,
    turn: Array | None = None,
    samples: int = SAMPLES,
) -> Array:
    """Errors after one step of SGD on fresh data, [sample, weight]; `turn` are the covariance's axes as columns."""
    x = rng.normal(size=(SAMPLES, batch_size, 3)) * np.sqrt(SPECTRUM)
    error = ERROR[: 3 + bias].copy()
    if turn is not None:
        x, error[:3] = x @ turn.T, turn @ error[:3]
    if bias:
        x = np.concatenate([x, np.ones((SAMPLES, batch_size, 1))], -1)
    residual = x @ error - noise * rng.normal(size=(SAMPLES, batch_size))
    return error - lr * np.einsum("nbd,nb->nd", x, residual) / batch_size


@pytest.mark.parametrize("bias", [False, True])
def test_the_map_holds_for_a_covariance_that_is_not_diagonal(bias: bool) -> None:
    rng = np.random.default_rng(5)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    after = one_step(rng, bias, 2, 0.4, 0.5, turn)
    after[:, :3] = after[:, :3] @ turn  # back into the covariance's axes
    a, v = moment_map(SPECTRUM, bias, 2, 0.4)
    assert_allclose((after**2).mean(0), a @ ERROR[: 3 + bias] ** 2 + 0.25 * v, rtol=MONTE_CARLO)


@pytest.mark.parametrize("bias", [False, True])
def test_the_expected_excess_is_that_of_many_runs(bias: bool) -> None:
    rng, runs, steps, lr, noise = np.random.default_rng(6), 100_000, 12, 0.25, 0.4
    error = np.tile(ERROR[: 3 + bias], (runs, 1))
    for _ in range(steps):
        x = rng.normal(size=(runs, 4, 3)) * np.sqrt(SPECTRUM)
        x = np.concatenate([x, np.ones((runs, 4, 1))], -1) if bias else x
        residual = np.einsum("nbd,nd->nb", x, error) - noise * rng.normal(size=(runs, 4))
        error -= lr * np.einsum("nbd,nb->nd", x, residual) / 4
    lam = np.append(SPECTRUM, 1.0) if bias else SPECTRUM
    measured = float((error**2 @ lam).mean() / 2)
    expected = theory.expected_excess(SPECTRUM, bias, 4, lr, steps, ERROR[: 3 + bias] ** 2, noise)
    assert_allclose(measured, expected, rtol=2 * MONTE_CARLO)


@pytest.mark.parametrize("bias", [False, True])
def test_the_noise_scales_are_those_of_sampled_gradients(bias: bool) -> None:
    noise = 0.8
    gradients = ERROR[: 3 + bias] - one_step(np.random.default_rng(7), bias, 1, 1.0, noise)
    hessian = np.append(SPECTRUM, 1.0) if bias else SPECTRUM
    mean, spread = gradients.mean(0), gradients.var(0)
    bent = float(hessian @ mean**2)
    found = theory.noise_scales(SPECTRUM, bias, ERROR[: 3 + bias], noise)
    assert_allclose(found, [mean @ mean / bent, hessian @ spread / bent, spread.sum() / (mean @ mean)], rtol=2 * MONTE_CARLO)


@pytest.mark.parametrize("batch_size", [1, 8, 500])
@pytest.mark.parametrize("bias", [False, True])
def test_the_greedy_lr_is_best_for_one_step(bias: bool, batch_size: int) -> None:
    start = ERROR[: 3 + bias]
    found = minimize_scalar(
        lambda lr: theory.expected_excess(SPECTRUM, bias, batch_size, lr, 1, start**2, 0.5), bounds=(0, 3), method="bounded"
    )
    assert_allclose(theory.noise_scales(SPECTRUM, bias, start, 0.5).greedy_lr(batch_size), found.x, rtol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 16, 256])
def test_the_best_sign_step_is_that_of_draws(batch_size: int) -> None:
    rng, features, noise, right = np.random.default_rng(10), 16, 5.0, []
    error = np.where(np.arange(features) % 2, 1.0, -1.0)
    for _ in range(20):
        x = rng.normal(size=(20_000 // max(1, batch_size // 8), batch_size, features))
        residual = x @ error + noise * rng.normal(size=x.shape[:2])
        right.append((np.sign(np.einsum("nbd,nb->nd", x, residual)) * error).mean())
    lr = (
        theory.sign_step_lr(batch_size, features, noise)
        if batch_size > 1
        else 2 / math.pi * math.asin((noise**2 + features) ** -0.5)
    )
    assert abs(np.mean(right) - lr) < 4 * np.std(right) / math.sqrt(20) + 0.02 * lr


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_the_map_with_momentum_is_one_step_of_torch(bias: bool, nesterov: bool) -> None:
    rng, size, lr, noise, beta = np.random.default_rng(9), 2, 0.3, 0.5, 0.7
    error, velocity = ERROR[: 3 + bias], np.array([0.5, -1.0, 0.3, 2.0])[: 3 + bias]
    x = rng.normal(size=(SAMPLES, size, 3)) * np.sqrt(SPECTRUM)
    x = np.concatenate([x, np.ones((SAMPLES, size, 1))], -1) if bias else x
    residual = x @ error - noise * rng.normal(size=(SAMPLES, size))
    weights = torch.tensor(error).repeat(SAMPLES, 1).requires_grad_()
    weights.grad = torch.tensor(np.einsum("nbd,nb->nd", x, residual) / size)
    optimizer = torch.optim.SGD([weights], lr=lr, momentum=beta, nesterov=nesterov)
    optimizer.state[weights]["momentum_buffer"] = torch.tensor(velocity).repeat(SAMPLES, 1)
    optimizer.step()
    e, u = weights.detach().numpy(), lr * optimizer.state[weights]["momentum_buffer"].numpy()
    a, v, group = momentum_map(SPECTRUM, bias, size, lr, Momentum(beta, nesterov))
    order = np.argsort(group)  # each weight is a group of its own
    before = np.concatenate([m[order] for m in (error**2, error * lr * velocity, (lr * velocity) ** 2)])
    measured = np.concatenate([m.mean(0)[order] for m in (e**2, e * u, u**2)])
    spread = np.concatenate([m.std(0)[order] for m in (e**2, e * u, u**2)]) / math.sqrt(SAMPLES)
    assert np.all(np.abs(measured - a @ before - noise**2 * v) < 5 * spread)


@pytest.mark.parametrize("beta", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("batch_size", [1, 4, 64, 4096])
def test_the_edge_with_momentum_is_where_the_map_stops_contracting(batch_size: int, beta: float) -> None:
    for features in (1, 3):
        for bias, kappa in ((True, theory.fourth_moment(features)), (False, features + 2)):
            found = theory.mean_square_edge(np.ones(features), bias, batch_size, Momentum(beta))
            assert_allclose(found, edges.heavy_ball_edge(batch_size, beta, kappa), rtol=1e-6)
            b_c = edges.heavy_ball_turn_over(beta, kappa)
            assert_allclose(found / batch_size, 2 * (1 + beta) / (batch_size + b_c), rtol=1e-6)  # under sum
    assert_allclose(edges.heavy_ball_edge(10**9, beta, 5), edges.momentum_edge(1.0, beta), rtol=1e-5)
    assert_allclose(edges.heavy_ball_edge(batch_size, 0, 5), theory.stability_edge(batch_size, 5), rtol=1e-12)


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_expected_excess_with_momentum_is_that_of_many_runs(nesterov: bool) -> None:
    rng, runs, steps, lr, noise, momentum = np.random.default_rng(6), 100_000, 12, 0.1, 0.4, Momentum(0.7, nesterov)
    error, velocity = np.tile(ERROR, (runs, 1)), np.zeros((runs, 4))
    for _ in range(steps):
        x = np.concatenate([rng.normal(size=(runs, 4, 3)) * np.sqrt(SPECTRUM), np.ones((runs, 4, 1))], -1)
        residual = np.einsum("nbd,nd->nb", x, error) - noise * rng.normal(size=(runs, 4))
        gradient = np.einsum("nbd,nb->nd", x, residual) / 4
        velocity = 0.7 * velocity + gradient
        error -= lr * (gradient + 0.7 * velocity if nesterov else velocity)
    measured = float((error**2 @ np.append(SPECTRUM, 1.0)).mean() / 2)
    expected = theory.expected_excess(SPECTRUM, True, 4, lr, steps, ERROR**2, noise, momentum)
    assert_allclose(measured, expected, rtol=2 * MONTE_CARLO)


def test_weights_with_one_eigenvalue_move_as_one() -> None:
    momentum, start, near = Momentum(0.8), np.array([1.0, 2.0, 3.0, 0.5]), np.array([1.0, 1.0 + 1e-9, 1.0 - 1e-9])
    together, apart = (theory.expected_excess(s, True, 4, 0.05, 30, start, 0.7, momentum) for s in (np.ones(3), near))
    assert_allclose(together, apart, rtol=1e-7)


@pytest.mark.parametrize("batch_size", [1, 16, 128, 256])
def test_the_best_lr_with_momentum_is_the_lowest_of_all_minima(batch_size: int) -> None:
    ones, momentum, steps = np.ones(32), Momentum(0.9), 10240 // batch_size
    best = theory.best_lr_after_steps(ones, False, batch_size, steps, ones, 1.0, momentum)
    lrs = np.geomspace(best / 30, theory.mean_square_edge(ones, False, batch_size, momentum), 400)
    lowest = min(theory.expected_excess(ones, False, batch_size, lr, steps, ones, 1.0, momentum) for lr in lrs)
    assert theory.expected_excess(ones, False, batch_size, best, steps, ones, 1.0, momentum) <= lowest
    known = {1: 0.00052, 16: 0.00049, 128: 0.00029, 256: 0.00022}  # an independent loop, lr_sum*/(1 - beta)
    assert_allclose(best / batch_size / 0.1, known[batch_size], rtol=0.03)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize(("factor", "stable"), [(0.99, True), (1.01, False)])
def test_momentum_is_stable_up_to_its_edge(momentum: float, factor: float, stable: bool) -> None:
    curvature = torch.tensor([0.1, 0.7, 2.5], dtype=torch.float64)
    weights = torch.ones(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([weights], lr=factor * edges.momentum_edge(2.5, momentum), momentum=momentum)
    for _ in range(3000):
        weights.grad = (curvature * weights).detach()
        optimizer.step()
    assert (float(weights.detach().abs().max()) < 1) is stable


def contraction(lr: float, m: int, lam: Array) -> float:
    """The slowest direction's E|e'|^2 / |e|^2, where an example is sqrt(beta) along axis i with probability lam_i/beta."""
    beta = float(lam.sum())
    return float((1 - 2 * lr * lam + lr**2 * lam * (beta + (m - 1) * lam) / m).max())


@pytest.mark.parametrize("m", [1, 2, 3, 10, 1000])
def test_the_lr_under_interpolation_contracts_fastest(m: int) -> None:
    lam = np.array([0.6, 0.3, 0.1])
    best = minimize_scalar(contraction, bounds=(0, 5), args=(m, lam), method="bounded", options={"xatol": 1e-9})
    assert_allclose(edges.interpolation_lr(m, 1.0, 0.6, 0.1), best.x, rtol=1e-4)


def test_the_contraction_under_interpolation_is_that_of_sampled_steps() -> None:
    rng, lam, m = np.random.default_rng(8), np.array([0.6, 0.3, 0.1]), 3
    lr = edges.interpolation_lr(m, 1.0, 0.6, 0.1)
    worst = 0.0
    for direction in np.eye(3):
        x = np.eye(3)[rng.choice(3, (SAMPLES, m), p=lam)]
        after = direction - lr * np.einsum("nbd,nb->nd", x, x @ direction) / m
        worst = max(worst, float((after**2).sum(1).mean()))
    assert_allclose(worst, contraction(lr, m, lam), rtol=2 * MONTE_CARLO)


def test_the_almost_sure_edge_of_one_feature_is_an_integral() -> None:
    def growth(lr: float) -> float:
        zero = lr**-0.5  # where 1 - lr x^2 is 0
        parts = [
            quad(lambda x: math.log(abs(1 - lr * x * x)) * math.exp(-x * x / 2), *ends)[0] for ends in ((0, zero), (zero, 12))
        ]
        return sum(parts)

    found = edges.almost_sure_edge(1, False, 1, np.random.default_rng(0))
    assert_allclose(found, brentq(growth, 1, 5), rtol=2 * MONTE_CARLO)


@pytest.mark.parametrize(("features", "bias", "batch_size"), [(2, False, 1), (2, True, 1), (5, True, 3)])
@pytest.mark.parametrize(("factor", "shrinks"), [(0.93, True), (1.07, False)])
def test_long_runs_part_at_the_almost_sure_edge(features: int, bias: bool, batch_size: int, factor: float, shrinks: bool) -> None:
    lr = factor * edges.almost_sure_edge(features, bias, batch_size, np.random.default_rng(1))
    rng = np.random.default_rng(2)
    error = np.ones((200, features + bias))
    log_size = np.zeros(200)
    for _ in range(600):
        x = rng.normal(size=(200, batch_size, features))
        x = np.concatenate([x, np.ones((200, batch_size, 1))], -1) if bias else x
        error -= lr * np.einsum("nbd,nb->nd", x, np.einsum("nbd,nd->nb", x, error)) / batch_size
        size = np.linalg.norm(error, axis=1)
        log_size, error = log_size + np.log(size), error / size[:, None]
    assert (float(np.median(log_size)) < 0) is shrinks


def test_the_almost_sure_edge_meets_the_mean_square_one_as_batches_grow() -> None:
    ratios = [
        edges.almost_sure_edge(2, True, size, np.random.default_rng(0)) / theory.mean_square_edge(np.ones(2), True, size)
        for size in (1, 8, 64, 1024)
    ]
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[0] > 1.4 and 1 <= ratios[-1] < 1.01
