"""Optimizers for many runs at once: what an optimizer is, and the registry of them. The rules stand in `update_rules`.

The rules are those of torch.optim, where each run has hyperparameters of its own. They only use methods of tensors, so the
declarations can be read without importing torch. The options are those of torch, without LEFT_OUT.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lrscale.spec import Declaration, Registry

if TYPE_CHECKING:
    from torch import Tensor

    State = dict[str, Any]

Hyper = Mapping[str, Any]
"""Hyperparameters by their names in torch.optim. Values are numbers, or tensors that broadcast over one parameter."""
LEFT_OUT = {
    **dict.fromkeys(
        ("foreach", "fused", "capturable", "differentiable"), "It does not change the steps, and all runs are one program here"
    ),
    "maximize": "The objective is always minimised",
    "t0": "It acts on the average of the weights only, and what is reported here is of the weights themselves",
}
"""The options of torch.optim that no optimizer has here, with the reasons."""
COUPLED = "coupled: added to the gradient"
"""The description of a weight decay that is added to the gradient."""
DECOUPLED = "decoupled: the weights shrink by lr x weight_decay"
"""The description of a weight decay that acts on the weights directly."""


@dataclass(frozen=True, kw_only=True)
class Optimizer(Declaration):
    """The declaration of an optimizer: its update rule for one parameter tensor of many runs.

    `update(parameter, gradient, state, hyper, step)` changes parameter and state in place; steps count from 1. Parameter and
    gradient are [seed, trial, *shape], so a norm or a mean over one run's parameter leaves out the first two dimensions.
    `slots(hyper)` returns the names of the tensors that the optimizer keeps as state, each as large as the parameter. At
    step 1 the rule may add smaller ones, such as a number for each run. `homogeneity` is the homogeneity p: if all gradients
    are multiplied by s, the updates are multiplied by s^p (with eps 0). `companions` holds, for each option that goes with
    the lr, the power of s by which it must be multiplied for the same steps. `is_exact` is False where the steps are then the
    same only nearly. `only_matrices` is True where every parameter must be a matrix. Every optimizer has an option `lr`.
    """

    update: Callable[[Tensor, Tensor, State, Hyper, int], None]
    slots: Callable[[Hyper], tuple[str, ...]]
    homogeneity: float
    companions: Mapping[str, float] = field(default_factory=dict)
    is_exact: bool = True
    only_matrices: bool = False

    def state(self, parameter: Tensor, hyper: Hyper) -> State:
        """Returns the state before the first step."""
        fill = hyper.get("initial_accumulator_value", 0.0)
        return {name: parameter.new_zeros(parameter.shape) + fill for name in self.slots(hyper)}

    def powers(self, options: Hyper) -> Mapping[str, float]:
        """Returns the companions for given options: a weight decay that the options make decoupled goes with s^p."""
        is_decoupled = bool(options.get("decoupled_weight_decay"))
        return {**self.companions, "weight_decay": self.homogeneity} if is_decoupled else self.companions


OPTIMIZERS: Registry[Optimizer] = Registry("optimizer")
"""The declared optimizers, by name."""


def is_nonzero(value: Any) -> bool:
    """Whether a hyperparameter is a tensor, or a number other than 0."""
    return not isinstance(value, int | float) or value != 0


def decayed(parameter: Tensor, gradient: Tensor, hyper: Hyper) -> Tensor:
    """Returns the gradient plus weight_decay x the parameter."""
    return gradient + hyper["weight_decay"] * parameter if is_nonzero(hyper["weight_decay"]) else gradient


def shrink(parameter: Tensor, hyper: Hyper) -> None:
    """Multiplies the parameter by 1 - lr x weight_decay in place: decoupled weight decay."""
    if is_nonzero(hyper["weight_decay"]):
        parameter.mul_(1 - hyper["lr"] * hyper["weight_decay"])
