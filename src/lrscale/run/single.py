"""Carries out a single training: records it as one MLflow run, and prints the loss after each epoch, as the book (d2l) does."""

import contextlib
import gc
import logging
import math
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from lrscale.errors import Refusal, masked
from lrscale.files import from_start
from lrscale.provenance import made_by
from lrscale.run.doing import doing
from lrscale.run.progress import Steps
from lrscale.spec import Compute, Training, is_own
from lrscale.study.config import make_training
from lrscale.study.own_code import own_facts
from lrscale.study.plan import short_number, with_values
from lrscale.system import uninterrupted
from lrscale.tasks.registry import check_files
from lrscale.training.device import chosen, described
from lrscale.training.quantity import Quantity
from lrscale.training.results import Result

_LOG = logging.getLogger(__name__)


def checked_single(config: Mapping[str, Any], compute: Compute) -> tuple[Mapping[str, Any], Compute, Training]:
    """Returns the config of a single training with what is known about the user's own code, its machine, and the training.

    Raises:
      Refusal: the config cannot be used.
    """
    own = any(is_own(config[group]["name"]) for group in ("task", "optimizer"))
    with doing("importing torch and trying your code") if own else contextlib.nullcontext():
        config = with_values(config, own_facts(config, device=compute.device))
    compute = compute._replace(device=chosen(compute.device, [config]))
    training = make_training(config)
    if training.trials > 1:
        raise Refusal(
            f"`optimizer.lr` must be one number in a single training, got {training.trials} numbers. "
            "To try several: lrscale run -m optimizer.lr=a,b."
        )
    check_files(training)
    return config, compute, training


def run_single(config: Mapping[str, Any], compute: Compute, tracking: Mapping[str, Any]) -> None:
    """Trains one trial with all seeds of its config, records it, and prints its losses and where it is recorded.

    Args:
      config: plain values, as `make_training` takes them; `optimizer.lr` is one number.
      compute: settings of the machine.
      tracking: the `uri` of the MLflow store, and the name of the `experiment`.

    Raises:
      Refusal: the config or the store cannot be used; nothing has been written.
      Failure: MLflow did not take the record; where it is a server, the record waits on disk.
    """
    config, compute, training = checked_single(config, compute)
    with doing("importing torch and mlflow"):  # it takes seconds, and what is refused above needs neither
        from lrscale.run.job import work
        from lrscale.tracking.client import check_uri, opening
        from lrscale.tracking.entries import now_ms
        from lrscale.tracking.singles import record_single
        from lrscale.tracking.store import Store
    gc.freeze()  # the objects loaded by now stay alive: they are not searched for garbage
    gc.enable()

    console = Console(highlight=False, markup=False, emoji=False)

    def say(line: str) -> None:
        console.print(line)
        _LOG.info(line)

    lr = training.optimizer.options["lr"][0]
    name = f"{training.reduction} b{training.batch_size} lr{short_number(lr)}"
    with contextlib.chdir(from_start(".")):
        check_uri(tracking["uri"])
        _LOG.debug("opening the store %s", masked(tracking["uri"]))
        with doing(opening(tracking["uri"])):
            store = Store(tracking["uri"])
        experiment = store.experiment(tracking["experiment"])
    _LOG.debug("training %s", name)
    started = now_ms()
    with Steps(Console(stderr=True, highlight=False, markup=False, emoji=False), "training") as steps:
        (result,) = work(config, compute, steps)
    for line in printed_lines(training, result):
        say(line)
    versions = made_by(described(compute.device, compute.tf32))
    with contextlib.chdir(from_start(".")), uninterrupted():
        run_id = record_single(store, experiment, name, config, compute, {"optimizer.lr": lr}, result, versions, started)
    say(f"recorded as {name!r} in {masked(tracking['uri'])}, experiment {tracking['experiment']}, run {run_id}")


def _quantity_line(quantity: Quantity) -> str:
    interval = "" if quantity.low is None else f" [{quantity.low:.6g}, {quantity.high:.6g}]"
    expected = "" if quantity.expected is None else f", expected {quantity.expected:.6g}"
    return f"{quantity.name} {quantity.value:.6g}{interval}{expected}"


def printed_lines(training: Training, result: Result) -> list[str]:
    """Returns the lines to print: the loss on all training data after each epoch and the objective, or a probe's quantities."""
    if result.quantities:
        return [_quantity_line(quantity) for quantity in result.quantities]
    losses = dict(zip(result.steps, result.curves["train_loss"], strict=True))
    per_epoch = training.steps_per_epoch
    epoch_ends = [(step // per_epoch, step) for step in losses if step % per_epoch == 0 and step > 0]
    lines = [f"epoch {epoch}, loss {losses[step]:.6g}" for epoch, step in epoch_ends]
    if not epoch_ends:
        lines = [f"step {step}, loss {losses[step]:.6g}" for step in list(losses)[-1:]]
    if any(result.diverged):
        lines.append(f"diverged: {sum(result.diverged)} of {len(result.diverged)} seeds")
    value = f"{result.objective:.6g}" if math.isfinite(result.objective) else "not reached"
    return [
        *lines,
        f"{training.objective} {value}" + (f", mean of {len(result.objectives)} seeds" if len(result.objectives) > 1 else ""),
    ]
