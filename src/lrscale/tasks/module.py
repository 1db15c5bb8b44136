"""Tasks of one's own: any torch.nn.Module with a per-example loss, over the run axis by torch.func.

The way that always works; `models` has closed forms for the tasks that come with the program, which are checked against it.
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
"""A module's output for some examples, and their targets, to one number an example."""


def module_task(
    make: Callable[[], nn.Module], loss: PerExample, data: Arrays, wrong: PerExample | None = None, terms: Tensor | None = None
) -> Task:
    """Makes a task of a module and a per-example loss, for `train` to run many runs of at once.

    Each run is the module with weights of its own; gradients are autograd's. What the module gives for
    an example must depend on that example alone, and draw nothing at random: no batch statistics, no
    dropout (torch refuses both here unless the module is in eval mode). Frozen parameters and buffers
    are the same in all runs.

    Args:
      make: makes a module with fresh weights; called once for each seed, torch's generator seeded by it.
      loss: output for features [example, ...] and targets [example, ...] -> loss [example], not reduced.
      data: training and validation examples, along the first axis; features in the dtype to train in.
      wrong: like `loss`, 1 where the prediction is wrong; None where there are no classes.
      terms: how much each training example's loss counts, [example]; None where each counts 1.

    Returns:
      A task without a known optimum: its objective is train_loss, valid_loss or valid_error.

    Source:
      `torch.func`; agreement with plain loops and with the closed forms: `tests/tasks/test_module.py`.

    Example:
      >>> from dataclasses import replace
      >>> from lrscale.study.config import make_training
      >>> from lrscale.training.engine import train
      >>> x = torch.linspace(-1, 1, 32, dtype=torch.float64).unsqueeze(1)
      >>> task = module_task(lambda: nn.Linear(1, 1), lambda out, y: (out.squeeze(-1) - y).abs(), Arrays(x, x[:, 0], x, x[:, 0]))
      >>> sgd = {"name": "sgd", "lr": [0.1, 0.2], "momentum": 0, "dampening": 0, "weight_decay": 0, "nesterov": False}
      >>> config = {"task": {"name": "d2l"}, "optimizer": sgd, "budget": {"epochs": 10}, "reduction": "mean", "batch_size": 4}
      >>> config |= {"accumulation": 1, "drop_last": False, "objective": "train_loss", "dtype": "float64", "points": 5}
      >>> training = replace(make_training({**config, "seeds": 3}), examples=32)  # of this task, and not of d2l
      >>> losses = train(training, task).train_loss  # [point, run]: 2 lrs x 3 seeds
      >>> losses.shape[1], bool((losses[-1] < losses[0]).all())
      (6, True)
    """
    template = _module(make, torch.Generator().manual_seed(0)).to(data.x.dtype)
    names = _trained(template)

    def over_runs(measure: PerExample) -> Losses:
        def of_run(weights: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
            return measure(functional_call(template, dict(zip(names, weights, strict=True)), (x,)), y)

        of_seed = vmap(of_run, (0, None, None))
        return lambda parameters, x, y: vmap(of_seed)(list(parameters), x, y)

    def weighted(weights: list[Tensor], x: Tensor, y: Tensor, counts: Tensor) -> Tensor:
        return (loss(functional_call(template, dict(zip(names, weights, strict=True)), (x,)), y) * counts).sum()

    of_all_runs = vmap(vmap(grad(weighted), (0, None, None, 0)))

    losses = over_runs(loss)

    def gradients(
        parameters: Parameters, x: Tensor, y: Tensor, weights: Weights, out: Parameters, beta: int
    ) -> Callable[[], Tensor]:
        counts = torch.as_tensor(weights, dtype=x.dtype).expand(*parameters[0].shape[:2], x.shape[1])
        for held, gradient in zip(out, of_all_runs(list(parameters), x, y, counts), strict=True):
            _ = held.add_(gradient) if beta else held.copy_(gradient)
        return lambda: losses(parameters, x, y)

    def initial(generator: torch.Generator) -> list[Tensor]:
        fresh = dict(_module(make, generator).named_parameters())
        return [fresh[name].detach().double() for name in names]

    width = _numbers_kept(template, loss, data)
    return Task(data, terms, Model(initial, losses, gradients, wrong and over_runs(wrong), width), None, None)


def _module(make: Callable[[], nn.Module], generator: torch.Generator) -> nn.Module:
    """Makes a module. Modules draw from torch's own generator, which is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        return make()


def _trained(module: nn.Module) -> list[str]:
    return [name for name, parameter in module.named_parameters() if parameter.requires_grad]


def _numbers_kept(module: nn.Module, loss: PerExample, data: Arrays) -> int:
    """Numbers per example and run beside the weights while a gradient is taken: what autograd keeps, thrice."""
    shared = {tensor.data_ptr() for tensor in (*module.parameters(), *module.buffers(), data.x, data.y)}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in shared:
            kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        held = loss(module(data.x[:1]), data.y[:1])
    return 3 * (sum(kept.values()) + held.numel())
