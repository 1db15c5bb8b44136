"""Update rules that see a whole matrix at once: Adafactor and Muon."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lrscale.errors import Refusal
from lrscale.law.homogeneity import RESPONSES, companion_powers
from lrscale.rules import BOOLEAN, FRACTION, NOT_NEGATIVE, POSITIVE, Rule, integer, is_number
from lrscale.spec import Option, Training
from lrscale.tasks.registry import TASKS
from lrscale.training.optimizers import DECOUPLED, OPTIMIZERS, Optimizer, shrink

if TYPE_CHECKING:
    from torch import Tensor

    from lrscale.training.optimizers import Hyper, State


def _run_rms(values: Tensor) -> Tensor:
    """Returns the root mean square over each run's parameter, [seed, trial, 1, ...]."""
    return values.square().mean(tuple(range(2, values.ndim)), keepdim=True).sqrt_()


def _adafactor(parameter: Tensor, gradient: Tensor, state: State, hyper: Hyper, step: int) -> None:
    smallest, least_rms = hyper["eps"]
    if smallest is None:
        smallest = 2.0**-52 if parameter.element_size() == 8 else 2.0**-23  # the eps of float64 and of float32
    fresh = float(step) ** hyper["beta2_decay"]  # the weight of this step's squares
    size = _run_rms(parameter).clamp_(min=least_rms) * hyper["lr"].clamp(max=step**-0.5)
    shrink(parameter, hyper)
    squares, estimate = gradient * gradient, state["variance"]
    if gradient.ndim > 3:  # a matrix, or several: the squares are taken to be a product of a column and a row
        for name, axis in (("row_var", -1), ("col_var", -2)):
            mean = squares.mean(axis, keepdim=True)
            state[name] = mean if step == 1 else state[name].lerp_(mean, fresh)
        rows, columns = state["row_var"], state["col_var"]
        estimate.copy_(rows * columns).div_(rows.mean(-2, keepdim=True).clamp_(min=smallest))
    else:
        estimate.lerp_(squares, fresh)
    update = estimate.clamp(min=smallest * smallest).rsqrt_().mul_(gradient)
    parameter.sub_(update.mul_(size / (_run_rms(update) / hyper["d"]).clamp_(min=1)))


def _muon(parameter: Tensor, gradient: Tensor, state: State, hyper: Hyper, step: int) -> None:
    momentum, buffer = hyper["momentum"], state["momentum_buffer"]
    buffer.add_((1 - momentum) * (gradient - buffer))
    update = gradient + momentum * (buffer - gradient) if hyper["nesterov"] else buffer
    shrink(parameter, hyper)
    rows, columns = parameter.shape[2:]
    is_like_adamw = hyper["adjust_lr_fn"] == "match_rms_adamw"
    ratio = 0.2 * max(rows, columns) ** 0.5 if is_like_adamw else max(1, rows / columns) ** 0.5
    parameter.sub_(_orthogonalised(update, hyper).to(parameter.dtype) * (hyper["lr"] * ratio))


def _orthogonalised(update: Tensor, hyper: Hyper) -> Tensor:
    """Returns the update of each run with its singular values moved close to 1, by Newton-Schulz steps in bfloat16.

    The products are taken in the order in which torch.optim.Muon takes them, because bfloat16 keeps three digits only.
    """
    a, b, c = hyper["ns_coefficients"]
    is_tall = update.shape[-2] > update.shape[-1]
    matrices: Tensor = update.bfloat16().flatten(0, 1)
    matrices = matrices.mT if is_tall else matrices
    eps = hyper["eps"] if isinstance(hyper["eps"], int | float) else hyper["eps"].expand(*update.shape[:2], 1, 1).flatten(0, 1)
    matrices = matrices / matrices.norm(dim=(-2, -1), keepdim=True).clamp(min=eps)
    for _ in range(hyper["ns_steps"]):
        gram = matrices @ matrices.mT
        matrices = matrices.baddbmm(gram.baddbmm(gram, gram, beta=b, alpha=c), matrices, beta=a)
    return (matrices.mT if is_tall else matrices).view(update.shape)


def _check_matrices(training: Training) -> None:
    """Raises Refusal where the task has a parameter that is no matrix, as torch.optim.Muon does."""
    if not TASKS[training.task.name].only_matrices:
        raise Refusal(
            f"`optimizer` muon takes parameters that are matrices only, as torch.optim.Muon does, got task {training.task.name} "
            "with a vector, such as a bias. Take optimizer=adamw."
        )


def _is_pair(value: object) -> bool:
    if not isinstance(value, list | tuple) or len(value) != 2:
        return False
    return all(is_number(v) and v >= 0 for v in value[value[0] is None :])


EPS_PAIR = Rule("must be two numbers >= 0; the first can be null, for the dtype's own eps", _is_pair)
"""The rule of Adafactor's eps."""
COEFFICIENTS = Rule("must be three numbers", lambda v: isinstance(v, list | tuple) and len(v) == 3 and all(map(is_number, v)))
"""The rule of Muon's Newton-Schulz coefficients."""

OPTIMIZERS.declare(
    "adafactor",
    Optimizer(
        about="torch.optim.Adafactor",
        options={
            "lr": Option(0.01, POSITIVE, "relative to the root mean square of the weights; at most step^-0.5"),
            "beta2_decay": Option(-0.8, Rule("must be finite and <= 0", lambda v: is_number(v) and v <= 0)),
            "eps": Option([None, 0.001], EPS_PAIR, "floors of squared gradients and of the weights' root mean square"),
            "d": Option(1.0, Rule("must be finite and >= 1", lambda v: is_number(v) and v >= 1), "largest size of an update"),
            "weight_decay": Option(0.0, NOT_NEGATIVE, DECOUPLED),
        },
        update=_adafactor,
        slots=lambda hyper: ("variance",),
        homogeneity=RESPONSES["adafactor"].p,
        companions={"weight_decay": companion_powers("adafactor")["weight_decay"]},
        is_exact=False,  # the first eps is a floor of gradients and of their squares
    ),
)
OPTIMIZERS.declare(
    "muon",
    Optimizer(
        about="torch.optim.Muon; all parameters must be matrices",
        options={
            "lr": Option(0.001, POSITIVE),
            "weight_decay": Option(0.1, NOT_NEGATIVE, DECOUPLED),
            "momentum": Option(0.95, FRACTION),
            "nesterov": Option(True, BOOLEAN),
            "ns_coefficients": Option([3.4445, -4.775, 2.0315], COEFFICIENTS),
            "eps": Option(1e-7, NOT_NEGATIVE),
            "ns_steps": Option(5, integer(0, 99), "Newton-Schulz steps"),
            "adjust_lr_fn": Option(
                None,
                Rule("must be null, original or match_rms_adamw", lambda v: v in (None, "original", "match_rms_adamw")),
                "how the lr goes with the shape",
            ),
        },
        check=_check_matrices,
        update=_muon,
        slots=lambda hyper: ("momentum_buffer",),
        homogeneity=RESPONSES["muon"].p,
        companions=companion_powers("muon"),
        only_matrices=True,
    ),
)
