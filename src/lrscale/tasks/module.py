"""Tasks of a user: any torch.nn.Module with a per-example loss, for many runs at once by torch.func.

This way works for every module. `models` has closed forms for the tasks that come with the program, and tests check them
against this module.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call, grad, vmap

from lrscale.tasks.models import Losses, Model, Parameters, Weights
from lrscale.tasks.task import Arrays, Task

PerExample = Callable[[Any, Tensor], Tensor]
"""A function of a module's output for some examples and of their targets. It returns one number per example."""


def module_task(
    make: Callable[[], nn.Module], loss: PerExample, data: Arrays, wrong: PerExample | None = None, terms: Tensor | None = None
) -> Task:
    """Makes a task from a module and a per-example loss. `train` trains many runs of it at once.

    Each run is the module with weights of its own, and autograd computes the gradients. The module's output for an example
    must depend on that example only, and must not be random: no batch statistics and no dropout. (torch refuses both here
    unless the module is in eval mode.) Frozen parameters and buffers are the same in all runs.

    Args:
      make: makes a module with fresh weights. It is called for each seed, after torch's generator was seeded with that seed.
      loss: per-example loss, [example], not reduced, from the module's output [example, ...] and the targets [example, ...].
      data: training and validation examples, with examples along the first axis. Runs are trained in the features' dtype.
      wrong: like `loss`, but 1 where the prediction is wrong and 0 elsewhere; None where there are no classes.
      terms: how much the loss of each training example counts, [example]; None where each counts 1.

    Returns:
      A task without a known optimum. Its objective can be train_loss, valid_loss or valid_error.

    Source:
      `torch.func`. `tests/tasks/test_module.py` checks the agreement with plain loops and with the closed forms.

    Example:
      >>> from dataclasses import replace
      >>> from lrscale.study.config import make_training
      >>> from lrscale.training.engine import train
      >>> x = torch.linspace(-1, 1, 32, dtype=torch.float64).unsqueeze(1)
      >>> task = module_task(lambda: nn.Linear(1, 1), lambda out, y: (out.squeeze(-1) - y).abs(), Arrays(x, x[:, 0], x, x[:, 0]))
      >>> sgd = {"name": "sgd", "lr": [0.1, 0.2], "momentum": 0, "dampening": 0, "weight_decay": 0, "nesterov": False}
      >>> config = {"task": {"name": "d2l"}, "optimizer": sgd, "budget": {"epochs": 10}, "reduction": "mean", "batch_size": 4}
      >>> config |= {"accumulation": 1, "drop_last": False, "objective": "train_loss", "dtype": "float64", "points": 5}
      >>> training = replace(make_training({**config, "seeds": 3}), examples=32)  # of this task, not of d2l
      >>> losses = train(training, task).train_loss  # [point, run]: 2 lrs x 3 seeds
      >>> losses.shape[1], bool((losses[-1] < losses[0]).all())
      (6, True)
    """
    template = _make_module(make, torch.Generator().manual_seed(0)).to(data.x.dtype)
    names = _trained_names(template)

    def over_runs(measure: PerExample) -> Losses:
        """Returns the function that computes a per-example quantity for all runs at once."""

        def of_run(weights: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
            return measure(functional_call(template, dict(zip(names, weights, strict=True)), (x,)), y)

        of_seed = vmap(of_run, (0, None, None))
        return lambda parameters, x, y: vmap(of_seed)(list(parameters), x, y)

    def weighted_loss(weights: list[Tensor], x: Tensor, y: Tensor, counts: Tensor) -> Tensor:
        """Returns the sum of one run's per-example losses times `counts`."""
        return (loss(functional_call(template, dict(zip(names, weights, strict=True)), (x,)), y) * counts).sum()

    gradients_of_runs = vmap(vmap(grad(weighted_loss), (0, None, None, 0)))

    losses = over_runs(loss)

    def gradients(
        parameters: Parameters, x: Tensor, y: Tensor, weights: Weights, out: Parameters, beta: int
    ) -> Callable[[], Tensor]:
        counts = torch.as_tensor(weights, dtype=x.dtype).expand(*parameters[0].shape[:2], x.shape[1])
        for total, gradient in zip(out, gradients_of_runs(list(parameters), x, y, counts), strict=True):
            _ = total.add_(gradient) if beta else total.copy_(gradient)
        return lambda: losses(parameters, x, y)

    def initial(generator: torch.Generator) -> list[Tensor]:
        fresh = dict(_make_module(make, generator).named_parameters())
        return [fresh[name].detach().double() for name in names]

    width = _model_width(template, loss, data)
    return Task(data, terms, Model(initial, losses, gradients, wrong and over_runs(wrong), width), None, None)


def _make_module(make: Callable[[], nn.Module], generator: torch.Generator) -> nn.Module:
    """Makes a module from the seed of a generator.

    Modules draw from torch's global generator. Its state is the same after the call as before.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        return make()


def _trained_names(module: nn.Module) -> list[str]:
    """Returns the names of the parameters that are trained, in the module's order."""
    return [name for name, parameter in module.named_parameters() if parameter.requires_grad]


def _model_width(module: nn.Module, loss: PerExample, data: Arrays) -> int:
    """Returns how many numbers are kept per example and run while a gradient is taken, without the weights.

    It is three times the numbers that autograd saves for one example.
    """
    shared = {tensor.data_ptr() for tensor in (*module.parameters(), *module.buffers(), data.x, data.y)}
    saved_sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in shared:
            saved_sizes[tensor.data_ptr()] = tensor.numel()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        losses = loss(module(data.x[:1]), data.y[:1])
    return 3 * (sum(saved_sizes.values()) + losses.numel())
