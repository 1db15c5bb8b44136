"""Runs a recorded study or training again and compares: every number bit for bit, or by intervals and claims.

Equal numbers can be promised only where versions and processor are those of the record; elsewhere sums round
otherwise, and a lr* is expected where its interval overlaps the recorded one.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from lrscale.errors import Failure, printable
from lrscale.files import safe_name
from lrscale.provenance import NUMBERS_DEPEND_ON, made_by
from lrscale.published import compare
from lrscale.published.files import Published, finished, number_files, read
from lrscale.run.job import Outcome, work, work_all
from lrscale.run.setup import Setup
from lrscale.run.study import run_study
from lrscale.search.tuner import make_sampler
from lrscale.study.claims import check_claims
from lrscale.study.config import make_training
from lrscale.study.document import check_maker
from lrscale.study.plan import Plan, Share, with_values
from lrscale.study.records import StudyRecord, TrialRecord, WorkRecord
from lrscale.tasks.registry import check_files
from lrscale.tracking.store import Store
from lrscale.training.results import Result

SHOWN = 20
"""Differences that are printed."""


def reproduce(study: str) -> None:
    """Runs a published study again, in stores of its own, and compares.

    Raises:
      Refusal: it is not published, or its record cannot be used; nothing has been written.
      Failure: it did not reproduce.
    """
    _reproduce(study, read(study))


def reproduce_from(run_id: str, uri: str) -> None:
    """Runs a study, a trial or a single training of an MLflow store again, and compares.

    Raises:
      Refusal: there is no such run, or it cannot be run again; nothing has been written.
      Failure: it did not reproduce.
    """
    store = Store.existing(uri)
    if store.kind(run_id) == "study":
        found = finished(store, store.study_of(run_id))
        _reproduce(found.plan.study, Published(found.study, number_files(found)))
    else:
        _reproduce_work(run_id, store.work(run_id))


def _reproduce(name: str, published: Published) -> None:
    folder = Path("studies") / "reproduce" / safe_name(name)
    plan = published.study.plan.renewed()
    setup = Setup(f"sqlite:///{folder}/mlflow.db", f"{folder}/optuna.journal", published.study.compute)
    theirs = compare.numbers(published.files)
    compare.within(published.files["report.json"], published.files["report.json"])
    check_claims(plan)
    make_sampler(plan, plan.cells[0], 0)
    for cell in plan.cells:
        check_files(cell.training)
    console = Console(highlight=False, markup=False)
    unlike = _promise(console, published.study.made_by)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    here = _conduct(plan, setup)
    count, differing = compare.within(published.files["report.json"], here["report.json"])
    alike = f"{count - len(differing)} of {count} intervals and claims are alike"
    if unlike:
        _judge(console, name, differing, alike)
    else:
        ours = compare.numbers(here)
        _judge(console, name, compare.exact(theirs, ours), f"{len(ours)} numbers compared bit for bit; {alike}")
    console.print(f"browse   lrscale ui --tracking-uri {setup.uri}", soft_wrap=True)


def _conduct(plan: Plan, setup: Setup) -> dict[str, str]:
    """Conducts a plan without Hydra, and returns the files that would be published of it."""
    kept: list[tuple[Store, StudyRecord]] = []

    def launch(jobs: Sequence[Sequence[Share]]) -> list[list[Outcome] | str]:
        return [work_all([share.config for share in job], setup.compute) for job in jobs]

    run_study(plan, setup, launch, lambda store, study, console: kept.append((store, study)))
    (store, study) = kept[0]
    return number_files(finished(store, store.study_of(study.run_id)))


def _reproduce_work(run_id: str, record: WorkRecord) -> None:
    """Trains once more what was trained together, and compares the run that was asked for."""
    check_maker(record.made_by)
    tuned = {name: [params[name] for params in record.together] for name in record.together[0]}
    config = with_values(record.config, tuned)
    check_files(make_training(config))
    console = Console(highlight=False, markup=False)
    unlike = _promise(console, record.made_by, record.is_whole)
    result = work(config, record.compute)[record.index]
    theirs, ours = _outcome(record.outcome), _outcome(result)
    differing = (compare.rounding if unlike else compare.exact)(theirs, ours)
    _judge(console, run_id, differing, f"{len(ours)} numbers compared {'to rounding' if unlike else 'bit for bit'}")


def _outcome(found: TrialRecord | Result) -> dict[str, str]:
    """The numbers of a trial: of each seed, or what a probe measured."""
    count = len(found.objectives)
    numbers = {f"seed {i + 1} of {count}: objective": repr(value) for i, value in enumerate(found.objectives)}
    numbers |= {f"seed {i + 1} of {count}: diverged": str(int(flag)) for i, flag in enumerate(found.diverged)}
    return numbers | {quantity.name: repr(quantity.value) for quantity in found.quantities}


def _promise(console: Console, maker: Mapping[str, str], whole: bool = True) -> bool:
    """Says what can be promised, from who made the record; True where that is less than every bit."""
    ours = made_by()
    unlike = [
        f"{name} {ours[name]} here, {maker.get(name, 'unknown')} there"
        for name in NUMBERS_DEPEND_ON
        if ours[name] != maker.get(name)
    ]
    if not whole:
        unlike.append("the trials that it was trained with are not on record")
    if unlike:
        console.print(f"promise  numbers to rounding, intervals that overlap, claims alike; not every bit: {'; '.join(unlike)}")
    else:
        console.print(f"promise  every number bit for bit: {', '.join(f'{name} {ours[name]}' for name in NUMBERS_DEPEND_ON)}")
    return bool(unlike)


def _judge(console: Console, name: str, differing: Sequence[compare.Difference], compared: str) -> None:
    """Says how it came out; raises Failure where something differs."""
    if not differing:
        console.print(f"reproduced {name}: {compared}")
        return
    table = Table("what", "recorded", "here", title=f"{len(differing)} differences", title_justify="left", box=SIMPLE_HEAD)
    for difference in differing[:SHOWN]:
        table.add_row(*("none" if text is None else printable(text) for text in difference))
    console.print(table)
    if len(differing) > SHOWN:
        console.print(f"and {len(differing) - SHOWN} more")
    raise Failure(f"{name} did not reproduce: {len(differing)} differences; {compared}.")
