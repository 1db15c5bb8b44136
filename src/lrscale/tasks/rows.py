"""The examples of a user's task: inputs and targets as tensors, or as tuples or dicts of tensors, or a map-style Dataset."""

import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from lrscale.errors import Refusal, said

Tree = Any
"""A tensor, or a tuple or a dict of tensors; all have the examples along the same axis."""
CPU = torch.device("cpu")
LOADED_BYTES = 2**30
"""A Dataset of at most this size, in bytes, is loaded once. Items of a larger one are read at each step."""
READ_AGAIN = 16
"""How many items are read again, to see whether they are random."""


def mapped(function: Callable[[Tensor], Tensor], tree: Tree) -> Tree:
    """Returns a tree whose tensors are those of another tree after a function."""
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, Mapping):
        return {key: mapped(function, part) for key, part in tree.items()}
    return tuple(mapped(function, part) for part in tree)


def leaves(tree: Tree) -> Iterator[Tensor]:
    """Yields the tensors of a tree; raises TypeError where it holds something else."""
    if isinstance(tree, Tensor):
        yield tree
    elif not isinstance(tree, Mapping | tuple | list):
        raise TypeError(f"no tensor: {type(tree).__name__}")
    else:
        for part in tree.values() if isinstance(tree, Mapping) else tree:
            yield from leaves(part)


class Rows:
    """Some examples, by index. Their inputs and targets are trees with the examples along the first axis.

    `to` says on which device they are given out, and in which dtype; whole numbers keep theirs. `stored` is the device on which
    their tensors are kept; where it is not the first one, examples move at each step. `is_random` says whether items are other
    ones each time that they are read.
    """

    def __init__(self, name: str, source: Any) -> None:
        """Takes the examples of a user.

        Args:
          name: `train` or `valid`, for messages.
          source: a pair of inputs and targets, or a map-style Dataset whose items are such pairs, or a list of such items.

        Raises:
          Refusal: it is neither, or the tensors do not have the same number of examples.
        """
        self.name, self.dtype, self.device, self.stored = name, torch.float32, CPU, CPU
        self.is_placed = False
        self.dataset: Sequence[Any] | None = None
        self.source: tuple[Tree, Tree] | None = None
        self.is_random = False
        is_pair = isinstance(source, tuple) or (isinstance(source, list) and len(source) <= 2)
        if isinstance(source, Dataset) or not is_pair:
            self.dataset = _checked_dataset(name, source)
            self.count = len(self.dataset)
            few = range(min(READ_AGAIN, self.count))
            first, again, other = (list(leaves(self._read(few, seed))) for seed in (0, 0, 1))
            if not all(map(torch.equal, first, again)):
                raise Refusal(
                    f"`{name}` must have items that are the same for the same seed of torch, got others. "
                    "Draw with torch's functions in place of those of numpy or random."
                )
            self.is_random = not all(map(torch.equal, first, other))
            if not self.is_random and self.count * sum(tensor.nbytes for tensor in first) <= LOADED_BYTES * len(few):
                self.source, self.dataset = self._read(range(self.count)), None
        else:
            self.source = _checked_pair(name, source)
            self.count = len(next(leaves(self.source[0])))
        self.x: Tree
        self.y: Tree
        self.x, self.y = self.source or (None, None)

    def __len__(self) -> int:
        return self.count

    def to(self, dtype: torch.dtype, device: torch.device = CPU, room: float = math.inf) -> None:
        """Gives floating-point inputs and targets a dtype, and puts all on a device: once, where they fit there.

        Args:
          dtype: the dtype.
          device: the device.
          room: how many bytes they may take on it. What takes more stays on the CPU, and so does what a Dataset reads.
        """
        if self.is_placed and (dtype, device) == (self.dtype, self.device):
            return
        self.is_placed, self.dtype, self.device, self.stored = True, dtype, device, CPU
        if self.source is None:
            return
        self.x, self.y = (mapped(self._cast, tree) for tree in self.source)
        if sum(tensor.nbytes for tensor in (*leaves(self.x), *leaves(self.y))) <= room:
            self.x, self.y, self.stored = self._moved(self.x), self._moved(self.y), device

    def take(self, indices: Tensor, seed: int = 0) -> tuple[Tree, Tree]:
        """Returns the inputs and the targets of some examples.

        Args:
          indices: their indices, of any shape.
          seed: the seed of torch's generator while random items are read; it is the same after the call.

        Returns:
          Trees of tensors [*shape of the indices, ...], on the device.
        """
        if self.dataset is None:
            flat = indices.flatten().to(self.stored)
            x, y = (mapped(lambda t: t.index_select(0, flat), tree) for tree in (self.x, self.y))
        else:
            x, y = (mapped(self._cast, tree) for tree in self._read(indices.flatten().tolist(), seed))
        if self.stored != self.device:
            x, y = self._moved(x), self._moved(y)
        shape = indices.shape
        return mapped(lambda t: t.unflatten(0, shape), x), mapped(lambda t: t.unflatten(0, shape), y)

    def _read(self, indices: Sequence[int], seed: int = 0) -> tuple[Tree, Tree]:
        """Reads items of the Dataset, and puts them together as torch's DataLoader does.

        Raises:
          Refusal: they cannot be put together to tensors.
        """
        assert self.dataset is not None
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                x, y = default_collate([self.dataset[i] for i in indices])
            _ = [*leaves(x), *leaves(y)]
        except Exception as error:
            raise Refusal(
                f"`{self.name}` must have items that torch's default_collate puts together to tensors, "
                f"got {said(error)}. Let items be tensors or numbers of one shape."
            ) from error
        return x, y

    def _cast(self, tensor: Tensor) -> Tensor:
        return tensor.to(CPU, self.dtype) if tensor.is_floating_point() else tensor.to(CPU)

    def _moved(self, tree: Tree) -> Tree:
        return mapped(lambda tensor: tensor.to(self.device), tree)


def _checked_pair(name: str, source: Sequence[Any]) -> tuple[Tree, Tree]:
    """Returns inputs and targets; raises Refusal unless all their tensors have the same number of examples."""
    if len(source) != 2:
        raise Refusal(
            f"`{name}` must be a pair (inputs, targets), or a Dataset or a list of such pairs, got {len(source)} parts."
        )
    try:
        tensors = [*leaves(source[0]), *leaves(source[1])]
    except TypeError:
        tensors = []
    if not tensors or any(tensor.ndim == 0 for tensor in tensors):
        raise Refusal(
            f"`{name}` must hold tensors, or tuples or dicts of tensors, with examples along the first axis, "
            f"got {type(source[0]).__name__} and {type(source[1]).__name__}. Make tensors with torch.as_tensor."
        )
    counts = sorted({len(tensor) for tensor in tensors})
    if len(counts) > 1 or counts[0] < 1:
        raise Refusal(f"`{name}` must have the same number of examples in each tensor, at least 1, got {counts}.")
    return source[0], source[1]


def _checked_dataset(name: str, source: Any) -> Sequence[Any]:
    """Returns a Dataset; raises Refusal unless it is of the map style, with items that are pairs."""
    if not (hasattr(source, "__getitem__") and hasattr(source, "__len__")) or operator.length_hint(source) < 1:
        raise Refusal(
            f"`{name}` must be a pair (inputs, targets) or a map-style Dataset that is not empty, got {type(source).__name__}. "
            "An iterable dataset has no examples to choose from: make a list of its items, and a DataLoader has a .dataset."
        )
    item = source[0]
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise Refusal(f"`{name}` must have items that are pairs (input, target), got {type(item).__name__}.")
    sequence: Sequence[Any] = source
    return sequence
