"""Loss weights and the gradient scale against autograd on torch.nn's losses."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from lrscale.study.config import make_training
from lrscale.training.reduction import example_weights, gradient_scale, step_gradient_scale
from tests.configs import config


def micro_batch_gradient(x: Tensor, y: Tensor, class_weights: Tensor, reduction: str, size: int) -> Tensor:
    w = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    for part in range(0, len(x), size):
        kind = "mean" if reduction == "mean" else "sum"
        out = x[part : part + size] @ w.T
        loss = nn.functional.cross_entropy(out, y[part : part + size], class_weights, ignore_index=-100, reduction=kind)
        (loss / size if reduction == "sum_over_nominal" else loss).backward()
    assert w.grad is not None
    return w.grad


@pytest.mark.parametrize("size", [4, 5, 12])
@pytest.mark.parametrize("reduction", ["mean", "sum", "sum_over_nominal"])
def test_one_step_equals_autograd_over_micro_batches(reduction: str, size: int) -> None:
    stream = torch.Generator().manual_seed(1)
    x = torch.randn(12, 4, generator=stream, dtype=torch.float64)
    y = torch.tensor([0, 1, 2, -100, 1, 1, 0, 2, -100, 0, 2, 1])
    class_weights = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    terms = torch.where(y >= 0, class_weights[y.clamp(min=0)], 0.0)
    w = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    each = nn.functional.cross_entropy(x @ w.T, y.clamp(min=0), reduction="none")
    (example_weights(reduction, terms, size) * terms * each).sum().backward()
    assert_close(w.grad, micro_batch_gradient(x, y, class_weights, reduction, size))


@pytest.mark.parametrize(("reduction", "expected"), [("mean", 3.0), ("sum", 24.0), ("sum_over_nominal", 3.0)])
def test_c_counts_terms_and_micro_batches(reduction: str, expected: float) -> None:
    assert gradient_scale(reduction, torch.ones(24), 8).item() == expected


def test_c_under_sum_is_the_sum_of_the_terms_not_the_batch_size() -> None:
    terms = torch.tensor([2.0, 0.0, 0.5, 0.0])
    assert gradient_scale("sum", terms, 4).item() == 2.5
    assert gradient_scale("mean", terms, 4).item() == 1.0


@pytest.mark.parametrize("reduction", ["mean", "sum", "sum_over_nominal"])
def test_the_short_way_to_c_gives_the_same_float(reduction: str) -> None:
    for accumulation in (1, 3, 4):
        for size in [2**k for k in range(8)]:
            training = make_training(config(reduction=reduction, batch_size=size, accumulation=accumulation))
            terms = torch.ones(training.step_examples, dtype=torch.float64)
            assert step_gradient_scale(training) == float(gradient_scale(reduction, terms, size))
