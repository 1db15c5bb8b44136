"""The largest eigenvalue of many symmetric matrices at once, from products with vectors alone."""

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]
"""An array of float64."""
Product = Callable[[Tensor], Tensor]
"""A function that multiplies the vector of each run by the symmetric matrix of that run, [run, weight] to [run, weight]."""
RESIDUAL = 1e-3
"""|H v - lam v|/lam at which a run's eigenvalue is taken. The error of lam is about its square: 1e-6, float32's own."""
ASYMMETRY = 1e-3
"""|v.H u - u.H v|/|H v| of unit vectors at which a matrix is not symmetric. Rounding in float32 makes about 1e-6."""


def largest_eigenvalues(product: Product, first: Tensor, iterations: int) -> Array:
    """Returns the largest eigenvalue of each run's symmetric matrix, by Lanczos with full reorthogonalisation, [run].

    Lanczos makes an orthonormal basis of v, H v, H^2 v, ..., in which H is a tridiagonal matrix. A run is ready when the
    largest eigenvalue of this matrix has a residual of RESIDUAL, or when the basis holds all that H can reach from v.

    Args:
      product: multiplies the vector of each run by its matrix.
      first: the first vector of each run, [run, weight], float64.
      iterations: the largest number of products.

    Returns:
      The eigenvalues. They are nan for a run that is not finite, or not ready after the iterations, or whose products are not
      those of a symmetric matrix: autograd's second derivatives are wrong for some functions of torch, such as weight norm.

    Source:
      Golub and Van Loan, Matrix Computations, chapter 10.

    Example:
      >>> diagonals = torch.tensor([[5.0, 1.0, -9.0], [2.0, 2.0, 2.0]], dtype=torch.float64)
      >>> largest_eigenvalues(lambda v: diagonals * v, torch.ones(2, 3, dtype=torch.float64), 10).round(9).tolist()
      [5.0, 2.0]
    """
    runs = len(first)
    largest, is_open = np.full(runs, math.nan), np.full(runs, True)
    basis: list[Tensor] = []
    diagonal: list[Tensor] = []
    beside: list[Tensor] = []
    vector = first / first.norm(dim=1, keepdim=True)
    for _ in range(min(iterations, first.shape[1])):
        basis.append(vector)
        after = product(vector)
        diagonal.append((after * vector).sum(1))
        if beside:  # v.H u of the last two vectors, and u.H v
            difference = ((after * basis[-2]).sum(1) - beside[-1]).abs()
            is_open &= (difference <= ASYMMETRY * after.norm(dim=1)).numpy()
        for _ in range(2):  # once leaves rounding errors, and twice is enough
            for known in basis:
                after = after - (after * known).sum(1, keepdim=True) * known
        length = after.norm(dim=1)
        values, residuals = _ritz(diagonal, beside, length)
        is_full = len(basis) == first.shape[1]
        is_ready = is_open & np.isfinite(values) & ((residuals <= RESIDUAL * np.abs(values)) | is_full)
        largest[is_ready] = values[is_ready]
        is_open &= ~is_ready & np.isfinite(values)
        if not is_open.any():
            break
        beside.append(length)
        vector = after / length.clamp(min=torch.finfo(torch.float64).tiny).unsqueeze(1)
    return largest


def _ritz(diagonal: list[Tensor], beside: list[Tensor], length: Tensor) -> tuple[Array, Array]:
    """Returns the largest eigenvalue of the tridiagonal matrices, and its residual, [run] each; nan where not finite."""
    size = len(diagonal)
    matrices = torch.diag_embed(torch.stack(diagonal, 1))
    if beside:
        above = torch.diag_embed(torch.stack(beside, 1), 1)
        matrices = matrices + above + above.mT
    is_finite = matrices.isfinite().flatten(1).all(1) & length.isfinite()
    values, vectors = torch.linalg.eigh(torch.where(is_finite.view(-1, 1, 1), matrices, 0.0))
    residuals = (length * vectors[:, size - 1, -1]).abs()
    pair = (torch.where(is_finite, tensor, math.nan).numpy() for tensor in (values[:, -1], residuals))
    largest, residual = pair
    return largest, residual
