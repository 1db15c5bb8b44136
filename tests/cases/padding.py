"""A mean over tokens counts the padding, and the padding depends on the longest sentence of the micro-batch.

Met in: tensorflow/tensorflow#26784, keras-team/keras#2546.
Right: divide the sum over tokens by the tokens that are no padding, in the whole update.
"""

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from tests.cases import IGNORED, Batch, Case, loop, net, sentences, token_loss, tokens


def unpadded(seed: int, dtype: torch.dtype) -> list[Batch]:
    """Sentences as a data set holds them, each of its own length."""
    batch = sentences(seed, dtype)
    return [{"x": x[y != IGNORED], "y": y[y != IGNORED]} for x, y in zip(batch["x"], batch["y"], strict=True)]


def pad(examples: Sequence[Batch]) -> Batch:
    """A batch of sentences, padded to the longest."""
    x, y = ([example[name] for example in examples] for name in "xy")
    return {"x": pad_sequence(x, batch_first=True), "y": pad_sequence(y, batch_first=True, padding_value=IGNORED)}


def wrong(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = unpadded(seed, dtype), net(seed, dtype, outputs=4)
    step = loop(model, lambda micro, window: token_loss(model, micro, "sum") / micro["y"].numel() / len(window))
    numbers = {"accumulation factor": 1, "weights as micro-batches": (0.5, 0.5), "weights in one batch": (9 / 36, 18 / 36)}
    return Case(step, batch, model, {"accumulation": 4, "collate": pad}, "mean of means", numbers)


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = unpadded(seed, dtype), net(seed, dtype, outputs=4)
    step = loop(model, lambda micro, window: token_loss(model, micro, "sum") / sum(map(tokens, window)))
    return Case(step, batch, model, {"accumulation": 4, "collate": pad}, numbers={"growth": 0, "accumulation factor": 1})
