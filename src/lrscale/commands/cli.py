"""The command line: `run`, `report`, `status`, `ui` and the rest. Heavy imports wait until a command needs them."""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lrscale import __version__
from lrscale.errors import Failure, Refusal, printable
from lrscale.signals import leave, stoppable

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
    publish = commands.add_parser("publish", help="write what MLflow holds of a study to sweeps/results/ of the working folder")
    publish.add_argument("study", nargs="?", metavar="STUDY", help="name of a study; the latest one if left out")
    _add_store(publish)
    reproduce = commands.add_parser("reproduce", help="run a published study again and compare number by number")
    what = reproduce.add_mutually_exclusive_group(required=True)
    what.add_argument("study", nargs="?", metavar="STUDY", help="name of a published study")
    what.add_argument("--from", dest="run_id", metavar="RUN_ID", help="run of a study, a trial or a single training in MLflow")
    _add_store(reproduce)
    status = commands.add_parser("status", help="how far a study is, from another terminal")
    status.add_argument("study", nargs="?", metavar="STUDY", help="name of a study; the latest one if left out")
    status.add_argument("--watch", action="store_true", help="look again every 2 s until it ends")
    _add_store(status)
    ui = commands.add_parser("ui", help="MLflow's own UI on this machine, opened at a study")
    ui.add_argument("study", nargs="?", metavar="STUDY", help="name of a study; the latest one if left out")
    ui.add_argument("--port", type=int, default=5000, help="port to listen on; the next free one if taken (default: 5000)")
    ui.add_argument("--host", default="127.0.0.1", help="address to listen on; another lets others in (default: 127.0.0.1)")
    ui.add_argument("--no-browser", action="store_true", help="print the link only")
    ui.add_argument("--optuna", action="store_true", help="open optuna-dashboard too (pip install 'lrscale[dashboard]')")
    _add_store(ui)
    sync = commands.add_parser("sync", help="deliver the records that wait on disk for a tracking server that was away")
    sync.add_argument("folder", nargs="?", default=".", metavar="FOLDER", help="where Optuna's journal lies (default: .)")
    _add_translate(commands)
    commands.add_parser("demo", help="the book's own points, with numbers: summed gradients, accumulation, d2l's sgd")
    return parser


TRANSLATE = """\
What a tuned lr, and the knobs that go with it, become under another reduction, accumulation or batch size.
Part 1 is exact and speaks of one batch size; part 2, from one batch size to another, is a matter of regime.
"""
TRANSLATE_EXAMPLES = """\
examples: lr 0.1 was tuned with mean at B = 32, momentum SGD and weight decay 1e-4. What goes with
  sum at B = 256?
    lrscale translate --lr 0.1 --momentum 0.9 --weight-decay 1e-4 --to-reduction sum --to-batch-size 256
  8 accumulated micro-batches of 32, not divided by 8?
    lrscale translate --lr 0.1 --momentum 0.9 --weight-decay 1e-4 --to-batch-size 256 --to-accumulation 8
  DDP over 4 ranks of 8 with a summed loss?
    lrscale translate --lr 0.1 --momentum 0.9 --weight-decay 1e-4 --to-reduction sum --to-ranks 4
"""


