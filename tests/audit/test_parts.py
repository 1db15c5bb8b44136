"""Two means over different counts are told from examples that meet in the loss, however the loss is summed."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lrscale


@pytest.mark.parametrize(("times_batch_size", "kinds"), [(False, {"two counts"}), (True, {"two counts", "sum"})])
def test_two_means_times_the_batch_size_are_two_means_still(times_batch_size: bool, kinds: set[str]) -> None:
    """The loss of YOLOv5 is (mean over objects + mean over cells) times the batch size."""
    torch.manual_seed(0)
    model = nn.Conv2d(1, 5, 3, padding=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    is_object = torch.arange(8 * 16).remainder(5).lt(torch.arange(8).repeat_interleave(16) % 4).view(8, 4, 4).float()
    is_object[:, 0, 0] = 1
    batch = (torch.randn(8, 1, 4, 4), is_object, torch.randn(8, 4, 4, 4))

    def loss_of(x: Tensor, is_object: Tensor, boxes: Tensor) -> Tensor:
        out = model(x)
        errors = (out[:, :4] - boxes).square().mean(1)
        loss = (errors * is_object).sum() / is_object.sum() + (out[:, 4] - is_object).square().mean()
        return loss * len(x) if times_batch_size else loss

    def step(micros: list[Any]) -> None:
        optimizer.zero_grad()
        for micro in micros:
            loss_of(*micro).backward()
        optimizer.step()

    assert lrscale.audit(step, batch, model).kinds == kinds
