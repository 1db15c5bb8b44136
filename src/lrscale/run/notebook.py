"""`lrscale.study` and `lrscale.train`: the question asked from a program or a notebook, without a command line."""

from __future__ import annotations

import gc
import io
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from rich.console import Console

from lrscale.report.shown import ShownAnswer
from lrscale.rules import TEXT, check
from lrscale.run.job import Outcome, work_all
from lrscale.run.reporting import best_curves, write_report
from lrscale.run.setup import Setup
from lrscale.run.study import run_study
from lrscale.spec import Compute
from lrscale.study.answer import answer
from lrscale.study.call import called_config, called_plan, plain, with_own_facts
from lrscale.study.config import make_compute, make_training
from lrscale.study.plan import Share
from lrscale.study.records import StudyRecord
from lrscale.tasks.held import hold
from lrscale.tasks.own import Task
from lrscale.tasks.registry import check_files, make_task
from lrscale.tracking.client import make_database
from lrscale.tracking.store import Store
from lrscale.training import engine
from lrscale.training.device import chosen
from lrscale.training.engine import Array, Curves, threads


def study(
    task: Task | str | Mapping[str, Any],
    *,
    reduction: str | Sequence[str] = ("mean", "sum"),
    batch_size: int | Sequence[int] = (8, 64),
    lr: tuple[float, float] = (1e-4, 1),
    optimizer: str = "sgd",
    seeds: int | Sequence[int] = 4,
    n_trials: int = 16,
    epochs: int | None = None,
    steps: int | None = None,
    schedule: str | Mapping[str, Any] = "constant",
    objective: str | None = None,
    accumulation: int = 1,
    drop_last: bool = True,
    name: str | None = None,
    tracking_uri: str | None = None,
    show_progress: bool = True,
    device: str = "cpu",
    **options: Any,
) -> ShownAnswer:
    """Finds the best lr of each reduction and batch size, and says how it must scale.

    Its cells are those of the command `lrscale run -m` with the same values. Beside mean, sum looks at the same runs, at
    lr / c^p.

    Args:
      task: a task of your own, or the name of one that comes with lrscale, or a mapping with its `name` and its options.
      reduction: `mean`, `sum` or `sum_over_nominal`, or several of them.
      batch_size: examples in a micro-batch, or several numbers of them.
      lr: the ends of the interval in which the lr is tuned; those of mean, where it takes part.
      optimizer: a name of torch.optim in small letters.
      seeds: how many seeds each trial has, or a list of seeds.
      n_trials: how many lrs are tried in each cell.
      epochs: passes over the training data; 3 where neither `epochs` nor `steps` is given.
      steps: updates of the weights, instead of epochs.
      schedule: how the lr changes in a run: a name, or a mapping with its `name` and its options.
      objective: what is minimised: `train_loss`, `valid_loss`, `valid_error`, and for least squares `excess_risk` or
        `population_risk`. None for the task's own: `valid_loss` for a task of yours.
      accumulation: micro-batches per step; their gradients are added up.
      drop_last: whether the last step of an epoch is dropped where it has fewer examples than the others. Such a step has
        more weight under mean than under sum.
      name: the name of the study; None to make one of the task and what is compared.
      tracking_uri: the MLflow store that records the study, such as `sqlite:///mlflow.db`. The study then continues where
        the store has a part of it, and `lrscale report` and `lrscale ui` show it. None to record it nowhere.
      show_progress: whether lines on the progress are printed.
      device: where a task of your own is trained: `cpu`, `cuda`, `mps`, or `auto` for the best of those that are here. Its
        data and modules are made on the CPU. `mps` has not been tried on hardware yet.
      options: options of the optimizer, such as `momentum=0.9`. They are given for mean, and scaled for sum.

    Returns:
      The answer. A notebook shows it as tables and figures, `print` as text.

    Raises:
      Refusal: a value cannot be used; nothing has been written.
      Failure: the study could not finish.

    Source:
      `tests/run/test_notebook.py` compares it with the command.

    Example:
      >>> answer = study("d2l", batch_size=(4, 16), seeds=2, show_progress=False)
      >>> print(answer.law[0][:63])
      lr_sum* = lr_mean* x c^-1 exactly, c the number of summed terms
    """
    if name is not None:
        check("name", TEXT, name)
    machine = make_compute({**Compute()._asdict(), "device": device})
    with threads(machine.threads):
        config = called_config(
            _known(task),
            optimizer,
            options,
            schedule,
            epochs,
            steps,
            objective=objective,
            accumulation=accumulation,
            drop_last=drop_last,
            seeds=plain(seeds),
        )
        call = f"lrscale.study({config['task']['name']!r}, reduction={reduction!r}, batch_size={batch_size!r}, ...) in Python"
        plan = called_plan(config, {"reduction": reduction, "batch_size": batch_size}, lr, n_trials, name, call, device)
        machine = machine._replace(device=chosen(device, [cell.config for cell in plan.cells]))
        console = Console(force_jupyter=False, quiet=not show_progress, highlight=False, markup=False, emoji=False)
        found: list[ShownAnswer] = []

        def report(store: Store, record: StudyRecord, console: Console) -> None:
            if tracking_uri is not None:
                write_report(store, record, Console(file=io.StringIO(), force_jupyter=False))
            study_answer = answer(record, store.trials(record.experiment_id))
            found.append(ShownAnswer(study_answer, best_curves(store, study_answer)))

        def launch(jobs: Sequence[Sequence[Share]]) -> list[list[Outcome] | str]:
            return [work_all([share.config for share in job], machine) for job in jobs]

        try:
            with _stores(tracking_uri, machine) as setup:
                run_study(plan, setup, launch, report, console=console)
        finally:
            gc.unfreeze()
    return found[0]


