"""`lrscale reproduce`: runs a study again and compares its numbers."""

import argparse

from lrscale.commands import Command, add_store


def _add(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("study", nargs="?", metavar="STUDY", help="name of a published study")
    what.add_argument("--from", dest="run_id", metavar="RUN_ID", help="run of a study, a trial or a single training in MLflow")
    add_store(parser)


def _run(options: argparse.Namespace) -> None:
    from lrscale.published.reproduce import reproduce, reproduce_from

    if options.run_id is None:
        reproduce(options.study)
    else:
        reproduce_from(options.run_id, options.tracking_uri)


COMMAND = Command(4, "run a published study again and compare number by number", _add, _run)
