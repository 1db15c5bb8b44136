"""Probes: what a cell can measure directly, without tuning an lr. `spec.PROBES` holds their options."""

from collections.abc import Callable

from lrscale.probes import gradient_scale, homogeneity, last_batch, noise_scale, stability, translate
from lrscale.spec import Training
from lrscale.tasks.task import Task
from lrscale.training.quantity import Quantity

Probe = Callable[[Training, Task], list[Quantity]]
"""Measures a cell; its options are `training.probe.options`. The same cell gives the same numbers."""

PROBES: dict[str, Probe] = {
    "gradient_scale": gradient_scale.probe,
    "homogeneity": homogeneity.probe,
    "last_batch": last_batch.probe,
    "noise_scale": noise_scale.probe,
    "stability": stability.probe,
    "translate": translate.probe,
}
