"""The entries of gradients that an audit compares: all of them, or a fixed random choice of a large model's."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lrscale.errors import Refusal

ENTRIES = 2**20
"""The most entries of a gradient that are compared. Of larger models a fixed random choice is taken."""


class Entries:
    """The compared entries of some parameters.

    Args:
      parameters: the parameters that are trained.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters = list(parameters)
        self._positions = {id(parameter): i for i, parameter in enumerate(self.parameters)}
        self._chosen = _chosen([parameter.numel() for parameter in self.parameters])

    def position(self, parameter: Tensor) -> int | None:
        """Returns the number of a parameter; None where it is not one of these."""
        return self._positions.get(id(parameter))

    @property
    def are_all(self) -> bool:
        """Whether every entry is compared."""
        return all(chosen is None for chosen in self._chosen)

    def sampled(self, tensors: Sequence[Tensor | None]) -> Tensor:
        """Returns the compared entries of one whole tensor for each parameter, [entry], float64; None counts as 0."""
        return self.joined([self.sample(i, tensor) for i, tensor in enumerate(tensors)])

    def joined(self, samples: Sequence[Tensor | None]) -> Tensor:
        """Returns the samples of all parameters as one vector, [entry]; None counts as 0."""
        return torch.cat([self.sample(i, None) if sample is None else sample for i, sample in enumerate(samples)])

    def sample(self, i: int, tensor: Tensor | None) -> Tensor:
        """Returns the compared entries of a tensor that belongs to parameter i, [entry], float64; None counts as 0."""
        chosen = self._chosen[i]
        if tensor is None:
            count = self.parameters[i].numel() if chosen is None else len(chosen)
            return torch.zeros(count, dtype=torch.float64)
        flat = (tensor.to_dense() if tensor.is_sparse else tensor).detach().flatten()
        return (flat if chosen is None else flat[chosen.to(flat.device)]).to("cpu", torch.float64, copy=True)


def norm_of(tensors: Sequence[Tensor]) -> float:
    """Returns the norm of several tensors together."""
    return math.sqrt(sum(float(tensor.detach().double().square().sum()) for tensor in tensors))


def _chosen(sizes: Sequence[int]) -> list[Tensor | None]:
    """Returns the entries of each parameter that are compared, [parameter][entry]; None for all of them."""
    if sum(sizes) <= ENTRIES:
        return [None] * len(sizes)
    generator = torch.Generator().manual_seed(0)
    shares = [max(min(size, 16), size * ENTRIES // sum(sizes)) for size in sizes]
    return [
        None if share >= size else torch.randint(size, (share,), generator=generator)
        for size, share in zip(sizes, shares, strict=True)
    ]


def trained(model: Any) -> list[Tensor]:
    """Returns the parameters of a model, or the tensors of a list, that are trained.

    Raises:
      Refusal: there are none.
    """
    tensors = list(model.parameters()) if isinstance(model, nn.Module) else list(model)
    found = [t for t in tensors if isinstance(t, Tensor) and t.requires_grad]
    if not found:
        raise Refusal("`model` must be a torch.nn.Module or a list of tensors with requires_grad, got none that is trained.")
    return found
