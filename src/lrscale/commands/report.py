"""`lrscale report`: prints the answer of a study again, at any later time."""

import argparse

from lrscale.commands import Command, add_strict, add_study


def _add(parser: argparse.ArgumentParser) -> None:
    add_study(parser)
    add_strict(parser)
    parser.add_argument("--verbose", action="store_true", help="as text, print all rows of all tables")
    parser.add_argument("--format", choices=["text", "json", "html"], default="text", help="form of the answer (default: text)")


def _run(options: argparse.Namespace) -> None:
    from lrscale.run.reporting import print_report

    print_report(options.study, options.tracking_uri, options.format, options.strict, options.verbose)


COMMAND = Command(2, "print the answer of a study again, as text, JSON, or HTML with figures", _add, _run)
