"""The training step of a `lrscale.Task`: a plain loop of torch under one of the reductions."""

from typing import Any

import torch
from torch import Tensor

from lrscale.audit.examples import MOST
from lrscale.audit.named import AuditedStep
from lrscale.rules import check, one_of
from lrscale.tasks.own import Task, called
from lrscale.tasks.terms import Terms
from lrscale.training.reduction import REDUCTIONS, STEP_DIVISORS

TASK_LR = 0.1
"""The lr of the step. The audit's findings do not depend on it, but the commands that translate an lr show it."""


def task_step(task: Task, reduction: str = "mean") -> AuditedStep:
    """Returns the step of a task, as SGD takes it, with a batch of its first training examples.

    The summed loss of all micro-batches is divided as in a study: see `STEP_DIVISORS`. The nominal size of a micro-batch, which
    `sum_over_nominal` divides by, is that of the batch. The reference is the mean over the batch's terms, so c is that of the
    reduction.

    Args:
      task: the task.
      reduction: a name of `REDUCTIONS`.

    Raises:
      Refusal: the reduction is not known.
    """
    check("--reduction", one_of(*REDUCTIONS), reduction)
    model, count = task.module, min(MOST, len(task.train))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=TASK_LR)

    def terms(batch: Any) -> Terms:
        x, y = batch
        return task.terms_of(called(model, x), y)

    def step(micro_batches: list[Any]) -> None:
        optimizer.zero_grad()
        parts = [terms(batch) for batch in micro_batches]
        divisor = STEP_DIVISORS[reduction](sum(part.weights.sum() for part in parts), count)
        for part in parts:
            (part.losses.sum() / divisor).backward()
        optimizer.step()

    def reference(batch: Any) -> Tensor:
        part = terms(batch)
        return part.losses.sum() / part.weights.sum()

    return AuditedStep(step, task.train.take(torch.arange(count)), model, {"reference": reference})
