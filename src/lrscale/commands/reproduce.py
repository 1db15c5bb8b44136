"""`lrscale reproduce`: runs a study again and compares the numbers."""

import argparse
from pathlib import Path

from lrscale.commands import Command, add_store, add_strict
from lrscale.training.device import DEVICES


def _add(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group()
    source.add_argument("study", nargs="?", metavar="STUDY", help="name of a published study; without it, all are listed")
    source.add_argument(
        "--from", dest="run_id", metavar="RUN_ID", help="id of an MLflow run: of a study, a trial or a single training"
    )
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="FILE",
        help="a Python file that the study runs, such as the task that it trains; its sha256 must be the recorded one",
    )
    parser.add_argument(
        "--device",
        choices=DEVICES,
        metavar="DEVICE",
        help="where a model of your own is trained: auto, cpu, cuda or mps; without it, the recorded device",
    )
    add_strict(parser)
    add_store(parser)


def _run(options: argparse.Namespace) -> None:
    if options.study is None and options.run_id is None:
        from lrscale.published.side_by_side import list_published

        list_published()
        return
    from lrscale.published.reproduce import reproduce, reproduce_from

    trusted = [_here_or_shipped(Path(file)) for file in options.trust]
    if options.run_id is None:
        reproduce(options.study, options.strict, trusted, options.device)
    else:
        reproduce_from(options.run_id, options.tracking_uri, options.strict, trusted, options.device)


def _here_or_shipped(file: Path) -> Path:
    """Returns the path of a file that the user trusts; where there is none, of one of this name that comes with lrscale."""
    from lrscale.files import home

    return file if file.exists() or not (home() / file).is_file() else home() / file


COMMAND = Command(4, "run a published study again and compare all its numbers", _add, _run, goes_on=True)
