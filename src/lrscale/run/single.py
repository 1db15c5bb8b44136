"""A single training: trains, records one run, and prints what the book prints, the loss after each epoch."""

import math
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from lrscale.errors import Refusal
from lrscale.provenance import made_by
from lrscale.run.job import work
from lrscale.signals import uninterrupted
from lrscale.spec import Compute, Training
from lrscale.study.config import make_training
from lrscale.study.plan import short_number
from lrscale.tasks.registry import check_files
from lrscale.training.quantity import Quantity
from lrscale.training.results import Result


def run_single(config: Mapping[str, Any], compute: Compute, tracking: Mapping[str, Any]) -> None:
    """Trains once, with every seed of the config, records it and prints losses and where it is recorded.

    Raises:
      Refusal: the config or the store cannot be used; nothing has been written.
    """
    from lrscale.tracking.client import check_uri
    from lrscale.tracking.store import Store

    made = make_training(config)
    if made.trials > 1:
        raise Refusal(
            f"`optimizer.lr` must be one number in a single training, got {made.trials}. "
            "Sweep it: lrscale run -m optimizer.lr=a,b."
        )
    check_files(made)
    check_uri(tracking["uri"])
    store = Store(tracking["uri"])
    experiment = store.experiment(tracking["experiment"])
    (result,) = work(config, compute)
    lr = made.optimizer.options["lr"][0]
    name = f"{made.reduction} b{made.batch_size} lr{short_number(lr)}"
    console = Console(highlight=False, markup=False, emoji=False)
    for line in printed_lines(made, result):
        console.print(line)
    with uninterrupted():
        run_id = store.record_single(experiment, name, config, compute, {"optimizer.lr": lr}, result, made_by())
    console.print(f"recorded as {name!r} in {tracking['uri']}, experiment {tracking['experiment']}, run {run_id}")


def _measured(quantity: Quantity) -> str:
    interval = "" if quantity.low is None else f" [{quantity.low:.6g}, {quantity.high:.6g}]"
    expected = "" if quantity.expected is None else f", expected {quantity.expected:.6g}"
    return f"{quantity.name} {quantity.value:.6g}{interval}{expected}"


def printed_lines(made: Training, result: Result) -> list[str]:
    """The lines that are printed: the whole-data loss after each epoch and the objective, or what a probe measured."""
    if result.quantities:
        return [_measured(quantity) for quantity in result.quantities]
    losses = dict(zip(result.steps, result.curves["train_loss"], strict=True))
    ends = [(step // made.steps_per_epoch, step) for step in losses if step % made.steps_per_epoch == 0 and step > 0]
    lines = [f"epoch {epoch}, loss {losses[step]:.6g}" for epoch, step in ends]
    if not ends:
        lines = [f"step {step}, loss {losses[step]:.6g}" for step in list(losses)[-1:]]
    if any(result.diverged):
        lines.append(f"diverged: {sum(result.diverged)} of {len(result.diverged)} seeds")
    value = f"{result.objective:.6g}" if math.isfinite(result.objective) else "not reached"
    return [
        *lines,
        f"{made.objective} {value}" + (f", mean of {len(result.objectives)} seeds" if len(result.objectives) > 1 else ""),
    ]
