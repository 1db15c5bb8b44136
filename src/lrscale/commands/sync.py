"""`lrscale sync`: delivers records that wait on disk, because a server was unreachable or a study was stopped."""

import argparse
from pathlib import Path

from lrscale.commands import Command
from lrscale.errors import printable


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", default=".", metavar="FOLDER", help="the folder of Optuna's journal (default: .)")
    parser.add_argument(
        "--set-aside", action="store_true", help="deliver nothing, but set the records aside: the server has lost their study"
    )


def _run(options: argparse.Namespace) -> None:
    from lrscale.tracking.sync import set_aside, sync

    folder = Path(options.folder)
    if options.set_aside:
        for path, count, study in set_aside(folder):
            print(printable(f"{count} records of {study} set aside in {path}. The command of the study records again."))
        return
    for outbox, count, study in sync(folder):
        print(printable(f"{outbox.path.name}: {count} records of {study} delivered."))


COMMAND = Command(7, "deliver records that wait on disk: a server was away, or a study was stopped", _add, _run)
