"""The names that a command line of `lrscale run` can use: groups, their choices, and the files whose keys can be set."""

from collections.abc import Iterator
from pathlib import Path

from lrscale.files import home
from lrscale.study.config import GROUPS

GROUP_DEFAULTS = {"task": "d2l", "optimizer": "sgd", "schedule": "constant"}
"""The choices that conf/config.yaml makes in the groups that are declared beside their code."""
OF_FILES = ("budget", "compute", "tracking", "sweeps", "hydra/launcher")
"""The groups whose choices are files."""
LAUNCHERS = ("basic", "joblib", "submitit_local", "submitit_slurm", "ray")


def groups() -> list[str]:
    """Returns the groups of which a command line can choose a member."""
    return [*GROUPS, *OF_FILES]


def choices_of(group: str) -> list[str]:
    """Returns the choices of a group, in alphabetical order."""
    if group in GROUPS:
        return GROUPS[group].choices()
    folders = [home() / "sweeps", Path("sweeps")] if group == "sweeps" else [home() / "conf" / group]
    names = {file.stem for folder in folders for file in folder.glob("*.yaml")}
    return sorted(names | set(LAUNCHERS if group == "hydra/launcher" else ()))


def config_files() -> Iterator[tuple[str, Path]]:
    """Yields the files that hold the keys, each with the start of its keys."""
    conf = home() / "conf"
    yield "", conf / "config.yaml"
    yield "hydra.sweeper.", conf / "hydra" / "sweeper" / "study.yaml"
    for group in ("budget", "compute", "tracking"):
        for file in sorted((conf / group).glob("*.yaml")):
            yield f"{group}.", file
