"""The habits of training libraries: what a batch size counts, who divides by the micro-batches, and the defaults of knobs."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from lrscale.law.homogeneity import RESPONSES

_BETAS = {"beta1": 0.9, "beta2": 0.999}
KNOB_DEFAULTS: dict[str, dict[str, float]] = {
    "adam": _BETAS | {"eps": 1e-8},
    "adamw": {"weight_decay": 0.01} | _BETAS | {"eps": 1e-8},
    "nadam": _BETAS | {"eps": 1e-8},
    "adamax": _BETAS | {"eps": 1e-8},
    "sparseadam": _BETAS | {"eps": 1e-8},
    "radam": _BETAS | {"eps": 1e-8},
    "rmsprop": {"eps": 1e-8},
    "adagrad": {"eps": 1e-10},
    "muon": {"weight_decay": 0.1, "eps": 1e-7},
    "lion": {"beta1": 0.9, "beta2": 0.99},
    "lamb": _BETAS,
}
"""The defaults that must change with a batch's gradient or size, where they are a number above 0, by optimizer.

They are those of torch.optim, and for lion and lamb those of their papers.
"""


class Habit(NamedTuple):
    """The habits of one library.

    `about` states them. `is_per_rank` says whether a batch size is that of one rank, or that of all; either is of one
    micro-batch. `divides` says whether the library itself divides by the number of micro-batches. `adds_up_sums` says whether
    the sums of ranks are added up, not averaged. `defaults` replaces values of `KNOB_DEFAULTS`.
    """

    about: str
    is_per_rank: bool = True
    divides: bool = True
    adds_up_sums: bool = False
    defaults: Mapping[str, float] = MappingProxyType({})


NO_DECAY = {"weight_decay": 0.0}
HABITS = {
    "hf": Habit(
        "HF Trainer: batch sizes are per device and micro-batch, accumulated losses are divided by the number of micro-batches "
        "or of the update's tokens (num_items_in_batch)",
        defaults=NO_DECAY,
    ),
    "lightning": Habit(
        "Lightning: batch sizes are per device and micro-batch, accumulation is divided (but not in manual optimization)"
    ),
    "accelerate": Habit(
        "Accelerate: batch sizes are per process and micro-batch (split_batches=False), accumulation is divided by backward"
    ),
    "deepspeed": Habit(
        "DeepSpeed: a batch size is train_micro_batch_size_per_gpu, accumulation is divided by backward, ranks are averaged",
        defaults=NO_DECAY,
    ),
    "ddp": Habit(
        "DDP: batch sizes are per process and micro-batch, ranks are averaged, accumulation is not divided without --divided",
        divides=False,
    ),
    "fsdp": Habit(
        "FSDP: batch sizes are per process and micro-batch, ranks are averaged as by DDP, accumulation is not divided "
        "without --divided",
        divides=False,
    ),
    "keras": Habit(
        "Keras: batch sizes are over all replicas of tf.distribute, per micro-batch, accumulation is averaged; replicas add up "
        "sums and average means",
        is_per_rank=False,
        adds_up_sums=True,
        defaults={"eps": 1e-7, "weight_decay": 0.004},
    ),
}
"""The libraries that are known, by the name that `--from` takes.

Source: transformers 5.24 `Trainer.training_step`, lightning 2.6 `ClosureResult`, accelerate 1.15 `Accelerator.backward`,
DeepSpeed's `_scale_loss_by_gas` and `allreduce_bucket`, torch 2.13 `_get_gradient_divide_factors` of FSDP; keras.io.
`tests/commands/test_translate.py` runs a loop with each library's habits.
"""


def default_knobs(optimizer: str, library: str | None) -> dict[str, float]:
    """Returns the values of eps, betas and weight decay that an optimizer has where nobody gives any, if they are above 0.

    Args:
      optimizer: a name of `homogeneity.RESPONSES`.
      library: a name of `HABITS`; None for torch alone.

    Example:
      >>> default_knobs("adamw", "keras"), default_knobs("rmsprop", None)
      ({'weight_decay': 0.004, 'beta1': 0.9, 'beta2': 0.999, 'eps': 1e-07}, {'eps': 1e-08})
    """
    own = HABITS[library].defaults if library else {}
    values = {name: own.get(name, value) for name, value in KNOB_DEFAULTS.get(optimizer, {}).items()}
    return {name: value for name, value in values.items() if value and (name != "eps" or RESPONSES[optimizer].eps)}
