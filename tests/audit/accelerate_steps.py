"""Steps of Accelerate: each makes one update by a loop under `accelerator.accumulate`, over a list of micro-batches.

Read in accelerate 1.15 (src/accelerate):
  accelerator.py, `backward`: divides every loss by `gradient_accumulation_steps`, also in a last window that is shorter.
  accelerator.py, `_do_sync`: a window also ends with the data.
  optimizer.py, `AcceleratedOptimizer.step` and `zero_grad`: do nothing before a window ends.
  accelerator.py, `clip_grad_norm_`: clips at every call, whether or not a window ends; `sync_gradients` tells.
"""

import os
from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from torch import distributed, nn
from torch.utils.data import DataLoader

from tests.audit.framework_data import WINDOW, Batch, Case, labels, mean, network, sequences, total


def accelerator_of(window: int = WINDOW) -> Accelerator:
    """A fresh accelerator on the CPU: Accelerate keeps one state for the whole process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    return Accelerator(cpu=True, gradient_accumulation_steps=window)


def accelerate_case(loss: Callable[..., torch.Tensor], batch: Batch, whole_windows: bool = True, clip: str = "") -> Case:
    """A case of the loop from Accelerate's documentation, in a window of four micro-batches.

    Args:
      loss: of `(model, micro_batch, micro_batches, accelerator)`.
      batch: the examples.
      whole_windows: sets the window to the number of micro-batches of each update; else it stays four, and the last is short.
      clip: clips at "every" backward, or at the "last" of a window.
    """
    accelerator = accelerator_of()
    net = network()
    model, optimizer = accelerator.prepare(net, torch.optim.SGD(net.parameters(), lr=0.1))

    def step(micro_batches: list[Batch]) -> None:
        if whole_windows:
            accelerator.gradient_accumulation_steps = len(micro_batches)
        for micro_batch in accelerator.prepare_data_loader(DataLoader(micro_batches, batch_size=None)):
            with accelerator.accumulate(model):
                accelerator.backward(loss(model, micro_batch, micro_batches, accelerator))
                if clip == "every" or (clip == "last" and accelerator.sync_gradients):
                    accelerator.clip_grad_norm_(model.parameters(), 0.5)
                optimizer.step()
                optimizer.zero_grad()

    return Case(step, batch, net, {"accumulation": WINDOW})


def local_mean(model: Any, micro_batch: Batch, window: list[Batch], accelerator: Accelerator) -> torch.Tensor:
    """The mean over one micro-batch. Accelerate divides by its setting."""
    return mean(model, micro_batch)


def divided_again(model: Any, micro_batch: Batch, window: list[Batch], accelerator: Accelerator) -> torch.Tensor:
    """The same, divided by hand as well."""
    return mean(model, micro_batch) / accelerator.gradient_accumulation_steps


def over_the_window(model: Any, micro_batch: Batch, window: list[Batch], accelerator: Accelerator) -> torch.Tensor:
    """The sum over the window's count, times the setting by which `backward` divides."""
    return total(model, micro_batch) / sum(map(labels, window)) * accelerator.gradient_accumulation_steps


def over_the_window_divided(model: Any, micro_batch: Batch, window: list[Batch], accelerator: Accelerator) -> torch.Tensor:
    """The sum over the window's count, which `backward` then divides once more."""
    return total(model, micro_batch) / sum(map(labels, window))


def makes_rank(gathers: bool) -> Callable[[], tuple[Callable[[list[Batch]], object], Batch, nn.Module]]:
    """Makes a step of one of several processes, where DDP averages gradients.

    Args:
      gathers: divides by the labels of all processes, times their number; else by those of its own.
    """

    def make() -> tuple[Callable[[list[Batch]], object], Batch, nn.Module]:
        if distributed.is_initialized() and distributed.get_world_size() > 1:  # what a launcher tells Accelerate
            rank, size = str(distributed.get_rank()), str(distributed.get_world_size())
            os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "OMP_NUM_THREADS": "1"}
        accelerator = accelerator_of(1)
        net = network()
        model, optimizer = accelerator.prepare(net, torch.optim.SGD(net.parameters(), lr=0.1))

        def step(micro_batches: list[Batch]) -> None:
            optimizer.zero_grad()
            for micro_batch in micro_batches:
                count = torch.tensor(labels(micro_batch))
                if gathers:
                    count = accelerator.gather(count).sum() / accelerator.num_processes
                accelerator.backward(total(model, micro_batch) / count)
            optimizer.step()

        return step, sequences(), net

    return make
