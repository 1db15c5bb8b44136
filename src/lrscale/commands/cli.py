"""The program `lrscale`: finds the commands, parses the command line, and turns refusals and failures into exit statuses."""

import argparse
import errno
import io
import itertools
import os
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

from lrscale.commands import Command
from lrscale.errors import Failure, Refusal, printable
from lrscale.provenance import __version__
from lrscale.system import ignore_signals, stoppable

DESCRIPTION = "How must the learning rate scale with batch size when gradients are summed instead of averaged?"
EXAMPLES = """\
examples:
  lrscale run optimizer.lr=0.03 batch_size=10                  run one training
  lrscale run -m sweeps=quickstart                             run a study and print its answer
  lrscale report quickstart                                    print the answer again, from the MLflow store
  lrscale reproduce quickstart                                 run a published study again and compare all its numbers
  lrscale status --watch                                       show the progress of a study in another terminal
  lrscale ui                                                   open MLflow's UI at the summary of the latest study
  lrscale new-task mine                                        write mine.py, a task of your own to start from
  lrscale translate --lr 0.1 --to-reduction sum                translate a tuned lr to another reduction or batch size
  lrscale audit mine.py:step --accumulation 4                  tell whether your training step averages what you believe
"""


class Closable(io.FileIO):
    """The standard output of a command that goes on where its reader has gone, as by `| head`, or its terminal has."""

    def write(self, data: Any, /) -> int:
        """Writes bytes, and returns how many; drops them where nobody can read them any more."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            return memoryview(data).nbytes


def find_commands() -> dict[str, Command]:
    """Returns the commands by name, in the order of the help text. Each module of this folder but `cli` is a command."""
    names = [file.stem.replace("_", "-") for file in Path(__file__).parent.glob("[a-z]*.py") if file.stem != "cli"]
    return dict(sorted(((name, find_command(name)) for name in names), key=lambda pair: pair[1].order))


def find_command(name: str) -> Command:
    """Returns the command of the module with this name, which has `_` for each `-`."""
    command: Command = import_module(f"lrscale.commands.{name.replace('-', '_')}").COMMAND
    return command


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line. The arguments after `run` are not for this parser: Hydra parses them."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("lrscale", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"lrscale {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in find_commands().items():
        command.add(subparsers.add_parser(name, help=command.help, add_help=name != "run"))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
      arguments: the command line; None for that of this process, which then ends.

    Returns:
      The exit status: 0 for done, 1 for failed, 2 for refused, 130 for stopped.
    """
    for stream in (sys.stdout, sys.stderr):
        if arguments is None and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal may not know all letters of a study's name
    try:
        return _status(list(sys.argv[1:] if arguments is None else arguments))
    finally:
        if arguments is None:  # the process ends now
            ignore_signals()


def _status(arguments: list[str]) -> int:
    """Runs one command and returns its exit status. It prints an error of the command as one line."""
    try:
        with stoppable():
            return _dispatch(arguments)
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
        text = f"{where}{error.strerror or error}. Correct that, and the same command goes on."
        print(f"lrscale: {printable(text)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        is_study = arguments[:1] == ["run"] and not {"-m", "--multirun"}.isdisjoint(arguments)
        way_out = "goes on where it stopped" if is_study else "starts again from the beginning"
        print(f"lrscale: stopped. The same command {way_out}.", file=sys.stderr)
        return 130


def _dispatch(arguments: list[str]) -> int:
    """Parses a command line, and runs its command. Hydra parses the arguments of `run`."""
    if not arguments:
        make_parser().print_help()
        return 0
    unknown: list[str] = []
    if arguments[:1] == ["run"]:
        options = argparse.Namespace(command="run", arguments=arguments[1:])
    else:
        options, unknown = make_parser().parse_known_args(arguments)
    command = find_command(options.command)
    if unknown:
        raise _not_known(options.command, command, unknown)
    if command.goes_on:
        sys.stdout, sys.stderr = _closable(sys.stdout), _closable(sys.stderr)
    return command.run(options) or 0


def _not_known(name: str, command: Command, unknown: Sequence[str]) -> Refusal:
    """Returns the refusal of arguments that a command does not have. It names the option that the user may mean."""
    parser = argparse.ArgumentParser()
    command.add(parser)
    known = re.findall(r"--[a-z][a-z-]*", parser.format_help())
    typed, _, value = unknown[0].partition("=")
    value = value or " ".join(itertools.takewhile(lambda word: not word.startswith("--"), unknown[1:]))
    key = typed.lstrip("-").lower().replace("_", "-")
    to = "to-" if key.startswith("to-") else ""
    meant = command.hints.get(key.removeprefix(to)) or "".join(get_close_matches(f"--{key}", known, 1, 0.7))
    if meant.startswith("--"):
        head, _, option = meant.rpartition("--")
        option = f"--{to}{option.removeprefix(to)}" if f"--{to}{option}" in known else f"--{option}"
        meant = f"Did you mean {head}{option} {value}".rstrip() + "?"
    way_out = meant or f"lrscale {name} --help lists the options."
    return Refusal(f"`{typed}` is no argument of lrscale {name}. {way_out}")


def _closable(stream: TextIO) -> TextIO:
    """Returns a stream that writes where another does, and whose reader may go; the same where that is no open file."""
    if type(stream) is not io.TextIOWrapper:  # as in a notebook
        return stream
    stream.flush()
    raw = Closable(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw), stream.encoding, "replace", line_buffering=True)
