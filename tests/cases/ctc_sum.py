"""A CTC loss is summed by default.

Met in: huggingface/transformers#15196.
Right: ask for the mean over the examples.
"""

from functools import partial

import torch
from torch import nn

from tests.cases import Case, loop, seeded
from tests.cases.ctc_divided_twice import ctc, speech


def wrong(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = speech(seed, dtype), seeded(seed, dtype, partial(nn.Linear, 5, 4))
    step = loop(model, lambda micro, window: ctc(model, micro, "sum"))
    return Case(step, batch, model, kind="sum", numbers={"growth": 1})


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = speech(seed, dtype), seeded(seed, dtype, partial(nn.Linear, 5, 4))
    step = loop(model, lambda micro, window: ctc(model, micro, "mean"))
    return Case(step, batch, model, numbers={"growth": 0})
