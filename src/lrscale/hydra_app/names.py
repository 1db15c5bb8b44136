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
    folders = sweep_file_folders() if group == "sweeps" else [home() / "conf" / group]
    names = {file.stem for folder in folders for file in folder.glob("*.yaml") if file.is_file()}
    return sorted(names | set(LAUNCHERS if group == "hydra/launcher" else ()))


def sweep_file_folders() -> list[Path]:
    """Returns the folders of the sweep files: those that come with lrscale, and the user's own."""
    return [home() / "sweeps", Path("sweeps")]


def sweep_name(typed: str) -> str:
    """Returns the name of a sweep that is typed as the path of its file, as in sweeps=sweeps/mine.yaml.

    Example:
      >>> sweep_name("./sweeps/mine.yaml"), sweep_name("more/mine"), sweep_name("mine.yml")
      ('mine', 'more/mine', 'mine.yml')
    """
    return typed.removeprefix("./").removeprefix("sweeps/").removesuffix(".yaml")


def misnamed_sweep(name: str) -> str:
    """Returns what to say where the file of a sweep has another name than `sweeps/NAME.yaml`; empty where there is none."""
    path, stem = Path(name), Path(name).stem
    for folder in (folder / path.parent for folder in sweep_file_folders()):
        for found in sorted(folder.glob("*")) if folder.is_dir() else ():
            is_misnamed = found.suffix.lower() in (".yml", ".yaml", "") and found.stem.lower() in (
                stem.lower(),
                path.name.lower(),
            )
            if is_misnamed and found.is_dir():
                inner = sorted(str(file.relative_to(folder).with_suffix("")) for file in found.glob("*.yaml"))
                return f"{found} is a folder" + (
                    f". Take sweeps={' or sweeps='.join(inner[:3])}." if inner else ", and no sweep file."
                )
            if is_misnamed and found.is_file() and found.name != f"{stem}.yaml":
                return f"{found} must be named {stem}.yaml: rename it."
    return ""


def config_files() -> Iterator[tuple[str, Path]]:
    """Yields the files that hold the keys, each with the start of its keys."""
    conf = home() / "conf"
    yield "", conf / "config.yaml"
    yield "hydra.sweeper.", conf / "hydra" / "sweeper" / "study.yaml"
    for group in ("budget", "compute", "tracking"):
        for file in sorted((conf / group).glob("*.yaml")):
            yield f"{group}.", file
