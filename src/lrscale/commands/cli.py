"""The program `lrscale`: finds the commands, parses what is typed, and turns refusals and failures into exit statuses."""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from lrscale.commands import Command
from lrscale.errors import Failure, Refusal, printable
from lrscale.provenance import __version__
from lrscale.signals import ignore_signals, stoppable

DESCRIPTION = "How must the learning rate scale with batch size when gradients are summed instead of averaged?"
EXAMPLES = """\
examples:
  lrscale run optimizer.lr=0.03 batch_size=10 reduction=sum    one training
  lrscale run -m sweeps=quickstart                             a study, with the answer at its end
  lrscale report quickstart                                    the answer again, from what MLflow holds
  lrscale reproduce quickstart                                 a published study run again, compared number by number
  lrscale status --watch                                       how far it is, from another terminal
  lrscale ui                                                   MLflow's UI, at the latest study's summary
  lrscale translate --lr 0.1 --to-reduction sum                a tuned lr under another reduction or batch size
"""


def find_commands() -> dict[str, Command]:
    """Returns the commands by name, in the order of the help text: one for each module of this folder but this one."""
    names = [file.stem for file in Path(__file__).parent.glob("[a-z]*.py") if file.stem != "cli"]
    return dict(sorted(((name, find_command(name)) for name in names), key=lambda pair: pair[1].order))


def find_command(name: str) -> Command:
    """Returns the command of a module of this folder."""
    command: Command = import_module(f"lrscale.commands.{name}").COMMAND
    return command


def make_parser() -> argparse.ArgumentParser:
    """Makes the parser of everything but what follows `run`, which is Hydra's."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("lrscale", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"lrscale {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in find_commands().items():
        command.add(subparsers.add_parser(name, help=command.help, add_help=name != "run"))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status: 0 done, 1 failed, 2 refused, 130 stopped."""
    for stream in (sys.stdout, sys.stderr):
        if arguments is None and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal may lack letters of a study's name
    try:
        return _status(list(sys.argv[1:] if arguments is None else arguments))
    finally:
        if arguments is None:  # the program ends now
            ignore_signals()


def _status(given: list[str]) -> int:
    try:
        with stoppable():
            return _dispatch(given)
    except Refusal as refusal:
        print(f"lrscale: {refusal}", file=sys.stderr)
        return 2
    except Failure as failure:
        print(f"lrscale: {failure}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # as in `lrscale report | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f"{error.filename} could not be read or written: " if error.filename else ""
        text = f"{where}{error.strerror or error}. Once that is mended, the same command goes on."
        print(f"lrscale: {printable(text)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        goes_on = "The same command goes on where it was." if given[:1] == ["run"] else "The same command begins anew."
        print(f"lrscale: stopped. {goes_on}", file=sys.stderr)
        return 130


def _dispatch(given: list[str]) -> int:
    is_run = given[:1] == ["run"]  # what follows is Hydra's
    options = argparse.Namespace(command="run", arguments=given[1:]) if is_run else make_parser().parse_args(given)
    find_command(options.command).run(options)
    return 0
