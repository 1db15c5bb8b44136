"""`lrscale audit`: tells what a training step really does to the gradient."""

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrscale.commands import Command, add_store
from lrscale.errors import Failure, Refusal, masked

if TYPE_CHECKING:
    from lrscale.audit.finding import Audit
    from lrscale.audit.named import AuditedStep

AUDIT_ABOUT = """\
Run one update of your training step on compositions of a few examples, and say what it does to the gradient: whether it
averages or sums, what the mean is over, whether accumulated micro-batches are one batch, and how the optimizer answers.

STEP is FILE.py:NAME. The file is run, as by an import: what stands under if __name__ == "__main__" is not, and it sees
no arguments. NAME is one of
  a function without parameters  it returns (step, batch, model) or (step, batch, model, options); options is a dict with
                                 any of accumulation, reference, collate and restore, as for lrscale.audit
  a function with one parameter  it is the step itself; the file defines batch and model, and any of the options
step(micro_batches) makes one update from a list of micro-batches: from zero_grad() to optimizer.step().
"""
AUDIT_EXAMPLES = """\
exit status: 0 where the update is invariant to how examples are grouped, 1 where it is not or cannot be audited,
2 where the input is refused. So it can stand in a CI job.

examples:
  lrscale audit mine.py:step                                 audit a step
  lrscale audit mine.py:step --accumulation 4                with 4 micro-batches an update
  lrscale audit mine.py:make --ranks 2                       against 2 processes; make() returns (step, batch, model)
  lrscale audit mine.py:step --format json                   print one JSON document
  lrscale audit mine.py:step --figure audit.png --record     draw |g| against examples, and keep an MLflow run
  lrscale audit --task mine.py:cnn --reduction sum --option width=8
                                                             audit a lrscale.Task in a plain loop with SGD
"""
PICTURES = (".png", ".svg")
"""The forms of the picture."""


def _add(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.epilog, parser.allow_abbrev = AUDIT_ABOUT, AUDIT_EXAMPLES, False
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("step", nargs="?", metavar="STEP", help="your training step: FILE.py:NAME or package.module:NAME")
    parser.add_argument(
        "--task", metavar="TASK", help="a lrscale.Task instead, FILE.py:NAME, with SGD of lr 0.1: see lrscale new-task"
    )
    parser.add_argument("--reduction", help="of --task: mean, sum or sum_over_nominal (default: mean)")
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="of --task: an option of its function; may be repeated"
    )
    parser.add_argument("--accumulation", type=int, metavar="K", help="micro-batches in one update")
    parser.add_argument("--ranks", type=int, metavar="R", default=1, help="processes to compare with one (default: 1)")
    parser.add_argument("--format", choices=["text", "json"], default="text", help="form of the answer (default: text)")
    parser.add_argument("--figure", metavar="FILE", help="draw |g| against the number of examples: a .png or .svg file")
    parser.add_argument("--record", action="store_true", help="record the audit as a run of MLflow's experiment audits")
    add_store(parser)


def _run(options: argparse.Namespace) -> int:
    name = _check(options)
    with contextlib.redirect_stdout(sys.stderr), _as_script(name):  # what the user's code prints is no part of the answer
        audited = _load(name, options)
        audit = _audit(audited, name, options)
    _show(audit, options.format)
    if options.figure or options.record:
        _keep(audit, audited, name, options)
    return 0 if audit.ok else 1


@contextlib.contextmanager
def _as_script(name: str) -> Iterator[None]:
    """Hides this program's own arguments, which a file that reads the command line would take for its own."""
    kept, sys.argv = sys.argv, [name.rpartition(":")[0]]
    try:
        yield
    finally:
        sys.argv = kept


