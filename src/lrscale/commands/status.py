"""`lrscale status`: shows the progress of a study in another terminal."""

import argparse

from lrscale.commands import Command, add_study


def _add(parser: argparse.ArgumentParser) -> None:
    add_study(parser)
    follow = "show it again every 2 s until the study ends"
    parser.add_argument("--watch", "--follow", "-f", dest="watch", action="store_true", help=follow)


def _run(options: argparse.Namespace) -> None:
    from lrscale.run.status import print_status

    print_status(options.study, options.tracking_uri, options.watch)


COMMAND = Command(5, "show the progress of a study in another terminal", _add, _run)
