"""Optimizers over a run axis: torch.optim's update rules, each run with hyperparameters of its own."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lrscale.law.homogeneity import RESPONSES

Hyper = Mapping[str, Any]
"""Hyperparameters by torch.optim's names: numbers, or tensors that broadcast over one parameter."""
State = dict[str, Tensor]


class Optimizer(NamedTuple):
    """An update rule for one parameter tensor of many runs.

    `update(parameter, gradient, state, hyper, step)` changes parameter and state in place; step
    counts from 1. Multiplying all gradients by s multiplies the updates by s^homogeneity (eps 0).
    """

    update: Callable[[Tensor, Tensor, State, Hyper, int], None]
    slots: Callable[[Hyper], tuple[str, ...]]
    homogeneity: float

    def state(self, parameter: Tensor, hyper: Hyper) -> State:
        """Returns the state before the first step."""
        fill = hyper.get("initial_accumulator_value", 0.0)
        return {name: torch.zeros_like(parameter) + fill for name in self.slots(hyper)}


def _used(value: Any) -> bool:
    return value.__class__ is Tensor or value != 0


def _decayed(parameter: Tensor, gradient: Tensor, hyper: Hyper) -> Tensor:
    return gradient + hyper["weight_decay"] * parameter if _used(hyper["weight_decay"]) else gradient


def _sgd(parameter: Tensor, gradient: Tensor, state: State, hyper: Hyper, step: int) -> None:
    gradient = _decayed(parameter, gradient, hyper)
    momentum = hyper["momentum"]
    if _used(momentum):
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
        square = torch.maximum(state["max_exp_avg_sq"], square, out=state["max_exp_avg_sq"])
    scale = (square.sqrt() / (1 - beta2**step) ** 0.5).add_(hyper["eps"])
    parameter.sub_((mean / scale).mul_(hyper["lr"] / (1 - beta1**step)))


def _adam(parameter: Tensor, gradient: Tensor, state: State, hyper: Hyper, step: int) -> None:
    _adam_step(parameter, _decayed(parameter, gradient, hyper), state, hyper, step)


def _adamw(parameter: Tensor, gradient: Tensor, state: State, hyper: Hyper, step: int) -> None:
    if _used(hyper["weight_decay"]):
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
    if _used(hyper["momentum"]):
        update = state["momentum_buffer"].mul_(hyper["momentum"]).add_(update)
    parameter.addcmul_(update, hyper["lr"], value=-1)


def _rmsprop_slots(hyper: Hyper) -> tuple[str, ...]:
    centered = ("grad_avg",) if hyper["centered"] else ()
    return ("square_avg", *centered, *(("momentum_buffer",) if _used(hyper["momentum"]) else ()))


def _adagrad(parameter: Tensor, gradient: Tensor, state: State, hyper: Hyper, step: int) -> None:
    gradient = _decayed(parameter, gradient, hyper)
    total = state["sum"].addcmul_(gradient, gradient)
    lr = hyper["lr"] / (1 + (step - 1) * hyper["lr_decay"])
    parameter.sub_(lr * gradient / (total.sqrt() + hyper["eps"]))


OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": Optimizer(_sgd, lambda hyper: ("momentum_buffer",) if _used(hyper["momentum"]) else (), RESPONSES["sgd"].p),
    "adam": Optimizer(_adam, _adam_slots, RESPONSES["adam"].p),
    "adamw": Optimizer(_adamw, _adam_slots, RESPONSES["adamw"].p),
    "rmsprop": Optimizer(_rmsprop, _rmsprop_slots, RESPONSES["rmsprop"].p),
    "adagrad": Optimizer(_adagrad, lambda hyper: ("sum",), RESPONSES["adagrad"].p),
}
