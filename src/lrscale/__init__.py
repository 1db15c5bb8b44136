"""The public API: how the learning rate must scale with batch size when gradients are summed instead of averaged.

Each public name is imported when it is first used. So `import lrscale` is quick, and `lrscale.translate` needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lrscale.law.homogeneity import RESPONSES
    from lrscale.law.least_squares import (
        best_lr_after_epochs,
        best_lr_after_steps,
        expected_excess,
        fastest_lr,
        fourth_moment,
        mean_square_edge,
        noise_scales,
        soonest_lr,
        stability_edge,
    )
    from lrscale.law.stability import almost_sure_edge, critical_batch, interpolation_lr, momentum_edge
    from lrscale.law.translation import Batch, translate
    from lrscale.provenance import NUMBERS, __version__
    from lrscale.study.config import make_training
    from lrscale.tasks.own import Task
    from lrscale.tasks.terms import top1
    from lrscale.training.engine import Curves, train

__all__ = [
    "NUMBERS",
    "RESPONSES",
    "Batch",
    "Curves",
    "Task",
    "__version__",
    "almost_sure_edge",
    "best_lr_after_epochs",
    "best_lr_after_steps",
    "critical_batch",
    "expected_excess",
    "fastest_lr",
    "fourth_moment",
    "interpolation_lr",
    "make_training",
    "mean_square_edge",
    "momentum_edge",
    "noise_scales",
    "soonest_lr",
    "stability_edge",
    "top1",
    "train",
    "translate",
]

_MODULES = {
    "law.homogeneity": ("RESPONSES",),
    "law.least_squares": (
        *("best_lr_after_epochs", "best_lr_after_steps", "expected_excess", "fastest_lr", "fourth_moment"),
        *("mean_square_edge", "noise_scales", "soonest_lr", "stability_edge"),
    ),
    "law.stability": ("almost_sure_edge", "critical_batch", "interpolation_lr", "momentum_edge"),
    "law.translation": ("Batch", "translate"),
    "provenance": ("NUMBERS", "__version__"),
    "study.config": ("make_training",),
    "tasks.own": ("Task",),
    "tasks.terms": ("top1",),
    "training.engine": ("Curves", "train"),
}
"""The public names of each module."""


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"lrscale.{module}"), name)
    raise AttributeError(f"module 'lrscale' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
