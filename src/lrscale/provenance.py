"""Who ran what, from where and with which versions: what numbers depend on besides the config."""

import getpass
import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

from lrscale import NUMBERS, __version__


def made_by() -> dict[str, str]:
    """Versions, platform and commit: what equal numbers depend on besides the config."""
    packages = ("torch", "numpy", "optuna", "mlflow", "hydra-core")
    versions = {name: version(name) for name in packages}
    return {
        "lrscale": __version__,
        "numbers": str(NUMBERS),
        "python": platform.python_version(),
        **versions,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "commit": source_tags().get("mlflow.source.git.commit", "unknown"),
    }


@cache
def source_tags() -> dict[str, str]:
    """Who ran what from where: the tags that MLflow's fluent API sets and its client does not."""
    tags = {"mlflow.source.name": "lrscale run", "mlflow.source.type": "LOCAL"}
    try:
        tags["mlflow.user"] = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        tags["mlflow.user"] = "unknown"
    here = Path(__file__).parent
    asked = (
        subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
        if (here.parents[1] / ".git").exists()
        else None
    )
    if asked is not None and asked.returncode == 0:
        tags["mlflow.source.git.commit"] = asked.stdout.strip()
    return tags
