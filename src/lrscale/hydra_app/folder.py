"""Keeps a folder and a log of a run as users of Hydra know them, where they ask for it. By default MLflow holds all records."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra.core.hydra_config import HydraConfig

from lrscale.files import start_in


def logging_overrides(arguments: Sequence[str], multirun: bool) -> list[str]:
    """Returns the overrides that make Hydra write what a command line asks for.

    `hydra.run.dir=FOLDER`, in a study `hydra.sweep.dir=FOLDER`, asks for `.hydra/` and for lrscale.log there, and in a study
    for a folder for each job. `hydra.verbose=true` asks for messages of lrscale and Hydra on the standard error, details
    included. Where the command line itself says what to log or to write, that holds.
    """
    given = dict(argument.lstrip("+").partition("=")[::2] for argument in arguments)
    has_folder = ("hydra.sweep.dir" if multirun else "hydra.run.dir") in given
    verbose = given.get("hydra.verbose", "false").lower() not in ("false", "null", "off", "no", "0", "")
    handlers = [name for name, asked in (("file", has_folder), ("console", verbose)) if asked]
    asked = {"hydra.output_subdir": ".hydra"} if has_folder else {}
    if has_folder and not multirun:
        asked["+hydra.callbacks.lrscale._target_"] = "lrscale.hydra_app.app.CheckFirst"
    if has_folder and multirun:
        asked["hydra.sweep.subdir"] = "${hydra.job.num}"
    for kind in ("job_logging", "hydra_logging"):
        if handlers and f"hydra/{kind}" not in given:
            asked[f"hydra/{kind}"] = "lrscale"
            for logger in ("lrscale", "hydra"):
                too_early = ["file"] if (kind, logger) == ("hydra_logging", "hydra") else []  # before a study's folder is there
                names = ",".join(name for name in handlers if name not in too_early)
                asked[f"hydra.{kind}.loggers.{logger}.handlers"] = f"[{names}]"
                asked[f"hydra.{kind}.loggers.{logger}.level"] = "DEBUG" if verbose else "INFO"
    return [f"{key}={value}" for key, value in asked.items() if key not in given]


@contextmanager
def paths_from_start() -> Iterator[None]:
    """Makes relative paths name files of the folder in which the command was typed, where `hydra.job.chdir` is true."""
    with start_in(Path(HydraConfig.get().runtime.cwd)):
        yield