def _check(options: argparse.Namespace) -> str:
    """Returns the name of the code; raises Refusal where options do not go together or nothing could be written."""
    if (options.step is None) == (options.task is None):
        got = "neither" if options.step is None else "both"
        raise Refusal(f"`STEP` or `--task` must be given, and not both, got {got}. Take lrscale audit mine.py:step.")
    for field, value in (("--reduction", options.reduction), ("--option", options.option)):
        if options.task is None and value:
            raise Refusal(f"`{field}` goes with --task, got it with a step. Set it in your file.")
    if options.task is not None and options.ranks != 1:
        raise Refusal(
            f"`--ranks` goes with a step, got {options.ranks} with --task. Write a function that makes a step with DDP."
        )
    if options.figure is not None:
        file = Path(options.figure)
        if file.suffix not in PICTURES or not file.parent.is_dir():
            raise Refusal(f"`--figure` must be a .png or .svg file in a folder that exists, got {options.figure:.200}.")
    if options.record:
        from lrscale.tracking.client import check_uri

        check_uri(options.tracking_uri)
    return str(options.step or options.task)


def _load(name: str, options: argparse.Namespace) -> "AuditedStep":
    """Returns the step of a file or of a task, with the options of the command line."""
    from lrscale.audit.named import load_maker, load_step

    load = load_step if options.ranks == 1 else load_maker
    audited = load(name) if options.task is None else _task_step(name, options)
    given = {} if options.accumulation is None else {"accumulation": options.accumulation}
    return audited._replace(options={**audited.options, **given})


def _audit(audited: "AuditedStep", name: str, options: argparse.Namespace) -> "Audit":
    """Audits a step; raises Refusal where the user's code fails."""
    from lrscale.audit.audit import audit
    from lrscale.tasks.source import find_file, told

    try:
        return audit(audited.step, audited.batch, audited.model, ranks=options.ranks, **audited.options)
    except (Refusal, Failure):
        raise
    except (Exception, SystemExit) as error:
        field = "STEP" if options.task is None else "--task"
        raise Refusal(
            f"`{field}` {name:.200} must run on batches made of 1 to 24 of the batch's examples, got "
            f"{told(error, find_file(field, name))}."
        ) from error


def _task_step(name: str, options: argparse.Namespace) -> "AuditedStep":
    """Makes a task with the options that were given, and returns its step."""
    from lrscale.audit.task_step import task_step
    from lrscale.rules import check
    from lrscale.tasks.named import make_named, named_config, options_of
    from lrscale.tasks.source import read_source, trust

    source = read_source("--task", name)
    values = options_of(named_config(name)["task"])
    for key, value in _options(options.option).items():
        if key not in values:
            raise Refusal(f"`--option` must be one of {', '.join(values) or 'none'}, got {key:.100}.")
        check(f"--option {key}", source.rules[key], value)
        values[key] = value
    return task_step(make_named(name, trust(source.file), values), options.reduction or "mean")


def _options(pairs: list[str]) -> dict[str, Any]:
    """Returns options written as KEY=VALUE. A value is read as JSON, and else is a text."""
    values = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise Refusal(f"`--option` must be KEY=VALUE, got {pair:.100}.")
        try:
            values[key] = json.loads(text)
        except ValueError:
            values[key] = text
    return values


def _show(audit: "Audit", form: str) -> None:
    from rich.console import Console

    from lrscale.report.audit import audit_json, show_audit

    if form == "json":
        print(json.dumps(audit_json(audit), indent=2, allow_nan=False))
    else:
        show_audit(audit, Console())


def _keep(audit: "Audit", audited: "AuditedStep", name: str, options: argparse.Namespace) -> None:
    """Writes the picture, and records the audit."""
    from lrscale.report.audit_files import audit_files

    files = audit_files(audit)
    out = sys.stderr if options.format == "json" else sys.stdout
    if options.figure:
        from lrscale.files import write_whole

        content = files.get(f"audit{Path(options.figure).suffix}")
        if content is None:
            print("no picture: no gradient was measured", file=out)
        else:
            write_whole(Path(options.figure), content)
            print(f"picture  {options.figure}", file=out)
    if options.record:
        from lrscale.tasks.source import find_file, trust
        from lrscale.tracking.audits import record_audit

        settings = {"reduction": options.reduction, "ranks": options.ranks, "accumulation": audited.options.get("accumulation")}
        sha256 = trust(find_file("STEP", name))
        run_id = record_audit(options.tracking_uri, name, sha256, settings, audit, files)
        print(
            f"recorded in {masked(options.tracking_uri)}, experiment audits, run {run_id}; see it with lrscale ui audits",
            file=out,
        )


COMMAND = Command(9, "tell what your training step really does to the gradient", _add, _run)
