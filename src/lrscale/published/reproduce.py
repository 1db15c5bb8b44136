"""Runs a recorded study, trial or single training again, and compares its numbers with the record.

Equal numbers are promised only where the versions and the processor are those of the record; then every number is
compared bit for bit. Elsewhere sums round differently. Then a study is compared by its claims and intervals: each
interval, as of lr*, must overlap the recorded one. A trial or a single training is compared up to rounding.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from lrscale.errors import Failure, Refusal, masked, printable
from lrscale.files import safe_name
from lrscale.provenance import NUMBERS_DEPEND_ON, made_by
from lrscale.published import compare
from lrscale.published.files import Published, finished, number_files, read, read_rounds
from lrscale.published.side_by_side import answer_rows, show_answers
from lrscale.run.job import Outcome, work, work_all
from lrscale.run.setup import Setup
from lrscale.run.study import check_folder, run_study
from lrscale.search.samplers import make_sampler
from lrscale.search.twin_tuner import RecordedRounds
from lrscale.spec import Compute
from lrscale.study.claims import check_claims, in_count, require_held
from lrscale.study.config import make_training
from lrscale.study.document import check_maker
from lrscale.study.own_code import trust_for
from lrscale.study.plan import Plan, Share, with_values
from lrscale.study.records import StudyRecord, TrialRecord, WorkRecord
from lrscale.tasks.registry import check_files
from lrscale.tracking.store import Store
from lrscale.training.device import chosen, described
from lrscale.training.results import Result

SHOWN = 20
"""The largest number of differences that are printed."""
IN_WORDS = {"numbers": "lrscale's numbers version", "libc": "C library"}
"""What entries of `made_by` are called, where their names do not say it."""


def reproduce(study: str, strict: bool = False, trusted: Sequence[Path] = (), device: str | None = None) -> None:
    """Runs a published study again, in new stores, and compares.

    Args:
      study: the name of the study.
      strict: whether every claim must hold here.
      trusted: files of code that the study may run.
      device: where models of the user's own are trained; None for the recorded device.

    Raises:
      Refusal: the study is not published, or its record cannot be used; nothing has been written.
      Failure: the study did not reproduce; or `strict`, and a claim fails or cannot be told.
    """
    _reproduce(study, read(study), strict, trusted, device)


def reproduce_from(run_id: str, uri: str, strict: bool = False, trusted: Sequence[Path] = (), device: str | None = None) -> None:
    """Runs a study, a trial or a single training from an MLflow store again, and compares.

    Args:
      run_id: the id of its MLflow run.
      uri: the URI of the MLflow store.
      strict: whether every claim of the study must hold here.
      trusted: files of code that the study may run.
      device: where models of the user's own are trained; None for the recorded device.

    Raises:
      Refusal: the store has no such run, or the run cannot be repeated; nothing has been written.
      Failure: the run did not reproduce; or `strict`, and a claim fails or cannot be told.
    """
    store = Store.existing(uri)
    if store.kind(run_id) == "study":
        answer = finished(store, store.study_of(run_id))
        _reproduce(answer.plan.study, Published(answer.study, number_files(answer)), strict, trusted, device)
    elif strict:
        raise Refusal(
            "`--strict` must be used with a study, as only studies make claims, got the run of a training. Leave it out."
        )
    else:
        _reproduce_work(run_id, store.work(run_id), trusted, device)


def _reproduce(name: str, published: Published, strict: bool, trusted: Sequence[Path], device: str | None) -> None:
    """Checks a published study, runs it again in `studies/reproduce/`, and compares."""
    folder = Path("studies") / "reproduce" / safe_name(name)
    if published.study.plan.is_script:
        raise Refusal(
            f"`STUDY` must be a study that lrscale trains, got {name}, whose trainings a script runs. "
            f"Run it again with its own command: {published.study.plan.command}"
        )
    plan = published.study.plan.renewed()
    compute = _on_device(published.study.compute, device, [cell.config for cell in plan.cells])
    setup = Setup(f"sqlite:///{folder}/mlflow.db", f"{folder}/optuna.journal", compute)
    theirs = compare.numbers(published.files)
    compare.within(published.files["report.json"], published.files["report.json"])
    answer_rows(published.files["report.json"])
    rounds = read_rounds(published)
    check_claims(plan)
    make_sampler(plan, plan.cells[0], 0)
    trust_for([cell.config for cell in plan.cells], trusted)
    for cell in plan.cells:
        check_files(cell.training)
    check_folder(folder)
    console = Console(highlight=False, markup=False)
    rounds_differently = _print_promise(console, published.study.made_by, compute)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    files = _conduct(plan, setup, rounds)
    show_answers(published.files["report.json"], files["report.json"], plan, console)
    count, differing = compare.within(published.files["report.json"], files["report.json"])
    agreement = f"{count - len(differing)} of {count} intervals and claims agree"
    if rounds_differently:
        _print_verdict(console, name, differing, agreement)
    else:
        ours = compare.numbers(files)
        differing = compare.exact(theirs, ours)
        _print_verdict(
            console, name, differing, f"{len(ours) - len(differing)} of {len(ours)} numbers agree bit for bit; {agreement}"
        )
    report = json.loads(files["report.json"])
    verdicts = [compare.verdict_of(claim) for claim in report["claims"]]
    if verdicts:
        console.print(f"claims   {in_count(verdicts)}")
    console.print(f"browse   lrscale ui --tracking-uri {masked(setup.uri)}", soft_wrap=True)
    if strict:
        require_held(name, verdicts or [ratio["verdict"] for ratio in report.get("ratios", [])])


def _conduct(plan: Plan, setup: Setup, rounds: RecordedRounds | None) -> dict[str, str]:
    """Carries out a plan without Hydra, and returns the files NUMBERS_IN of the finished study, as texts by file name.

    Args:
      plan: the plan of the study.
      setup: the stores that record it.
      rounds: the rounds of trials that are trained again; None to ask for the trials anew.
    """
    reported: list[tuple[Store, StudyRecord]] = []

    def launch(jobs: Sequence[Sequence[Share]]) -> list[list[Outcome] | str]:
        return [work_all([share.config for share in job], setup.compute) for job in jobs]

    run_study(plan, setup, launch, lambda store, study, console: reported.append((store, study)), rounds)
    (store, study) = reported[0]
    return number_files(finished(store, store.study_of(study.run_id)))


def _on_device(compute: Compute, device: str | None, configs: Sequence[Mapping[str, Any]]) -> Compute:
    """Returns the settings of the machine that a record has, with another device where one is asked for.

    Raises:
      Refusal: the device is not there, or cannot train what was recorded.
    """
    found = chosen(device or compute.device, configs)
    return compute._replace(device=found, tf32=compute.tf32 and found == "cuda")


def _reproduce_work(run_id: str, record: WorkRecord, trusted: Sequence[Path], device: str | None) -> None:
    """Trains the trials of one call together again, and compares the trial of the requested run."""
    check_maker(record.made_by)
    tuned = {name: [params[name] for params in record.together] for name in record.together[0]}
    config = with_values(record.config, tuned)
    trust_for([config], trusted)
    compute = _on_device(record.compute, device, [config])
    check_files(make_training(config))
    console = Console(highlight=False, markup=False)
    rounds_differently = _print_promise(console, record.made_by, compute, record.is_whole)
    result = work(config, compute)[record.index]
    theirs, ours = _trial_numbers(record.outcome), _trial_numbers(result)
    differing = (compare.rounding if rounds_differently else compare.exact)(theirs, ours)
    precision = "to rounding" if rounds_differently else "bit for bit"
    _print_verdict(console, run_id, differing, f"{len(ours)} numbers compared {precision}")


def _trial_numbers(trial: TrialRecord | Result) -> dict[str, str]:
    """Returns the numbers of a trial as exact texts, by name: the outcome of each seed, or the quantities of a probe."""
    count = len(trial.objectives)
    numbers = {f"seed {i + 1} of {count}: objective": repr(value) for i, value in enumerate(trial.objectives)}
    numbers |= {f"seed {i + 1} of {count}: diverged": str(int(flag)) for i, flag in enumerate(trial.diverged)}
    return numbers | {quantity.name: repr(quantity.value) for quantity in trial.quantities}


def _print_promise(console: Console, maker: Mapping[str, str], compute: Compute, is_whole: bool = True) -> bool:
    """Prints what is promised of the numbers, and returns whether it is less than equality bit for bit.

    Args:
      console: where the promise is printed.
      maker: the versions, the processor and the device of the record, as `made_by` returns them.
      compute: the settings of this machine.
      is_whole: whether the record has all trials that were trained in the same call.
    """
    ours, device, recorded = made_by(), described(compute.device, compute.tf32), maker.get("device", "cpu")
    reasons = [
        f"{IN_WORDS.get(name, name)} {ours[name]} here, {maker.get(name, 'unknown')} there"
        for name in NUMBERS_DEPEND_ON
        if ours[name] != maker.get(name)
    ]
    if device != "cpu" or recorded != "cpu":  # sums have no fixed order there
        reasons.append(f"trained on {printable(device)} here, on {printable(recorded)} there")
    if not is_whole:
        reasons.append("the trials that were trained together with it are not on record")
    if reasons:
        promise = "numbers to rounding, intervals that overlap, claims that agree; not every bit"
        console.print(f"promise  {promise}: {'; '.join(reasons)}")
    else:
        same = ", ".join(f"{IN_WORDS.get(name, name)} {ours[name]}" for name in NUMBERS_DEPEND_ON)
        console.print(f"promise  every number bit for bit, with the versions of the record: {same}")
    return bool(reasons)


def _print_verdict(console: Console, name: str, differing: Sequence[compare.Difference], compared: str) -> None:
    """Prints that a record was reproduced, or else its differences.

    Args:
      console: where this is printed.
      name: the name of the study, or the id of the run.
      differing: the numbers that differ.
      compared: how many numbers were compared, and how.

    Raises:
      Failure: there are differences.
    """
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
