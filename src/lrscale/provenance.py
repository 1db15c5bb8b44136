"""Provenance: the versions, machine, user and commit that a record names, because numbers depend on more than the config."""

import os
from functools import cache
from pathlib import Path

from lrscale.system import processor_facts

__version__ = "0.1.0"
NUMBERS = 4
"""The version of the numbers. It is raised when equal configs start to give other numbers. Each cell's id depends on it."""
NUMBERS_DEPEND_ON = ("numbers", "torch", "numpy", "scipy", "optuna", "machine", "libc", "processor")
"""Keys of `made_by`. Where their values are equal, equal configs give equal numbers, bit for bit."""
SOURCE = ("src", "conf", "sweeps/*.yaml", "pyproject.toml")
"""The files that can change numbers. A commit is marked `with changes` where one of them differs from it."""


def made_by(device: str = "cpu") -> dict[str, str]:
    """Returns versions, platform, processor and commit by name, and the device where it is not the CPU.

    The keys `NUMBERS_DEPEND_ON` are those on which numbers depend, beside the device. The others are for information.

    Args:
      device: what `described` says of the device on which the user's own models are trained.
    """
    import platform
    from importlib.metadata import version  # takes 20 ms to import, and most callers need `__version__` only

    packages = ("torch", "numpy", "scipy", "optuna", "mlflow", "hydra-core")
    versions = {name: version(name) for name in packages}
    return {
        "lrscale": __version__,
        "numbers": str(NUMBERS),
        "python": platform.python_version(),
        **versions,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "libc": " ".join(platform.libc_ver()).strip(),
        "processor": processor(),
        "commit": commit(),
        **({} if device == "cpu" else {"device": device}),
    }


@cache
def processor() -> str:
    """Returns the processor and the instruction set that torch uses on it: `AMD EPYC, family 26, model 2, AVX512`."""
    import platform

    from torch.backends.cpu import get_cpu_capability

    facts = processor_facts()
    parts = [facts.get("model name") or platform.processor()]
    parts += [f"{name.removeprefix('cpu ')} {facts[name]}" for name in ("cpu family", "model") if name in facts]
    return ", ".join([*parts, get_cpu_capability()])


@cache
def commit() -> str:
    """Returns the commit of this checkout, or `unknown` where there is no checkout.

    ` with changes` is added where a file of `SOURCE` differs from the commit.
    """
    head = _git("rev-parse", "HEAD")
    if head is None:
        return "unknown"
    return f"{head} with changes" if _git("status", "--porcelain", "--", *SOURCE) else head


def who() -> str:
    """Returns the user and the machine: user@host."""
    import socket

    return f"{source_tags()['mlflow.user']}@{socket.gethostname()}"


def holder() -> str:
    """Returns which process this is: user@host, its id and its folder."""
    return f"{who()}, process {os.getpid()}, {os.getcwd()}"


@cache
def source_tags() -> dict[str, str]:
    """Returns MLflow's tags for user and source. MLflow's fluent API sets them; its client does not."""
    import getpass

    tags = {"mlflow.source.name": "lrscale run", "mlflow.source.type": "LOCAL"}
    try:
        tags["mlflow.user"] = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user without a name; Windows without USERNAME
        tags["mlflow.user"] = "unknown"
    head = _git("rev-parse", "HEAD")
    return tags | ({"mlflow.source.git.commit": head} if head is not None else {})


def _git(*arguments: str) -> str | None:
    """Returns the output of a git command in this checkout, or None where there is no checkout or git fails.

    It takes no lock, so that it cannot disturb what a user does in the checkout meanwhile.
    """
    import subprocess

    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    process = subprocess.run(
        ["git", "--no-optional-locks", "-C", str(root), *arguments], capture_output=True, text=True, check=False
    )
    return process.stdout.strip() if process.returncode == 0 else None
