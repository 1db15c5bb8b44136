"""Conducts a study: rounds of asking, training, recording and telling, until every cell has its trials."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from lrscale.palette import colours
from lrscale.plan import Cell, Plan
from lrscale.progress import Display
from lrscale.provenance import made_by
from lrscale.records import StudyRecord, TrialRecord
from lrscale.results import Result, mean_objective
from lrscale.rules import Refusal
from lrscale.sweeper import Ask, Tuner, check_storage, make_sampler, open_storage
from lrscale.tracking import Store, check_uri

Launch = Callable[[Sequence[Sequence[str]]], list[list[Result] | str]]
Key = tuple[str, frozenset[tuple[str, float]]]


class TooManyCrashes(RuntimeError):
    """More jobs crashed than the study allows."""


def conduct(plan: Plan, launch: Launch) -> None:
    """Carries out a plan, or goes on with it, and reports.

    Only this process writes to Optuna and MLflow. A trial is recorded in MLflow first and told to Optuna
    next; whichever of the two is missing after a kill is made up for at the next start.

    Args:
      plan: what to do.
      launch: runs jobs, each a list of overrides, and returns the results of its trials or a traceback.

    Raises:
      Refusal: a store cannot be used, and nothing has been written.
      TooManyCrashes: more trials crashed than `max_failure_rate` allows.
    """
    from lrscale.report import check_claims, publish

    check_claims(plan.claims, plan.ranges)
    make_sampler(plan, plan.cells[0], 0)
    uri = plan.tracking["uri"]
    check_uri(uri)
    check_storage(plan.storage)
    check_folder(Path("studies"))
    store = Store(uri)
    storage = open_storage(plan.storage)
    tuners = [Tuner(plan, cell, storage) for cell in plan.cells]
    study = store.start_study(plan, document(plan))
    console = Console(highlight=False)
    status = "FAILED"
    try:
        conductor = _Conductor(plan, launch, store, study, tuners)
        with Display(console, plan.study, len(tuners), plan.n_trials * len(tuners), conductor.held()) as display:
            conductor.run(display)
        publish(store, store.study(plan.study), console)
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        store.finish_study(study.run_id, status)


def check_folder(folder: Path) -> None:
    """Raises Refusal where a folder for reports cannot be made or written."""
    nearest = next(p for p in (folder.resolve(), *folder.resolve().parents) if p.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise Refusal(f"the working folder must be one that can be written, got {nearest}. Go to another folder.")


def document(plan: Plan) -> dict[str, Any]:
    """What a study's run keeps of its plan: enough to report on it, and to run it again."""
    return {
        "study": plan.study,
        "question": plan.question,
        "objective": plan.cells[0].config["objective"],
        "n_trials": plan.n_trials,
        "sampler": dict(plan.sampler),
        "intervals": {name: [i.low, i.high, i.log] for name, i in plan.intervals.items()},
        "ranges": {name: list(ends) for name, ends in plan.ranges.items()},
        "claims": [dict(claim) for claim in plan.claims],
        "cells": [{"id": c.id, "label": c.label, "scientific": dict(c.scientific), "config": dict(c.config)} for c in plan.cells],
        "made_by": made_by(),
        "command": plan.command,
    }


