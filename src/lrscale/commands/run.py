"""`lrscale run`: runs one training, or with -m a study. Hydra parses the arguments after `run`."""

import argparse

from lrscale.commands import Command


def _add(parser: argparse.ArgumentParser) -> None:
    """Adds no arguments: Hydra parses them."""


def _run(options: argparse.Namespace) -> None:
    from lrscale.hydra_app.app import run_app

    run_app(options.arguments)


COMMAND = Command(1, "run one training, or with -m a study (a Hydra app: lrscale run --help)", _add, _run, goes_on=True)
