"""What the steps of all frameworks share: six examples, small networks, and how a case is written down."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

EXAMPLES, LENGTH, FEATURES, CLASSES, WINDOW = 6, 8, 5, 4, 4
COUNTED = (1, 2, 5, 3, 6, 4)  # tokens of each sentence that have a label: as unlike as they can be
Batch = dict[str, torch.Tensor]


class Case(NamedTuple):
    """One training step and what `lrscale.audit` must be given to judge it."""

    step: Callable[[list[Batch]], object]
    batch: Batch
    model: nn.Module
    options: dict[str, Any]


def points() -> Batch:
    """Six examples of five features `x`, each with a class `y` of four."""
    draw = torch.Generator().manual_seed(0)
    return {"x": torch.randn(EXAMPLES, FEATURES, generator=draw), "y": torch.randint(CLASSES, (EXAMPLES,), generator=draw)}


def sequences() -> Batch:
    """Six sentences of eight tokens with features `x`, and labels `y`: -100 where a token has none."""
    draw = torch.Generator().manual_seed(1)
    x, y = torch.randn(EXAMPLES, LENGTH, FEATURES, generator=draw), torch.randint(CLASSES, (EXAMPLES, LENGTH), generator=draw)
    for sentence, counted in enumerate(COUNTED):
        y[sentence, counted:] = -100
    return {"x": x, "y": y}


def prompts() -> Batch:
    """Six sentences as a language model reads them: ids, mask, and labels for an answer that follows a prompt.

    The first token never has a label, so the labels that count are the same with and without the shift by one.
    """
    draw = torch.Generator().manual_seed(2)
    ids = torch.randint(1, 32, (EXAMPLES, LENGTH), generator=draw)
    labels, mask = ids.clone(), torch.ones_like(ids)
    for sentence, counted in enumerate(COUNTED):
        labels[sentence, 0], labels[sentence, 1 + counted :], mask[sentence, 1 + counted :] = -100, -100, 0
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def network() -> nn.Module:
    """A small network from features to classes."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, CLASSES))


def mean(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Cross-entropy, averaged over the labels of `batch` that count."""
    return nn.functional.cross_entropy(model(batch["x"]).flatten(0, -2), batch["y"].flatten())


def total(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Cross-entropy, summed over the labels of `batch` that count."""
    return nn.functional.cross_entropy(model(batch["x"]).flatten(0, -2), batch["y"].flatten(), reduction="sum")


def labels(batch: Batch) -> int:
    """How many labels of `batch` count."""
    return int((batch["y"] != -100).sum())


def with_reference(case: Case) -> Case:
    """The same case, with the mean over the labels of a batch as its reference."""
    net = getattr(case.model, "net", case.model)  # of a module of Lightning
    return case._replace(options={**case.options, "reference": lambda batch: mean(net, batch)})
