"""Update rules with running means of gradients and their squares: Adam, AdamW, Adamax, NAdam and RAdam."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lrscale.law.homogeneity import RESPONSES, companion_powers
from lrscale.rules import BETAS, BOOLEAN, NOT_NEGATIVE, POSITIVE
from lrscale.spec import Option
from lrscale.training.optimizers import COUPLED, DECOUPLED, OPTIMIZERS, Optimizer, decayed, shrink

if TYPE_CHECKING:
    from torch import Tensor

    from lrscale.training.optimizers import Hyper, State


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
    _adam_step(parameter, decayed(parameter, gradient, hyper), state, hyper, step)


def _adamw(parameter: Tensor, gradient: Tensor, state: State, hyper: Hyper, step: int) -> None:
    shrink(parameter, hyper)
    _adam_step(parameter, gradient, state, hyper, step)


def _adam_slots(hyper: Hyper) -> tuple[str, ...]:
    return ("exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if hyper["amsgrad"] else ()))


def _adamax(parameter: Tensor, gradient: Tensor, state: State, hyper: Hyper, step: int) -> None:
    gradient = decayed(parameter, gradient, hyper)
    beta1, beta2 = hyper["betas"]
    mean = state["exp_avg"].lerp_(gradient, 1 - beta1)
    largest = state["exp_inf"].mul_(beta2)
    largest.copy_(largest.maximum(gradient.abs().add_(hyper["eps"])))
    parameter.sub_((mean / largest).mul_(hyper["lr"] / (1 - beta1**step)))


def _moments(parameter: Tensor, gradient: Tensor, state: State, hyper: Hyper) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the gradient with its weight decay, and the running means of it and of its square, after they are updated."""
    beta1, beta2 = hyper["betas"]
    if hyper["decoupled_weight_decay"]:
        shrink(parameter, hyper)
    else:
        gradient = decayed(parameter, gradient, hyper)
    mean = state["exp_avg"].lerp_(gradient, 1 - beta1)
    return gradient, mean, state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)


def _nadam(parameter: Tensor, gradient: Tensor, state: State, hyper: Hyper, step: int) -> None:
    gradient, mean, square = _moments(parameter, gradient, state, hyper)
    beta1, beta2 = hyper["betas"]
    now, later = (beta1 * (1 - 0.5 * 0.96 ** (k * hyper["momentum_decay"])) for k in (step, step + 1))
    product = state["mu_product"] = state.get("mu_product", 1.0) * now
    scale = (square / (1 - beta2**step)).sqrt_().add_(hyper["eps"])
    parameter.sub_((gradient / scale).mul_(hyper["lr"] * ((1 - now) / (1 - product))))
    parameter.sub_((mean / scale).mul_(hyper["lr"] * (later / (1 - product * later))))


def _radam(parameter: Tensor, gradient: Tensor, state: State, hyper: Hyper, step: int) -> None:
    _, mean, square = _moments(parameter, gradient, state, hyper)
    beta1, beta2 = hyper["betas"]
    correction = 1 - beta2**step
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * step * beta2**step / correction
    update = mean * (hyper["lr"] / (1 - beta1**step))
    if length > 5:  # before, the variance of the second moment is not known, and the step does not use it
        rectified = ((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)) ** 0.5
        update.mul_(correction**0.5 * rectified).div_(square.sqrt().add_(hyper["eps"]))
    parameter.sub_(update)


def _adam_options(weight_decay: Option) -> dict[str, Option]:
    """Returns the options of Adam and AdamW, which differ in their weight decay."""
    return {
        "lr": Option(0.001, POSITIVE),
        "betas": Option([0.9, 0.999], BETAS),
        "eps": Option(1e-8, NOT_NEGATIVE),
        "weight_decay": weight_decay,
        "amsgrad": Option(False, BOOLEAN),
    }


EITHER = f"{COUPLED}; with decoupled_weight_decay the weights shrink by lr x weight_decay"
"""The description of a weight decay that can be either."""

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
        options=_adam_options(Option(0.01, NOT_NEGATIVE, DECOUPLED)),
        update=_adamw,
        slots=_adam_slots,
        homogeneity=RESPONSES["adamw"].p,
        companions=companion_powers("adamw"),
    ),
)
OPTIMIZERS.declare(
    "adamax",
    Optimizer(
        about="torch.optim.Adamax",
        options={
            "lr": Option(0.002, POSITIVE),
            "betas": Option([0.9, 0.999], BETAS),
            "eps": Option(1e-8, NOT_NEGATIVE),
            "weight_decay": Option(0.0, NOT_NEGATIVE, COUPLED),
        },
        update=_adamax,
        slots=lambda hyper: ("exp_avg", "exp_inf"),
        homogeneity=RESPONSES["adamax"].p,
        companions=companion_powers("adamax"),
    ),
)
OPTIMIZERS.declare(
    "nadam",
    Optimizer(
        about="torch.optim.NAdam",
        options={
            "lr": Option(0.002, POSITIVE),
            "betas": Option([0.9, 0.999], BETAS),
            "eps": Option(1e-8, NOT_NEGATIVE),
            "weight_decay": Option(0.0, NOT_NEGATIVE, EITHER),
            "momentum_decay": Option(0.004, NOT_NEGATIVE),
            "decoupled_weight_decay": Option(False, BOOLEAN),
        },
        update=_nadam,
        slots=lambda hyper: ("exp_avg", "exp_avg_sq"),
        homogeneity=RESPONSES["nadam"].p,
        companions=companion_powers("nadam"),
    ),
)
OPTIMIZERS.declare(
    "radam",
    Optimizer(
        about="torch.optim.RAdam",
        options={
            "lr": Option(0.001, POSITIVE),
            "betas": Option([0.9, 0.999], BETAS),
            "eps": Option(1e-8, NOT_NEGATIVE),
            "weight_decay": Option(0.0, NOT_NEGATIVE, EITHER),
            "decoupled_weight_decay": Option(False, BOOLEAN),
        },
        update=_radam,
        slots=lambda hyper: ("exp_avg", "exp_avg_sq"),
        homogeneity=RESPONSES["radam"].p,
        companions=companion_powers("radam"),
        is_exact=False,  # p = 1 in the first steps
    ),
)
