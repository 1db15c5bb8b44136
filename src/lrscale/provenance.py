"""Provenance: versions, machine, user and commit, on which numbers depend besides the config."""

import re
from functools import cache
from pathlib import Path

__version__ = "0.1.0"
NUMBERS = 3
"""Bumped whenever equal configs start to give other numbers; part of every cell's identity."""
NUMBERS_DEPEND_ON = ("numbers", "torch", "numpy", "scipy", "optuna", "machine", "libc", "processor")
"""Where these are equal, equal configs give equal numbers, bit for bit."""
SOURCE = ("src", "conf", "sweeps/*.yaml", "pyproject.toml")
"""Files whose changes since the commit can change numbers."""


def made_by() -> dict[str, str]:
    """Returns versions, platform, processor and commit by name: what numbers depend on, and some more for orientation."""
    import platform
    from importlib.metadata import version  # 20 ms to import: the version alone is asked for more often

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
    }


@cache
def processor() -> str:
    """Returns the processor and the instructions that torch uses on it, as in `AMD EPYC, family 26, model 2, AVX512`."""
    import platform

    from torch.backends.cpu import get_cpu_capability

    try:
        first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    except OSError:  # not Linux
        first = ""
    facts = dict(re.findall(r"^([\w ]+?)\s*:\s*(.*)$", first, re.M))
    parts = [facts.get("model name") or platform.processor()]
    parts += [f"{name.removeprefix('cpu ')} {facts[name]}" for name in ("cpu family", "model") if name in facts]
    return ", ".join([*parts, get_cpu_capability()])


@cache
def commit() -> str:
    """Returns the commit of this checkout, `with changes` if files differ from it, or `unknown` without a checkout."""
    found = _git("rev-parse", "HEAD")
    if found is None:
        return "unknown"
    return f"{found} with changes" if _git("status", "--porcelain", "--", *SOURCE) else found


@cache
def source_tags() -> dict[str, str]:
    """Returns the tags on user and source that MLflow's fluent API sets and its client does not."""
    import getpass

    tags = {"mlflow.source.name": "lrscale run", "mlflow.source.type": "LOCAL"}
    try:
        tags["mlflow.user"] = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        tags["mlflow.user"] = "unknown"
    found = _git("rev-parse", "HEAD")
    return tags | ({"mlflow.source.git.commit": found} if found is not None else {})


def _git(*arguments: str) -> str | None:
    """Returns the output of a git command in this checkout; None without a checkout or where git fails."""
    import subprocess

    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    asked = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    return asked.stdout.strip() if asked.returncode == 0 else None
