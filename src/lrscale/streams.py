"""Named streams of random numbers. Each name has its own generator, so a new stream does not change the others."""

import hashlib
import json

import torch


def generator(*name: str | int) -> torch.Generator:
    """Returns a new generator whose draws depend on its name only.

    Args:
      *name: what the numbers are for, then the seed and the epoch where they matter, as in `("order", seed, epoch)`.

    Returns:
      A CPU generator; the same name gives the same draws in every process.

    Example:
      >>> a, b = generator("order", 0, 1), generator("order", 0, 1)
      >>> bool((torch.randperm(5, generator=a) == torch.randperm(5, generator=b)).all())
      True
    """
    digest = hashlib.sha256(json.dumps(name).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
