"""`lrscale run`: runs one training, or with -m a study. Hydra parses the arguments after `run`."""

import argparse
import gc

from lrscale.commands import Command
from lrscale.run.doing import doing


def _add(parser: argparse.ArgumentParser) -> None:
    """Adds no arguments: Hydra parses them."""


def _run(options: argparse.Namespace) -> None:
    gc.disable()  # until all is imported: to look for garbage among what stays alive takes a fifth of the start
    try:
        with doing("importing hydra"):
            from lrscale.hydra_app.app import run_app
        run_app(options.arguments)
    finally:
        gc.enable()


COMMAND = Command(1, "run one training, or with -m a study (a Hydra app: lrscale run --help)", _add, _run, goes_on=True)