def train(
    task: Task | str | Mapping[str, Any],
    lr: float | Sequence[float] | Array,
    *,
    reduction: str = "mean",
    batch_size: int = 8,
    optimizer: str = "sgd",
    seeds: int | Sequence[int] = 1,
    epochs: int | None = None,
    steps: int | None = None,
    schedule: str | Mapping[str, Any] = "constant",
    accumulation: int = 1,
    drop_last: bool = True,
    device: str = "cpu",
    **options: Any,
) -> Curves:
    """Trains a model with each lr and each seed, all runs at once, and returns their curves. It records nothing.

    Args:
      task: as for `study`, and so are all arguments that are not named here.
      lr: the lr, or several of them.
      reduction: `mean`, `sum` or `sum_over_nominal`.
      batch_size: examples in a micro-batch.
      optimizer: a name of torch.optim in small letters.
      seeds: how many seeds each lr has, or a list of seeds.
      epochs: passes over the training data; 3 where neither `epochs` nor `steps` is given.
      steps: updates of the weights, instead of epochs.
      schedule: how the lr changes in a run: a name, or a mapping with its `name` and its options.
      accumulation: micro-batches per step; their gradients are added up.
      drop_last: whether the last step of an epoch is dropped where it has fewer examples than the others.
      device: as for `study`.
      options: options of the optimizer, such as `momentum=0.9`.

    Returns:
      The curves of all runs, with run = index of the lr x number of seeds + index of the seed.

    Raises:
      Refusal: a value cannot be used.

    Source:
      `tests/run/test_notebook.py` compares it with the trials of a study.

    Example:
      >>> curves = train("d2l", [0.003, 0.03], epochs=1)
      >>> curves.train_loss.shape == (len(curves.steps), 2)
      True
    """
    lrs = values if isinstance(values := plain(lr), list) else [values]
    machine = make_compute({**Compute()._asdict(), "device": device})
    with threads(machine.threads):
        config = called_config(
            _known(task),
            optimizer,
            {**options, "lr": lrs},
            schedule,
            epochs,
            steps,
            reduction=reduction,
            batch_size=batch_size,
            accumulation=accumulation,
            drop_last=drop_last,
            seeds=plain(seeds),
        )
        training = make_training(with_own_facts(config, device, len(lrs)))
        machine = machine._replace(device=chosen(device, [config]))
        check_files(training)
        return engine.train(training, make_task(training), machine)


def _known(task: Task | str | Mapping[str, Any]) -> str | Mapping[str, Any]:
    """Returns what a config says of a task."""
    return hold(task) if isinstance(task, Task) else task


@contextmanager
def _stores(tracking_uri: str | None, machine: Compute) -> Iterator[Setup]:
    """Yields the stores of a study: those of a command, or temporary ones where it is not to be recorded."""
    if tracking_uri is not None:
        yield Setup(tracking_uri, "optuna.journal", machine)
        return
    with tempfile.TemporaryDirectory(prefix="lrscale-") as folder:
        (Path(folder) / "mlflow.db").write_bytes(_empty_database())
        yield Setup(f"sqlite:///{folder}/mlflow.db", f"{folder}/optuna.journal", machine)


@cache
def _empty_database() -> bytes:
    """Returns MLflow's database without runs. To make one takes about 2 s, to write a copy none."""
    with tempfile.TemporaryDirectory(prefix="lrscale-") as folder:
        file = Path(folder) / "mlflow.db"
        make_database(file)
        return file.read_bytes()
