"""Batches that are composed of the examples of one batch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lrscale.errors import Refusal

FEWEST = 4
"""The fewest examples that an audit can compare."""
MOST = 6
"""The number of examples that an audit takes."""


class Examples:
    """The examples of a batch.

    Args:
      batch: tensors, or tuples, lists, mappings or dataclasses of such, with examples along the first axis; with `collate`
        a sequence of examples.
      collate: makes a batch of a list of examples, as in a DataLoader.

    Raises:
      Refusal: there are fewer than four examples.
    """

    def __init__(self, batch: Any, collate: Callable[[list[Any]], Any] | None = None) -> None:
        self.batch, self.collate = batch, collate
        self.count = len(batch) if collate else _length(batch)
        if self.count < FEWEST:
            is_empty = collate is None and not any(tensors_of(batch))
            got = f"{type(batch).__name__}, in which no tensor was found" if is_empty else self.count
            raise Refusal(
                f"`batch` must have {FEWEST} examples or more, got {got}. Give tensors with the examples along the first "
                "axis, or a list of examples and collate=."
            )

    def make(self, indices: Sequence[int], dtype: torch.dtype | None = None) -> Any:
        """Returns a batch of some examples. An index may come more than once.

        Args:
          indices: numbers of examples.
          dtype: the dtype of floating-point tensors; None for the one they have.
        """
        batch = self.collate([self.batch[i] for i in indices]) if self.collate else _take(self.batch, list(indices), self.count)
        return batch if dtype is None else _cast(batch, dtype)


def tensors_of(batch: Any, name: str = "batch") -> Iterator[tuple[str, Tensor]]:
    """Yields the tensors of a batch with their names, as in `batch["x"]`."""
    if isinstance(batch, np.ndarray):
        batch = torch.as_tensor(batch)
    if isinstance(batch, Tensor):
        yield name, batch
        return
    for key, part in _parts(batch):
        yield from tensors_of(part, f"{name}[{key!r}]")


def _parts(batch: Any) -> list[tuple[Any, Any]]:
    """Returns the parts of a tuple, list, mapping or dataclass with their keys."""
    if isinstance(batch, Mapping):
        return list(batch.items())
    if isinstance(batch, list | tuple):
        return list(enumerate(batch))
    if is_dataclass(batch) and not isinstance(batch, type):
        return [(field.name, getattr(batch, field.name)) for field in fields(batch)]
    return []


def _rebuilt(batch: Any, parts: Sequence[Any]) -> Any:
    """Returns a tuple, list, mapping or dataclass of the same type with other parts."""
    keys = [key for key, _ in _parts(batch)]
    if isinstance(batch, Mapping):
        kind: Callable[[dict[Any, Any]], Any] = type(batch)  # a dict, or what takes one, as transformers' BatchEncoding
        return kind(dict(zip(keys, parts, strict=True)))
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*parts)
    if isinstance(batch, list | tuple):
        return type(batch)(parts)
    return replace(batch, **dict(zip(keys, parts, strict=True)))


def _length(batch: Any) -> int:
    """Returns the number of examples: the length of the first tensor that has axes."""
    return next((len(tensor) for _, tensor in tensors_of(batch) if tensor.ndim), 0)


def _take(batch: Any, indices: list[int], count: int) -> Any:
    """Returns the examples with these numbers. What has another length than the batch stays as it is."""
    if isinstance(batch, Tensor | np.ndarray):
        return batch[indices] if batch.ndim and len(batch) == count else batch
    if isinstance(batch, list) and len(batch) == count and not all(_is_column(part, count) for part in batch):
        return [batch[i] for i in indices]
    if not _parts(batch):
        return batch
    return _rebuilt(batch, [_take(part, indices, count) for _, part in _parts(batch)])


def _is_column(part: Any, count: int) -> bool:
    """Returns whether a part of a list holds all examples along its first axis, and is not one example."""
    return isinstance(part, Tensor | np.ndarray) and part.ndim > 0 and len(part) == count


def _cast(batch: Any, dtype: torch.dtype) -> Any:
    if isinstance(batch, Tensor):
        return batch.to(dtype) if batch.is_floating_point() else batch
    if not _parts(batch):
        return batch
    return _rebuilt(batch, [_cast(part, dtype) for _, part in _parts(batch)])
