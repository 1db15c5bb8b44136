"""The probes: measurements of a cell that tune no lr. Each module has the name of its probe. Imports `training` and below."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lrscale.rules import PROPORTION
from lrscale.spec import Declaration, Option, Registry, Training

if TYPE_CHECKING:
    from lrscale.tasks.built_in import BuiltInTask
    from lrscale.tasks.own import Task
    from lrscale.training.quantity import Quantity


@dataclass(frozen=True, kw_only=True)
class Probe(Declaration):
    """The declaration of a probe.

    `measure(training, task)` returns the quantities of a cell. It must return the same numbers for the same cell. It finds
    the probe's options in `training.probe.options`. `measure_own` does the same with a task of the user's own, and is None
    where the probe needs a task that comes with lrscale.
    """

    measure: Callable[[Training, BuiltInTask], list[Quantity]]
    measure_own: Callable[[Training, Task], list[Quantity]] | None = None


FRACTION_DONE = Option(0.0, PROPORTION, "fraction of training after which the probe measures")
"""The option `fraction` of probes that measure along training."""
PROBES: Registry[Probe] = Registry("probe", "lrscale.probes")
"""The declared probes, by name. A probe's module is imported when its name is looked up."""
