"""Update rules that follow the gradient or its signs: SGD, ASGD and Rprop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lrscale.errors import Refusal
from lrscale.law.homogeneity import RESPONSES, companion_powers
from lrscale.rules import BOOLEAN, FRACTION, NOT_NEGATIVE, POSITIVE, Rule, is_number
from lrscale.spec import Option, Training
from lrscale.training.optimizers import COUPLED, OPTIMIZERS, Optimizer, decayed, is_nonzero

if TYPE_CHECKING:
    from torch import Tensor

    from lrscale.training.optimizers import Hyper, State


def _sgd(parameter: Tensor, gradient: Tensor, state: State, hyper: Hyper, step: int) -> None:
    gradient = decayed(parameter, gradient, hyper)
    momentum = hyper["momentum"]
    if is_nonzero(momentum):
        buffer = state["momentum_buffer"]
        if step == 1:
            buffer.copy_(gradient)
        else:
            buffer.mul_(momentum).add_((1 - hyper["dampening"]) * gradient)
        gradient = gradient + momentum * buffer if hyper["nesterov"] else buffer
    parameter.addcmul_(gradient, hyper["lr"], value=-1)


def _momentum_slots(hyper: Hyper) -> tuple[str, ...]:
    return ("momentum_buffer",) if is_nonzero(hyper["momentum"]) else ()


def _check_nesterov(training: Training) -> None:
    """Raises Refusal where nesterov is on without momentum, or with dampening, as torch.optim.SGD does."""
    options = training.optimizer.options
    if options["nesterov"] and (options["momentum"] == 0 or options["dampening"] != 0):
        raise Refusal(
            "`optimizer.nesterov` true needs momentum > 0 and dampening 0, got "
            f"momentum {options['momentum']!r:.60}, dampening {options['dampening']!r:.60}."
        )


def _asgd(parameter: Tensor, gradient: Tensor, state: State, hyper: Hyper, step: int) -> None:
    gradient = decayed(parameter, gradient, hyper)
    eta = hyper["lr"] if step == 1 else state["eta"]
    parameter.mul_(1 - hyper["lambd"] * eta).sub_(eta * gradient)
    state["eta"] = hyper["lr"] / (1 + hyper["lambd"] * hyper["lr"] * step) ** hyper["alpha"]  # of the next step


def _rprop(parameter: Tensor, gradient: Tensor, state: State, hyper: Hyper, step: int) -> None:
    (shrinking, growing), (smallest, largest) = hyper["etas"], hyper["step_sizes"]
    before, size = state["prev"], state["step_size"]
    if step == 1:
        size += hyper["lr"]
    product = gradient * before
    turned = product < 0
    factor = product.new_ones(product.shape).masked_fill_(product > 0, growing).masked_fill_(turned, shrinking)
    size.mul_(factor).clamp_(smallest, largest)
    before.copy_(gradient).masked_fill_(turned, 0)
    parameter.addcmul_(before.sign(), size, value=-1)


def _is_etas(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(is_number, value)) and 0 < value[0] < 1 < value[1]


def _is_range(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(is_number, value)) and 0 <= value[0] <= value[1]


ETAS = Rule("must be two numbers, the first > 0 and < 1 and the second > 1", _is_etas)
"""The rule of Rprop's factors."""
STEP_SIZES = Rule("must be two numbers >= 0, the first at most the second", _is_range)
"""The rule of Rprop's smallest and largest step."""

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
        variants={"momentum": {"momentum": 0.9}, "nesterov": {"momentum": 0.9, "nesterov": True}},
        check=_check_nesterov,
        update=_sgd,
        slots=_momentum_slots,
        homogeneity=RESPONSES["sgd"].p,
        companions=companion_powers("sgd"),
    ),
)
OPTIMIZERS.declare(
    "asgd",
    Optimizer(
        about="torch.optim.ASGD; the weights are those of the steps, not their average, so t0 is left out",
        options={
            "lr": Option(0.01, POSITIVE),
            "lambd": Option(0.0001, NOT_NEGATIVE, "decoupled: the weights shrink by lr x lambd, and the lr decays with it"),
            "alpha": Option(0.75, NOT_NEGATIVE, "power of the lr's decay"),
            "weight_decay": Option(0.0, NOT_NEGATIVE, COUPLED),
        },
        update=_asgd,
        slots=lambda hyper: (),
        homogeneity=RESPONSES["asgd"].p,
        companions=companion_powers("asgd"),
    ),
)
OPTIMIZERS.declare(
    "rprop",
    Optimizer(
        about="torch.optim.Rprop",
        options={
            "lr": Option(0.01, POSITIVE, "the size of the first step; later sizes follow the signs of the gradients"),
            "etas": Option([0.5, 1.2], ETAS, "factors of the step where the gradient's sign changes, and where it stays"),
            "step_sizes": Option([1e-6, 50], STEP_SIZES, "the smallest and the largest step"),
        },
        update=_rprop,
        slots=lambda hyper: ("prev", "step_size"),
        homogeneity=RESPONSES["rprop"].p,
    ),
)
