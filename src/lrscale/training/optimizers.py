"""Optimizers for many runs at once: the update rules of torch.optim, where each run has hyperparameters of its own.

The update rules come first, and the declarations of the optimizers are at the end. The rules only use methods of tensors,
so the declarations can be read without importing torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lrscale.errors import Refusal
from lrscale.law.homogeneity import RESPONSES, companion_powers
from lrscale.rules import BETAS, BOOLEAN, FRACTION, NOT_NEGATIVE, POSITIVE
from lrscale.spec import Declaration, Option, Registry, Training

if TYPE_CHECKING:
    from torch import Tensor

    State = dict[str, Tensor]

Hyper = Mapping[str, Any]
"""Hyperparameters by their names in torch.optim. Values are numbers, or tensors that broadcast over one parameter."""


@dataclass(frozen=True, kw_only=True)
class Optimizer(Declaration):
    """The declaration of an optimizer: its update rule for one parameter tensor of many runs.

    `update(parameter, gradient, state, hyper, step)` changes parameter and state in place; steps count from 1.
    `slots(hyper)` returns the names of the tensors that the optimizer keeps as state. `homogeneity` is the homogeneity p: if
    all gradients are multiplied by s, the updates are multiplied by s^p (with eps 0). `companions` holds, for each option
    that goes with the lr, the power of s by which it must be multiplied for the same steps. Every optimizer has an option
    `lr`.
    """

    update: Callable[[Tensor, Tensor, State, Hyper, int], None]
    slots: Callable[[Hyper], tuple[str, ...]]
    homogeneity: float
    companions: Mapping[str, float] = field(default_factory=dict)

    def state(self, parameter: Tensor, hyper: Hyper) -> State:
        """Returns the state before the first step."""
        fill = hyper.get("initial_accumulator_value", 0.0)
        return {name: parameter.new_zeros(parameter.shape) + fill for name in self.slots(hyper)}


OPTIMIZERS: Registry[Optimizer] = Registry("optimizer")
"""The declared optimizers, by name."""


def _is_nonzero(value: Any) -> bool:
    """Whether a hyperparameter is a tensor, or a number other than 0."""
    return not isinstance(value, int | float) or value != 0


def _decayed(parameter: Tensor, gradient: Tensor, hyper: Hyper) -> Tensor:
    """Returns the gradient plus weight_decay x the parameter."""
    return gradient + hyper["weight_decay"] * parameter if _is_nonzero(hyper["weight_decay"]) else gradient


def _sgd(parameter: Tensor, gradient: Tensor, state: State, hyper: Hyper, step: int) -> None:
    gradient = _decayed(parameter, gradient, hyper)
    momentum = hyper["momentum"]
    if _is_nonzero(momentum):
        buffer = state["momentum_buffer"]
        if step == 1:
            buffer.copy_(gradient)
        else:
            buffer.mul_(momentum).add_((1 - hyper["dampening"]) * gradient)
        gradient = gradient + momentum * buffer if hyper["nesterov"] else buffer
    parameter.addcmul_(gradient, hyper["lr"], value=-1)


def _adam_step(parameter: Tensor, gradient: Tensor, state: State, hyper: Hyper, step: int) -> None:
    beta1, beta2 = hyper["betas"]
    mean, square = state["exp_avg"], state["exp_avg_sq"]
    mean.lerp_(gradient, 1 - beta1)
    square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    if hyper["amsgrad"]:
        square = state["max_exp_avg_sq"].copy_(state["max_exp_avg_sq"].maximum(square))
    scale = (square.sqrt() / (1 - beta2**step) ** 0.5).add_(hyper["eps"])
    parameter.sub_((mean / scale).mul_(hyper["lr"] / (1 - beta1**step)))


def _adam(parameter: Tensor, gradient: Tensor, state: State, hyper: Hyper, step: int) -> None:
    _adam_step(parameter, _decayed(parameter, gradient, hyper), state, hyper, step)


def _adamw(parameter: Tensor, gradient: Tensor, state: State, hyper: Hyper, step: int) -> None:
    if _is_nonzero(hyper["weight_decay"]):
        parameter.mul_(1 - hyper["lr"] * hyper["weight_decay"])
    _adam_step(parameter, gradient, state, hyper, step)


def _adam_slots(hyper: Hyper) -> tuple[str, ...]:
    return ("exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if hyper["amsgrad"] else ()))


def _rmsprop(parameter: Tensor, gradient: Tensor, state: State, hyper: Hyper, step: int) -> None:
    gradient = _decayed(parameter, gradient, hyper)
    alpha, square = hyper["alpha"], state["square_avg"]
    square.mul_(alpha).add_((1 - alpha) * gradient * gradient)
    if hyper["centered"]:
        mean = state["grad_avg"]
        mean.add_((1 - alpha) * (gradient - mean))
        square = square - mean * mean
    update = gradient / (square.sqrt() + hyper["eps"])
    if _is_nonzero(hyper["momentum"]):
        update = state["momentum_buffer"].mul_(hyper["momentum"]).add_(update)
    parameter.addcmul_(update, hyper["lr"], value=-1)


def _rmsprop_slots(hyper: Hyper) -> tuple[str, ...]:
    centered = ("grad_avg",) if hyper["centered"] else ()
    return ("square_avg", *centered, *(("momentum_buffer",) if _is_nonzero(hyper["momentum"]) else ()))


def _adagrad(parameter: Tensor, gradient: Tensor, state: State, hyper: Hyper, step: int) -> None:
    gradient = _decayed(parameter, gradient, hyper)
    total = state["sum"].addcmul_(gradient, gradient)
    lr = hyper["lr"] / (1 + (step - 1) * hyper["lr_decay"])
    parameter.sub_(lr * gradient / (total.sqrt() + hyper["eps"]))


def _momentum_slots(hyper: Hyper) -> tuple[str, ...]:
    return ("momentum_buffer",) if _is_nonzero(hyper["momentum"]) else ()


def _check_nesterov(training: Training) -> None:
    """Raises Refusal where nesterov is on without momentum, or with dampening, as torch.optim.SGD does."""
    options = training.optimizer.options
    if options["nesterov"] and (options["momentum"] == 0 or options["dampening"] != 0):
        raise Refusal(
            "`optimizer.nesterov` true needs momentum > 0 and dampening 0, got "
            f"momentum {options['momentum']!r:.60}, dampening {options['dampening']!r:.60}."
        )


COUPLED = "coupled: added to the gradient"
"""The description of a weight decay that is added to the gradient."""


def _adam_options(weight_decay: Option) -> dict[str, Option]:
    """Returns the options of Adam and AdamW, which differ in their weight decay."""
    return {
        "lr": Option(0.001, POSITIVE),
        "betas": Option([0.9, 0.999], BETAS),
        "eps": Option(1e-8, NOT_NEGATIVE),
        "weight_decay": weight_decay,
        "amsgrad": Option(False, BOOLEAN),
    }


OPTIMIZERS.declare(
    "sgd",
    Optimizer(
        about="torch.optim.SGD",
        options={
            "lr": Option(0.001, POSITIVE),
            "momentum": Option(0.0, FRACTION),
            "dampening": Option(0.0, FRACTION),
            "weight_decay": Option(0.0, NOT_NEGATIVE, COUPLED),
            "nesterov": Option(False, BOOLEAN),
        },
        variants={"momentum": {"momentum": 0.9}},
        check=_check_nesterov,
        update=_sgd,
        slots=_momentum_slots,
        homogeneity=RESPONSES["sgd"].p,
        companions=companion_powers("sgd"),
    ),
)
OPTIMIZERS.declare(
    "adam",
    Optimizer(
        about="torch.optim.Adam",
        options=_adam_options(Option(0.0, NOT_NEGATIVE, COUPLED)),
        update=_adam,
        slots=_adam_slots,
        homogeneity=RESPONSES["adam"].p,
        companions=companion_powers("adam"),
    ),
)
OPTIMIZERS.declare(
    "adamw",
    Optimizer(
        about="torch.optim.AdamW",
        options=_adam_options(Option(0.01, NOT_NEGATIVE, "decoupled: the weights shrink by lr x weight_decay")),
        update=_adamw,
        slots=_adam_slots,
        homogeneity=RESPONSES["adamw"].p,
        companions=companion_powers("adamw"),
    ),
)
OPTIMIZERS.declare(
    "rmsprop",
    Optimizer(
        about="torch.optim.RMSprop",
        options={
            "lr": Option(0.01, POSITIVE),
            "alpha": Option(0.99, FRACTION),
            "eps": Option(1e-8, NOT_NEGATIVE),
            "weight_decay": Option(0.0, NOT_NEGATIVE, COUPLED),
            "momentum": Option(0.0, FRACTION),
            "centered": Option(False, BOOLEAN),
        },
        update=_rmsprop,
        slots=_rmsprop_slots,
        homogeneity=RESPONSES["rmsprop"].p,
        companions=companion_powers("rmsprop"),
    ),
)
OPTIMIZERS.declare(
    "adagrad",
    Optimizer(
        about="torch.optim.Adagrad",
        options={
            "lr": Option(0.01, POSITIVE),
            "lr_decay": Option(0.0, NOT_NEGATIVE),
            "weight_decay": Option(0.0, NOT_NEGATIVE, COUPLED),
            "initial_accumulator_value": Option(0.0, NOT_NEGATIVE),
            "eps": Option(1e-10, NOT_NEGATIVE),
        },
        update=_adagrad,
        slots=lambda hyper: ("sum",),
        homogeneity=RESPONSES["adagrad"].p,
        companions=companion_powers("adagrad"),
    ),
)
