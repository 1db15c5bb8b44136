"""Update rules that divide by a root of squared gradients: RMSprop, Adagrad and Adadelta."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lrscale.law.homogeneity import RESPONSES, companion_powers
from lrscale.rules import BOOLEAN, FRACTION, NOT_NEGATIVE, POSITIVE
from lrscale.spec import Option
from lrscale.training.optimizers import COUPLED, OPTIMIZERS, Optimizer, decayed, is_nonzero

if TYPE_CHECKING:
    from torch import Tensor

    from lrscale.training.optimizers import Hyper, State


def _rmsprop(parameter: Tensor, gradient: Tensor, state: State, hyper: Hyper, step: int) -> None:
    gradient = decayed(parameter, gradient, hyper)
    alpha, square = hyper["alpha"], state["square_avg"]
    square.mul_(alpha).add_((1 - alpha) * gradient * gradient)
    if hyper["centered"]:
        mean = state["grad_avg"]
        mean.add_((1 - alpha) * (gradient - mean))
        square = square - mean * mean
    update = gradient / (square.sqrt() + hyper["eps"])
    if is_nonzero(hyper["momentum"]):
        update = state["momentum_buffer"].mul_(hyper["momentum"]).add_(update)
    parameter.addcmul_(update, hyper["lr"], value=-1)


def _rmsprop_slots(hyper: Hyper) -> tuple[str, ...]:
    centered = ("grad_avg",) if hyper["centered"] else ()
    return ("square_avg", *centered, *(("momentum_buffer",) if is_nonzero(hyper["momentum"]) else ()))


def _adagrad(parameter: Tensor, gradient: Tensor, state: State, hyper: Hyper, step: int) -> None:
    gradient = decayed(parameter, gradient, hyper)
    total = state["sum"].addcmul_(gradient, gradient)
    lr = hyper["lr"] / (1 + (step - 1) * hyper["lr_decay"])
    parameter.sub_(lr * gradient / (total.sqrt() + hyper["eps"]))


def _adadelta(parameter: Tensor, gradient: Tensor, state: State, hyper: Hyper, step: int) -> None:
    gradient = decayed(parameter, gradient, hyper)
    rho, eps, updates = hyper["rho"], hyper["eps"], state["acc_delta"]
    square = state["square_avg"].mul_(rho).add_((1 - rho) * gradient * gradient)
    update = (updates + eps).sqrt_().div_((square + eps).sqrt_()).mul_(gradient)
    updates.mul_(rho).add_((1 - rho) * update * update)
    parameter.addcmul_(update, hyper["lr"], value=-1)


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
OPTIMIZERS.declare(
    "adadelta",
    Optimizer(
        about="torch.optim.Adadelta",
        options={
            "lr": Option(1.0, POSITIVE),
            "rho": Option(0.9, FRACTION),
            "eps": Option(1e-6, NOT_NEGATIVE, "under the roots of squared gradients and of squared updates"),
            "weight_decay": Option(0.0, NOT_NEGATIVE, COUPLED),
        },
        update=_adadelta,
        slots=lambda hyper: ("square_avg", "acc_delta"),
        homogeneity=RESPONSES["adadelta"].p,
        companions=companion_powers("adadelta"),
        is_exact=False,  # no eps is right for both roots
    ),
)
