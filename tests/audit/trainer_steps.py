"""Steps of Hugging Face's Trainer: each makes one update by `Trainer.train()` on small random models.

Read in transformers 5.24 (src/transformers):
  trainer.py, `_get_num_items_in_batch`: counts the labels of a whole window that are not -100, from `labels[..., 1:]` for causal
    language models, where the model's forward takes `**kwargs` or a `compute_loss_func` is given.
  trainer.py, `training_step`: divides the loss by the number of micro-batches in this window (a short last window has fewer),
    unless the model takes `**kwargs` and there is a count, or a `compute_loss_func` is given.
    `loss_is_scaled_for_ga` overrules that.
  trainer.py, `create_accelerator_and_postprocess`: gives Accelerate a window of 1, so that `accelerator.backward` divides by 1.
  trainer.py, `_run_epoch`: clips once an update, at `max_grad_norm`, which is 1.0 unless it is set.
  loss/loss_utils.py, `fixed_cross_entropy`: the sum over tokens by `num_items_in_batch`; the mean where it is not given.
  modeling_layers.py, `GenericForSequenceClassification.forward`: takes `**kwargs` and does not hand them to its loss.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    MixtralConfig,
    MixtralForCausalLM,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)

from tests.audit.framework_data import CLASSES, WINDOW, Batch, Case, prompts

SIZES: dict[str, Any] = {
    "vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 16, "pad_token_id": 0, "attn_implementation": "eager",
    "initializer_range": 0.3,  # so that no part of the gradient is negligible
}  # fmt: skip


def language_model() -> LlamaForCausalLM:
    """A Llama of one layer with random weights."""
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES))


class WithoutCount(LlamaForCausalLM):
    """A model of one's own whose forward takes no `**kwargs`: the count of the window cannot reach its loss."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor) -> Any:
        return super().forward(input_ids=input_ids, attention_mask=attention_mask, labels=labels)


def local_mean(model: nn.Module, inputs: Batch) -> torch.Tensor:
    """The loss of a forward pass that knows nothing of the window: the mean over the tokens of one micro-batch."""
    loss: torch.Tensor = model(**inputs).loss
    return loss


class DropsCount(LlamaForCausalLM):
    """A model whose forward takes `**kwargs`, so that the Trainer leaves the division to it, and drops them."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor, **_: Any) -> Any:
        return super().forward(input_ids=input_ids, attention_mask=attention_mask, labels=labels)


class LocalMean(Trainer):
    """Overrides `compute_loss` with the mean over one micro-batch. The Trainer trusts it to have divided by the count."""

    def compute_loss(self, model: nn.Module, inputs: Batch, *_: Any, **__: Any) -> torch.Tensor:
        return local_mean(model, inputs)


class LocalMeanDeclared(LocalMean):
    """The same, and tells the Trainer that nothing was divided by the window yet."""

    loss_is_scaled_for_ga = False


class DividesAgain(Trainer):
    """Divides a loss, which was divided by the tokens of the window, by the number of micro-batches as well."""

    def compute_loss(self, *args: Any, **options: Any) -> torch.Tensor:
        return super().compute_loss(*args, **options) / self.current_gradient_accumulation_steps


class TimesWindow(Trainer):
    """Multiplies by the number of micro-batches, to undo a division that is not made any more."""

    def compute_loss(self, *args: Any, **options: Any) -> torch.Tensor:
        return super().compute_loss(*args, **options) * self.current_gradient_accumulation_steps


class TimesSetting(Trainer):
    """The same by the setting, which is also applied to a window that is shorter."""

    def compute_loss(self, *args: Any, **options: Any) -> torch.Tensor:
        return super().compute_loss(*args, **options) * self.args.gradient_accumulation_steps


def step_of(trainer: Trainer) -> Callable[[list[Batch]], object]:
    """One update of `trainer`, from a list of micro-batches in place of its own data."""

    def step(micro_batches: list[Batch]) -> None:
        trainer.get_train_dataloader = lambda: DataLoader(micro_batches, batch_size=None)
        trainer.train()

    return step


def sum_over_count(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor) -> torch.Tensor:
    """A right `compute_loss_func`: the sum over the tokens of a micro-batch, divided by the tokens of the window."""
    return cross_entropy(outputs, labels, "sum") / num_items_in_batch


def mean_over_micro_batch(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor) -> torch.Tensor:
    """A wrong one, which ignores the count. The Trainer trusts it to have divided."""
    return cross_entropy(outputs, labels, "mean")


def cross_entropy(outputs: Any, labels: torch.Tensor, reduction: str) -> torch.Tensor:
    """Cross-entropy of each token with the next one."""
    return nn.functional.cross_entropy(outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction=reduction)


def trainer_case(
    folder: Path, model: nn.Module, kind: type[Trainer] = Trainer, batch: Batch | None = None, **settings: Any
) -> Case:
    """A case of `kind`, in a window of four micro-batches. `settings` go to TrainingArguments, `compute_loss_func` to Trainer."""
    loss = settings.pop("compute_loss_func", None)
    options = {"max_steps": 1, "gradient_accumulation_steps": WINDOW, "max_grad_norm": 0.0, "optim": "sgd", **settings}
    quiet = {"report_to": "none", "disable_tqdm": True, "save_strategy": "no", "logging_strategy": "no", "use_cpu": True}
    trainer = kind(model, TrainingArguments(str(folder), **quiet, **options), compute_loss_func=loss)
    trainer.remove_callback(PrinterCallback)
    return Case(step_of(trainer), batch or prompts(), model, {"accumulation": WINDOW})


def with_own_loss(case: Case) -> Case:
    """The same case, with the model's own loss as its reference: the mean over the tokens of a batch."""
    return case._replace(options={**case.options, "reference": lambda batch: local_mean(case.model, batch)})


def classifier_case(folder: Path, is_told: bool = False) -> Case:
    """Transformers' own Llama with a head for four classes, which drops the count in some versions. `is_told`: says so."""
    torch.manual_seed(0)
    model = LlamaForSequenceClassification(LlamaConfig(**SIZES, num_labels=CLASSES))
    if is_told:
        model.accepts_loss_kwargs = False
    return trainer_case(folder, model, batch={**prompts(), "labels": torch.tensor([0, 1, 2, 3, 0, 1])})


def mixture(router_loss: bool) -> MixtralForCausalLM:
    """A Mixtral of one layer and four experts, two for each token; with or without its loss on the router."""
    torch.manual_seed(0)
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "router_aux_loss_coef": 0.1, "output_router_logits": router_loss}
    return MixtralForCausalLM(MixtralConfig(**SIZES, **experts, experts_implementation="eager"))
