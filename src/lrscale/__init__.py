"""The public API: how the learning rate must scale with batch size when gradients are summed instead of averaged.

Each public name is imported when it is first used. So `import lrscale` is quick, and `lrscale.translate` needs no torch.
"""

import sys
from importlib import import_module
from inspect import signature
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lrscale.audit.audit import audit
    from lrscale.audit.check import assert_batch_invariant
    from lrscale.audit.finding import Audit, Finding
    from lrscale.audit.watch import watch
    from lrscale.law.homogeneity import RESPONSES
    from lrscale.law.least_squares import (
        best_lr_after_epochs,
        best_lr_after_steps,
        expected_excess,
        fastest_lr,
        fourth_moment,
        mean_square_edge,
        noise_scales,
        sign_step_lr,
        soonest_lr,
        stability_edge,
    )
    from lrscale.law.moments import Momentum
    from lrscale.law.stability import (
        almost_sure_edge,
        critical_batch,
        heavy_ball_edge,
        heavy_ball_turn_over,
        interpolation_lr,
        momentum_edge,
    )
    from lrscale.law.translation import Batch, translate
    from lrscale.provenance import NUMBERS, __version__
    from lrscale.report.shown import ShownAnswer
    from lrscale.run.notebook import study, train
    from lrscale.study.config import make_training
    from lrscale.tasks.own import Task
    from lrscale.tasks.terms import top1
    from lrscale.training.engine import Curves

__all__ = [
    "NUMBERS",
    "RESPONSES",
    "Audit",
    "Batch",
    "Curves",
    "Finding",
    "Momentum",
    "ShownAnswer",
    "Task",
    "__version__",
    "almost_sure_edge",
    "assert_batch_invariant",
    "audit",
    "best_lr_after_epochs",
    "best_lr_after_steps",
    "critical_batch",
    "expected_excess",
    "fastest_lr",
    "fourth_moment",
    "heavy_ball_edge",
    "heavy_ball_turn_over",
    "interpolation_lr",
    "make_training",
    "mean_square_edge",
    "momentum_edge",
    "noise_scales",
    "sign_step_lr",
    "soonest_lr",
    "stability_edge",
    "study",
    "top1",
    "train",
    "translate",
    "watch",
]

_MODULES = {
    "audit.check": ("assert_batch_invariant",),
    "audit.finding": ("Audit", "Finding"),
    "audit.watch": ("watch",),
    "law.homogeneity": ("RESPONSES",),
    "law.least_squares": (
        *("best_lr_after_epochs", "best_lr_after_steps", "expected_excess", "fastest_lr", "fourth_moment"),
        *("mean_square_edge", "noise_scales", "sign_step_lr", "soonest_lr", "stability_edge"),
    ),
    "law.moments": ("Momentum",),
    "law.stability": (
        *("almost_sure_edge", "critical_batch", "heavy_ball_edge", "heavy_ball_turn_over", "interpolation_lr"),
        "momentum_edge",
    ),
    "law.translation": ("Batch", "translate"),
    "provenance": ("NUMBERS", "__version__"),
    "report.shown": ("ShownAnswer",),
    "run.notebook": ("train",),
    "study.config": ("make_training",),
    "tasks.own": ("Task",),
    "tasks.terms": ("top1",),
    "training.engine": ("Curves",),
}
"""The public names of each module."""


class _Function(ModuleType):
    """A package that can be called, as the public function of the same name."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Calls the public function: see `lrscale.run.notebook.study` and `lrscale.audit.audit.audit`."""
        return _of(*_FUNCTIONS[self.__name__])(*arguments, **options)

    @property
    def __signature__(self) -> Any:
        return signature(_of(*_FUNCTIONS[self.__name__]))


_FUNCTIONS = {"lrscale.study": ("run.notebook", "study"), "lrscale.audit": ("audit.audit", "audit")}
"""The packages that have the name of a public function, with its module and name."""
for _package in _FUNCTIONS:
    import_module(_package)
    sys.modules[_package].__class__ = _Function


def _of(module: str, name: str) -> Any:
    """Returns what a module of this package defines under a name."""
    return getattr(import_module(f"lrscale.{module}"), name)


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return _of(module, name)
    raise AttributeError(f"module 'lrscale' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