class _Conductor:
    """The loop, with what is in the store already."""

    def __init__(self, plan: Plan, launch: Launch, store: Store, study: StudyRecord, tuners: list[Tuner]) -> None:
        self.plan, self.launch, self.store, self.study, self.tuners = plan, launch, store, study, tuners
        self.crashed = 0
        self.palette = colours([int(cell.config["batch_size"]) for cell in plan.cells])
        store.drop_unfinished(study.experiment_id)
        self.recorded: dict[Key, TrialRecord] = {
            _key(record.cell, record.params): record for record in store.trials(study.experiment_id)
        }
        for tuner in tuners:
            self._add_what_optuna_lacks(tuner)

    def _add_what_optuna_lacks(self, tuner: Tuner) -> None:
        known = {_key(tuner.cell.id, params) for params in tuner.every().values()}
        for key, record in self.recorded.items():
            if record.cell == tuner.cell.id and key not in known and set(record.params) == set(tuner.space):
                tuner.add(record.params, mean_objective(record.objectives))

    def held(self) -> int:
        return sum(min(tuner.held(), self.plan.n_trials) for tuner in self.tuners)

    def run(self, display: Display) -> None:
        lost = [(tuner, self._unrecorded(tuner)) for tuner in self.tuners]
        self._launch_all([pair for pair in lost if pair[1]], display)
        while rounds := [(tuner, asks) for tuner in self.tuners if (asks := tuner.next_round())]:
            display.round(len(self.tuners) - len(rounds))
            self._launch_all([(tuner, fresh) for tuner, asks in rounds if (fresh := self._tell_recorded(tuner, asks))], display)
        display.cells_done = len(self.tuners)

    def _unrecorded(self, tuner: Tuner) -> list[Ask]:
        """Trials that Optuna has as complete and MLflow has not: they are run again, for the record."""
        return [Ask(n, p) for n, p in tuner.complete().items() if _key(tuner.cell.id, p) not in self.recorded]

    def _tell_recorded(self, tuner: Tuner, asks: list[Ask]) -> list[Ask]:
        """Tells what was recorded before a kill, and returns the rest."""
        fresh = []
        for ask in asks:
            record = self.recorded.get(_key(tuner.cell.id, ask.params))
            if record is None:
                fresh.append(ask)
            else:
                tuner.tell(ask.number, mean_objective(record.objectives))
        return fresh

    def _launch_all(self, work: list[tuple[Tuner, list[Ask]]], display: Display) -> None:
        for start in range(0, len(work), self.plan.n_jobs):
            batch = work[start : start + self.plan.n_jobs]
            started = time.time()
            outcomes = self.launch([list(job_overrides(tuner.cell, asks)) for tuner, asks in batch])
            for (tuner, asks), outcome in zip(batch, outcomes, strict=True):
                self._take(tuner, asks, outcome, started, display)

    def _take(self, tuner: Tuner, asks: list[Ask], outcome: list[Result] | str, started: float, display: Display) -> None:
        complete = set(tuner.complete())
        if isinstance(outcome, str):
            for ask in asks:
                self.store.record_failure(self.study, tuner.cell, ask.params, outcome)
                if ask.number not in complete:
                    tuner.fail(ask.number)
            self.crashed += len(asks)
            display.job(tuner.cell.label, 0, 0, 0, len(asks))
            if self.crashed > self.plan.max_failure_rate * self.plan.n_trials * len(self.tuners):
                raise TooManyCrashes(
                    f"{self.crashed} trials crashed, more than hydra.sweeper.max_failure_rate={self.plan.max_failure_rate} "
                    f"allows. The last one, {tuner.cell.label}:\n{outcome}"
                )
            return
        colour = self.palette[int(tuner.cell.config["batch_size"])]
        for ask, result in zip(asks, outcome, strict=True):
            self.store.record_trial(self.study, tuner.cell, ask.number, ask.params, result, started, colour)
            if ask.number not in complete:
                tuner.tell(ask.number, result.objective)
        runs = [flag for result in outcome for flag in result.diverged]
        display.job(tuner.cell.label, len(runs), sum(runs), len([a for a in asks if a.number not in complete]), 0)


def job_overrides(cell: Cell, asks: Sequence[Ask]) -> Iterator[str]:
    """Overrides of one job: the cell's, and its trials' hyperparameters as lists."""
    yield from cell.overrides
    for name in asks[0].params:
        yield f"{name}=[{','.join(repr(ask.params[name]) for ask in asks)}]"


def _key(cell: str, params: Mapping[str, float]) -> Key:
    return cell, frozenset(params.items())