def _add_translate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    raw = argparse.RawDescriptionHelpFormatter
    text = "a tuned lr and its companions under another reduction or batch size"
    parser = commands.add_parser(
        "translate", help=text, description=TRANSLATE, epilog=TRANSLATE_EXAMPLES, formatter_class=raw, allow_abbrev=False
    )
    parser.add_argument("--lr", type=float, required=True, help="the tuned learning rate")
    parser.add_argument("--optimizer", default="sgd", help="a name of torch.optim, or lion, signsgd, lars, lamb (default: sgd)")
    for knob, what in KNOBS.items():
        parser.add_argument(f"--{knob.replace('_', '-')}", type=float, metavar="X", help=what)
    decay = parser.add_mutually_exclusive_group()
    decay.add_argument("--decoupled", action="store_true", default=None, help="weight decay acts beside the gradient")
    decay.add_argument("--coupled", dest="decoupled", action="store_false", help="weight decay is added to the gradient")
    for prefix, title in (("", "how it was tuned"), ("to-", "how it will be used; what is left out stays as it was")):
        group, default = parser.add_argument_group(title), dict(BATCH) if not prefix else dict.fromkeys(BATCH)
        group.add_argument(f"--{prefix}reduction", default=default["reduction"], help="mean, sum or sum_over_nominal")
        group.add_argument(
            f"--{prefix}batch-size", type=int, metavar="B", default=default["size"], help="examples of one update, in all"
        )
        group.add_argument(
            f"--{prefix}accumulation", type=int, metavar="K", default=default["accumulation"], help="micro-batches of an update"
        )
        group.add_argument(
            f"--{prefix}divided",
            action=argparse.BooleanOptionalAction,
            default=default["divided"],
            help="each micro-batch's loss is divided by their number",
        )
        group.add_argument(
            f"--{prefix}ranks", type=int, metavar="R", default=default["ranks"], help="processes whose gradients DDP averages"
        )
        group.add_argument(
            f"--{prefix}terms",
            type=float,
            metavar="T",
            default=default["terms"],
            help="summed terms an example, as outputs",
        )
    parser.add_argument("--format", choices=["text", "json"], default="text", help="what to print (default: text)")


KNOBS = {
    "momentum": "momentum or beta",
    "weight_decay": "weight decay; see --coupled",
    "clip_norm": "threshold of clip-by-norm",
    "clip_value": "threshold of clip-by-value",
    "eps": "the optimizer's eps",
    "l1": "factor of an L1 penalty in the loss",
    "l2": "factor of an L2 penalty in the loss",
}
BATCH = {"reduction": "mean", "size": 32, "accumulation": 1, "divided": False, "ranks": 1, "terms": 1.0}


def _translate(options: argparse.Namespace) -> None:
    from lrscale.commands.translate import print_translation
    from lrscale.law.translation import Batch

    given = vars(options) | {"size": options.batch_size, "to_size": options.to_batch_size}
    source = {name: given[name] for name in BATCH}
    target = {name: source[name] if given[f"to_{name}"] is None else given[f"to_{name}"] for name in BATCH}
    knobs = {name: given[name] for name in KNOBS if given[name] is not None}
    print_translation(options.optimizer, options.lr, Batch(**source), Batch(**target), knobs, options.decoupled, options.format)


def _add_store(parser: argparse.ArgumentParser) -> None:
    default = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    parser.add_argument("--tracking-uri", default=default, metavar="URI", help=f"MLflow's store (default: {default})")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status: 0 done, 1 failed, 2 refused, 130 stopped."""
    for stream in (sys.stdout, sys.stderr):
        if arguments is None and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal may know fewer letters than a study's name has
    try:
        return _status(list(sys.argv[1:] if arguments is None else arguments))
    finally:
        if arguments is None:  # this is the program, which ends now
            leave()


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
    except BrokenPipeError:  # as in lrscale report | head
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
    if given[:1] == ["run"]:
        from lrscale.hydra_app.app import main as run

        run(given[1:])
        return 0
    options = make_parser().parse_args(given)
    if options.command == "report":
        from lrscale.run.reporting import print_report

        print_report(options.study, options.tracking_uri, options.format)
    elif options.command == "publish":
        from lrscale.published.files import publish

        publish(options.study, options.tracking_uri)
    elif options.command == "reproduce":
        from lrscale.published.reproduce import reproduce, reproduce_from

        if options.run_id is None:
            reproduce(options.study)
        else:
            reproduce_from(options.run_id, options.tracking_uri)
    elif options.command == "status":
        from lrscale.commands.status import print_status

        print_status(options.study, options.tracking_uri, options.watch)
    elif options.command == "ui":
        from lrscale.commands.ui import serve

        browser = not options.no_browser
        serve(options.study, options.tracking_uri, options.host, options.port, browser=browser, optuna=options.optuna)
    elif options.command == "sync":
        from lrscale.tracking.store import sync

        for outbox, count, study in sync(Path(options.folder)):
            print(printable(f"{outbox.path.name}: {count} records of {study} delivered."))
    elif options.command == "translate":
        _translate(options)
    else:
        from lrscale.commands.demo import main as demo

        demo()
    return 0
