"""`lrscale sync`: delivers records to a tracking server that was unreachable. Until then they wait on disk."""

import argparse
from pathlib import Path

from lrscale.commands import Command
from lrscale.errors import printable


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", default=".", metavar="FOLDER", help="the folder of Optuna's journal (default: .)")


def _run(options: argparse.Namespace) -> None:
    from lrscale.tracking.sync import sync

    for outbox, count, study in sync(Path(options.folder)):
        print(printable(f"{outbox.path.name}: {count} records of {study} delivered."))


COMMAND = Command(7, "deliver records that wait on disk because a tracking server was unreachable", _add, _run)
