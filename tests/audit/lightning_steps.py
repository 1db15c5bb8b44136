"""Steps of Lightning: each makes one update by `Trainer.fit` over a list of micro-batches.

Read in lightning 2.6.6 (src/lightning/pytorch):
  loops/optimization/automatic.py, `ClosureResult.from_training_step_output`: divides every loss by `accumulate_grad_batches`,
    also in a last window that is shorter.
  loops/optimization/automatic.py, `_AutomaticOptimization._optimizer_step`: hands `optimizer.step` a closure, which the optimizer
    calls once; forward, `zero_grad`, backward and clipping of the last micro-batch happen inside.
  loops/optimization/manual.py: divides nothing; the module decides when to step.
  plugins/precision/amp.py, `MixedPrecision.optimizer_step`: unscales in `optimizer.step()`, before `on_before_optimizer_step`.
    So `self.clip_gradients` in a manual `training_step` still meets scaled gradients.
"""

from collections.abc import Callable
from typing import Any

import lightning
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn
from torch.utils.data import DataLoader

from tests.audit.framework_data import WINDOW, Batch, Case, labels, mean, network

Loss = Callable[[nn.Module, Batch], torch.Tensor]


class Module(lightning.LightningModule):
    """Automatic optimization of `loss(net, batch)` by SGD. Lightning divides."""

    def __init__(self, loss: Loss = mean) -> None:
        super().__init__()
        self.net, self.loss = network(), loss

    def training_step(self, batch: Batch, index: int) -> Any:
        return self.loss(self.net, batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Manual(Module):
    """Manual optimization: `divisor(module)` is what each loss is divided by; the update comes after the last micro-batch."""

    def __init__(self, divisor: Callable[["Manual"], float] = lambda _: 1.0, loss: Loss = mean) -> None:
        super().__init__(loss)
        self.divisor, self.automatic_optimization = divisor, False
        self.window: list[Batch] = []  # what `step_of` feeds

    def training_step(self, batch: Batch, index: int) -> None:
        self.manual_backward(self.loss(self.net, batch) / self.divisor(self))
        if self.trainer.is_last_batch:
            self.update()

    def update(self) -> None:
        optimizer = self.optimizers()
        optimizer.step()
        optimizer.zero_grad()


class ClipsScaled(Manual):
    """Clips in `training_step`, where gradients are still multiplied by the loss scale."""

    def update(self) -> None:
        self.clip_gradients(self.optimizers(), gradient_clip_val=1.0)
        super().update()


class ClipsUnscaled(Manual):
    """Clips in the hook that comes after unscaling."""

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.clip_gradients(optimizer, gradient_clip_val=1.0)


def batches(module: Manual) -> float:
    """Divides by the micro-batches of this update, however many there are."""
    return len(module.window)


def setting(module: Manual) -> float:
    """Divides by the window that was set, also where the last one has fewer."""
    return WINDOW


def counted(module: Manual) -> float:
    """Divides by the labels of the whole update."""
    return sum(map(labels, module.window))


def step_of(module: Module, window: int | None = None, **options: Any) -> Callable[[list[Batch]], object]:
    """One update of `module`. `window`: its `accumulate_grad_batches`; None takes the number of micro-batches that are given."""

    def step(micro_batches: list[Batch]) -> None:
        module.window = micro_batches
        if module.automatic_optimization:
            options["accumulate_grad_batches"] = window or len(micro_batches)
        scaled = {"plugins": MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))} if options.get("scaled") else {}
        trainer = lightning.Trainer(
            accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, **scaled, **{k: v for k, v in options.items() if k != "scaled"},
        )  # fmt: skip
        trainer.fit(module, DataLoader(micro_batches, batch_size=None))

    return step


def lightning_case(module: Module, batch: Batch, accumulation: int | None = WINDOW, **options: Any) -> Case:
    """A case of `module`; `options` go to `step_of`."""
    return Case(step_of(module, **options), batch, module, {"accumulation": accumulation})
