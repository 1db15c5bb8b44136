"""What a cell can measure without tuning an lr; a module's name is its probe's. Imports `training` and below."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lrscale.spec import Declaration, Registry, Training

if TYPE_CHECKING:
    from lrscale.tasks.task import Task
    from lrscale.training.quantity import Quantity


@dataclass(frozen=True, kw_only=True)
class Probe(Declaration):
    """A measurement: `measure(training, task)` returns a cell's quantities, the same ones for the same cell.

    Its options are `training.probe.options`.
    """

    measure: Callable[[Training, Task], list[Quantity]]


PROBES: Registry[Probe] = Registry("probe", "lrscale.probes")
