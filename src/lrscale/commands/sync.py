"""`lrscale sync`: delivers the records that wait on disk for a tracking server."""

import argparse
from pathlib import Path

from lrscale.commands import Command
from lrscale.errors import printable


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", default=".", metavar="FOLDER", help="where Optuna's journal lies (default: .)")


def _run(options: argparse.Namespace) -> None:
    from lrscale.tracking.store import sync

    for outbox, count, study in sync(Path(options.folder)):
        print(printable(f"{outbox.path.name}: {count} records of {study} delivered."))


COMMAND = Command(7, "deliver the records that wait on disk for a tracking server that was away", _add, _run)
