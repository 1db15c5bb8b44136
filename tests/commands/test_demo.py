"""The book's own points."""

import pytest
import torch
from numpy.testing import assert_allclose
from torch.testing import assert_close

from lrscale.commands.cli import main
from lrscale.tasks.registry import make_task
from lrscale.training import book

ROUNDING = 1e-12


def test_the_gradient_of_a_sum_is_the_sum_of_gradients() -> None:
    data = make_task(book.recipe()).data
    sums = book.sum_of_gradients(data.x[:10, :2], data.y[:10])
    assert_close(sums.of_sum, sums.sum_of, rtol=ROUNDING, atol=ROUNDING)
    assert float(sums.of_sum.norm()) > 1


def test_backward_accumulates_until_gradients_are_zeroed() -> None:
    assert book.accumulated() == [10.0, 30.0, 5.0]


def test_the_gradient_grows_with_the_batch_size_under_sum_only() -> None:
    data = make_task(book.recipe()).data
    rows = book.norms_by_batch_size(data, (10, 100, 1000))
    by_sum, by_mean = ([row[i] for row in rows] for i in (1, 2))
    assert by_sum[2] / by_sum[0] > 80
    assert max(by_mean) / min(by_mean) < 1.2


def test_the_books_sgd_is_torchs_at_lr_and_at_lr_over_b() -> None:
    data = make_task(book.recipe()).data
    by_hand = book.train_by_hand(data)
    assert_allclose(book.train_with_torch(data, book.LR, "mean"), by_hand, rtol=1e-10)
    assert_allclose(book.train_with_torch(data, book.LR / book.BATCH_SIZE, "sum"), by_hand, rtol=1e-10)
    assert book.train_with_torch(data, book.LR, "sum")[0] != pytest.approx(by_hand[0], rel=0.5)


def test_it_prints_all_four(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    assert main(["demo"]) == 0
    said = capsys.readouterr().out
    for text in ("w.grad = 10", "w.grad = 30", "w.grad = 5", "5697.5", "0.0395017"):
        assert text in said
