"""`lrscale publish`: writes the files of a study, so that others can reproduce it."""

import argparse

from lrscale.commands import Command, add_study


def _add(parser: argparse.ArgumentParser) -> None:
    add_study(parser)


def _run(options: argparse.Namespace) -> None:
    from lrscale.published.files import publish

    publish(options.study, options.tracking_uri)


COMMAND = Command(3, "write the numbers of a study to sweeps/results/ in the working folder", _add, _run)
