"""The command line: `lrscale run`, `report`, `demo` and `ui`. Heavy imports wait until a command needs them."""

import argparse
import os
import sys
from collections.abc import Sequence

from lrscale import __version__
from lrscale.rules import Failure, Refusal
from lrscale.stopping import stoppable

DESCRIPTION = "How must the learning rate scale with batch size when gradients are summed instead of averaged?"
EXAMPLES = """\
examples:
  lrscale run optimizer.lr=0.03 batch_size=10 reduction=sum    one training
  lrscale run -m sweeps=quickstart                             a study, with the answer at its end
  lrscale report quickstart                                    the answer again, from what MLflow holds
  lrscale ui                                                   MLflow's UI on the latest study
"""


def make_parser() -> argparse.ArgumentParser:
    """Makes the parser of everything but what follows `run`, which is Hydra's."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("lrscale", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"lrscale {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    commands.add_parser("run", help="train once, or with -m sweep (a Hydra app: lrscale run --help)", add_help=False)
    report = commands.add_parser("report", help="law, intervals and figures of a study, from what MLflow holds")
    report.add_argument("study", nargs="?", metavar="STUDY", help="name of a study; the latest one if left out")
    report.add_argument("--format", choices=["text", "json", "html"], default="text", help="what to print (default: text)")
    _add_store(report)
    ui = commands.add_parser("ui", help="MLflow's own UI on this machine, opened at a study")
    ui.add_argument("study", nargs="?", metavar="STUDY", help="name of a study; the latest one if left out")
    ui.add_argument("--port", type=int, default=5000, help="port to listen on; the next free one if taken (default: 5000)")
    ui.add_argument("--no-browser", action="store_true", help="print the link only")
    _add_store(ui)
    commands.add_parser("demo", help="the book's own points, with numbers: summed gradients, accumulation, d2l's sgd")
    return parser


def _add_store(parser: argparse.ArgumentParser) -> None:
    default = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    parser.add_argument("--tracking-uri", default=default, metavar="URI", help=f"MLflow's store (default: {default})")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status: 0 done, 1 failed, 2 refused, 130 stopped."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with stoppable():
            return _dispatch(given)
    except Refusal as refusal:
        print(f"lrscale: {refusal}", file=sys.stderr)
        return 2
    except Failure as failure:
        print(f"lrscale: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lrscale: stopped. The same command goes on where it was.", file=sys.stderr)
        return 130


def _dispatch(given: list[str]) -> int:
    if given[:1] == ["run"]:
        from lrscale.app import main as run

        run(given[1:])
        return 0
    options = make_parser().parse_args(given)
    if options.command == "report":
        from lrscale.report import print_report

        print_report(options.study, options.tracking_uri, options.format)
    elif options.command == "ui":
        from lrscale.ui import serve

        serve(options.study, options.tracking_uri, options.port, browser=not options.no_browser)
    else:
        from lrscale.demo import main as demo

        demo()
    return 0
