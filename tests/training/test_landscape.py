"""The landscape of a user's task: its loss is the recorded one, and its curvature and noise are those of autograd."""

import math
from typing import Any

import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from lrscale.tasks.own import called
from lrscale.tasks.rows import mapped
from lrscale.training.engine import train
from lrscale.training.landscape import OwnLandscape, landscape_after
from tests.training.own_models import CASES, Case, task_of, training

RTOL = 1e-5
"""The error of an eigenvalue is about the square of its residual, 1e-6."""


def point(case: Case) -> tuple[Any, OwnLandscape]:
    made, task = training(), task_of(case)
    landscape = landscape_after(made, task, made.steps)
    assert isinstance(landscape, OwnLandscape)
    return made, landscape


def loss_of(landscape: OwnLandscape, run: int, flat: Tensor, x: Any, y: Any) -> Tensor:
    """The sum of losses of one run as a function of all its weights in one vector."""
    task, weights = landscape.task, [w[run] for w in landscape.weights]
    module = landscape.form.modules[run if task.maker.is_drawn else 0].eval()
    parts = [p.view(w.shape) for p, w in zip(flat.split([w.numel() for w in weights]), weights, strict=True)]
    names = [name for name, _ in module.named_buffers()]
    values = dict(zip(task.names, parts, strict=True)) | {n: b[run] for n, b in zip(names, landscape.buffers, strict=True)}

    def at_values(*args: Any, **named: Any) -> Any:
        return functional_call(module, values, args, named)

    return task.terms_of(called(at_values, x), y).losses.sum()


@pytest.mark.parametrize("name", CASES)
def test_curvature_and_noise_are_those_of_dense_derivatives(name: str) -> None:
    made, landscape = point(CASES[name])
    task, x, y = landscape.task, *landscape.task.train.take(torch.arange(22))
    for run in range(2):
        flat = torch.cat([w[run].flatten() for w in landscape.weights])
        with sdpa_kernel(SDPBackend.MATH):
            hessian = torch.autograd.functional.hessian(lambda v, r=run: loss_of(landscape, r, v, x, y), flat)
            rows = [
                torch.autograd.functional.jacobian(
                    lambda v, r=run, k=k: loss_of(landscape, r, v, *(mapped(lambda t: t[k : k + 1], tree) for tree in (x, y))),
                    flat,
                )
                for k in range(22)
            ]
        mean_terms = float(task.terms.sum()) / 22
        gradients = torch.stack(rows) / mean_terms
        expected = float(torch.linalg.eigvalsh(hessian)[-1]) / mean_terms / 22
        wrong = name == "weight norm"  # torch's second derivative of it is not symmetric
        assert wrong != bool((hessian - hessian.mT).abs().max() < 1e-9)
        found = landscape.largest_curvatures(made.seeds, 1000)[run]
        assert math.isnan(found) if wrong else found == pytest.approx(expected, rel=RTOL)
        signal = float(gradients.mean(0).square().sum())
        spread = float((gradients - gradients.mean(0)).square().sum(1).mean())
        assert_allclose(landscape.noise(run), (signal, spread), rtol=1e-8)


@pytest.mark.parametrize("name", ["batch norm and dropout", "lstm", "class weights"])
def test_the_loss_is_the_recorded_one_at_the_weights_of_training(name: str) -> None:
    made, landscape = point(CASES[name])
    sums = torch.stack(list(landscape.sums(landscape.weights)))
    recorded = train(made, task_of(CASES[name])).train_loss[-1, :2]
    assert_allclose(float(sums.sum()) / landscape.terms, recorded.sum(), rtol=1e-10)
