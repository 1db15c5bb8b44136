"""`lrscale run`: one training, or with -m a study. What follows `run` on the command line is Hydra's."""

import argparse

from lrscale.commands import Command


def _add(parser: argparse.ArgumentParser) -> None:
    """Adds nothing: Hydra reads the arguments."""


def _run(options: argparse.Namespace) -> None:
    from lrscale.hydra_app.app import run_app

    run_app(options.arguments)


COMMAND = Command(1, "train once, or with -m sweep (a Hydra app: lrscale run --help)", _add, _run)
