"""The command line: one module a command. Imports everything below."""

import argparse
import os
from collections.abc import Callable
from typing import NamedTuple


class Command(NamedTuple):
    """A command, which its module holds as `COMMAND`; the module's name is the command's.

    Start-up counts: a command's module imports what is heavy in `run`, when the command is called.

    `order`: its place in the help text. `help`: a line. `add`: adds its arguments to a parser. `run`: carries it out;
    what it refuses it raises as Refusal, what fails on the way as Failure.
    """

    order: int
    help: str
    add: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


def add_study(parser: argparse.ArgumentParser) -> None:
    """Adds the name of a study, and the store that holds it."""
    parser.add_argument("study", nargs="?", metavar="STUDY", help="name of a study; the latest one if left out")
    add_store(parser)


def add_store(parser: argparse.ArgumentParser) -> None:
    """Adds the option that names MLflow's store."""
    default = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    parser.add_argument("--tracking-uri", default=default, metavar="URI", help=f"MLflow's store (default: {default})")
