"""The device on which the user's own models are trained: which one, what it is called, and how much memory it has.

The tasks that come with lrscale are trained on the CPU, whatever is asked: their tensors are too small for another device.
The order of the examples and the initial weights are always drawn on the CPU, so runs on another device are the same up to
rounding. Dropout's masks are drawn on the device, and are other masks there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lrscale.errors import Refusal
from lrscale.spec import is_own

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda", "mps")
"""What can be asked for. `auto` takes cuda if it is there, else mps, else the CPU."""
SHARE = 0.8
"""The share of a device's free memory that runs may use. The rest is for what is not counted, such as workspaces."""


def chosen(asked: str, configs: Sequence[Mapping[str, Any]]) -> str:
    """Returns the device on which the tasks of the user's own are trained: `cpu`, `cuda` or `mps`.

    Args:
      asked: one of `DEVICES`.
      configs: the configs that are to be trained.

    Raises:
      Refusal: the device is not there, or cannot train these configs.
    """
    if asked == "cpu":
        return asked
    own = [config for config in configs if is_own(config["task"]["name"])]
    is_wide = any(config["dtype"] == "float64" for config in own)
    found = _found()
    if asked == "auto":
        return next((name for name in found if own and not (name == "mps" and is_wide)), "cpu")
    if asked not in found:
        raise Refusal(
            f"`compute.device` must be a device that torch finds here, got {asked}. Found: {', '.join([*found, 'cpu'])}. "
            "Take compute.device=auto (lrscale reproduce: --device auto), or install a torch that is built for the device."
        )
    if not own:
        raise Refusal(
            f"`compute.device` must be cpu or auto for a task that comes with lrscale, got {asked}: such tasks are small and "
            "are trained on the CPU. Leave it out, or take a task of your own: lrscale new-task NAME."
        )
    if asked == "mps" and is_wide:
        raise Refusal("`dtype` float64 cannot be trained on the device mps, which has no such numbers. Take dtype=float32.")
    return asked


def _found() -> list[str]:
    """Returns the devices other than the CPU that are here, the first choice first."""
    import torch

    is_here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return [name for name, found in is_here.items() if found]


def described(device: str, tf32: bool = False) -> str:
    """Returns what a record says of a device: `cpu`, or `cuda: NVIDIA H100`, with TF32 where this was asked for."""
    if device == "cuda":
        import torch

        return f"cuda: {torch.cuda.get_device_name()}{', TF32' if tf32 else ''}"
    return device


def free_bytes(device: torch.device) -> float:
    """Returns how much memory of a device is free for tensors, in bytes; infinity where torch does not say it, as for a CPU."""
    import torch

    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    return math.inf


def widest(device: torch.device) -> torch.dtype:
    """Returns the dtype in which sums are taken on a device: float64, or float32 on mps."""
    import torch

    return torch.float32 if device.type == "mps" else torch.float64


def wait_for(device: torch.device) -> None:
    """Waits until a device has done what it was given, so that its time can be taken. The CPU does all things at once."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    if device.type == "mps":
        torch.mps.synchronize()


def seed_generators(device: torch.device, seed: int) -> None:
    """Seeds torch's own generators for draws on a device and on the CPU."""
    import torch

    _ = torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    if device.type == "mps":
        torch.mps.manual_seed(seed)


@contextmanager
def own_settings(device: torch.device, tf32: bool = False) -> Iterator[None]:
    """Inside this context, torch's generators may be seeded, and cuda multiplies without TF32 unless it is asked for.

    Afterwards, all is as before.
    """
    import torch

    forked = {"cuda": lambda: [torch.cuda.current_device()], "mps": lambda: [0]}.get(device.type, list)()
    kind = "mps" if device.type == "mps" else "cuda"
    with torch.random.fork_rng(devices=forked, device_type=kind), _products(tf32 if device.type == "cuda" else None):
        yield


@contextmanager
def _products(tf32: bool | None) -> Iterator[None]:
    """Inside this context, cuda multiplies with TF32 or without it; None changes nothing."""
    if tf32 is None:
        yield
        return
    import torch

    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
