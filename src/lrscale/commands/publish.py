"""`lrscale publish`: writes the files of a study that others can reproduce."""

import argparse

from lrscale.commands import Command, add_study


def _add(parser: argparse.ArgumentParser) -> None:
    add_study(parser)


def _run(options: argparse.Namespace) -> None:
    from lrscale.published.files import publish

    publish(options.study, options.tracking_uri)


COMMAND = Command(3, "write what MLflow holds of a study to sweeps/results/ of the working folder", _add, _run)
