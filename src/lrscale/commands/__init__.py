"""The command line: each command is a module. The only folder that imports argparse. Also imports all other folders."""

import argparse
import os
from collections.abc import Callable, Mapping
from typing import NamedTuple

from lrscale.errors import masked


class Command(NamedTuple):
    """A command. Its module has the name of the command, with `_` for `-`, and holds it as `COMMAND`.

    `order` is its place in the help text, and `help` is its line there. `add` adds its arguments to a parser. `run` carries
    it out; it raises Refusal for a value that cannot be used, and Failure where it cannot finish. It returns the exit status
    where that is not 0.

    `hints` says what a user means who types an option of another program, by its name without dashes: the options to take,
    or a sentence.

    `goes_on` says whether it goes on to its end where its output is closed, as by `| head`: it records what it makes.

    To start fast, the module imports heavy packages only inside `run`.
    """

    order: int
    help: str
    add: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int | None]
    goes_on: bool = False
    hints: Mapping[str, str] = {}


def add_study(parser: argparse.ArgumentParser) -> None:
    """Adds the argument for the name of a study, and the option for its store."""
    parser.add_argument("study", nargs="?", metavar="STUDY", help="name of a study (default: the latest study)")
    add_store(parser)


def add_store(parser: argparse.ArgumentParser) -> None:
    """Adds the option for the URI of the MLflow store."""
    default = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    shown = masked(default).replace("%", "%%")  # argparse reads % as the start of a name
    parser.add_argument("--tracking-uri", default=default, metavar="URI", help=f"URI of the MLflow store (default: {shown})")


def add_strict(parser: argparse.ArgumentParser) -> None:
    """Adds the option that makes claims decide the exit status."""
    parser.add_argument("--strict", action="store_true", help="exit with status 1 if a claim fails or cannot be told")
