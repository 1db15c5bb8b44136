"""The mean of a CTC loss is divided by the batch size.

Met in: meijieru/crnn.pytorch#232.
Right: the mean has divided by the batch size already.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.cases import Batch, Case, generator, loop, seeded


def speech(seed: int, dtype: torch.dtype) -> Batch:
    """Frames x [example, time, feature], letters y [example, letter], and how many letters count."""
    draw = generator(seed)
    x = torch.randn(6, 12, 5, generator=draw, dtype=torch.float64).to(dtype)
    return {"x": x, "y": torch.randint(1, 4, (6, 4), generator=draw), "count": torch.tensor([1, 2, 4, 3, 4, 2])}


def ctc(model: nn.Module, micro: Batch, reduction: str) -> Tensor:
    """The CTC loss; its mean divides each example by its letters, and then takes the mean over examples."""
    scores = model(micro["x"]).log_softmax(-1).transpose(0, 1)
    return F.ctc_loss(scores, micro["y"], torch.full((len(micro["y"]),), 12), micro["count"], reduction=reduction)


def wrong(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = speech(seed, dtype), seeded(seed, dtype, partial(nn.Linear, 5, 4))
    step = loop(model, lambda micro, window: ctc(model, micro, "mean") / len(micro["y"]))
    return Case(step, batch, model, kind="averaged twice", numbers={"growth": -1})


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = speech(seed, dtype), seeded(seed, dtype, partial(nn.Linear, 5, 4))
    step = loop(model, lambda micro, window: ctc(model, micro, "mean"))
    return Case(step, batch, model, numbers={"growth": 0})
