"""A detector adds two means, over all boxes and over the boxes that hold an object, and is trained with accumulation.

Right: divide both sums by one count, here the number of images.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.cases import Batch, Case, generator, loop, seeded

BOXES = 12


def images(seed: int, dtype: torch.dtype) -> Batch:
    """Images x [image, channel, row, column], classes y [image, box] with 0 for no object, and places z [image, box, 4]."""
    draw = generator(seed)
    x, z = (torch.randn(6, *shape, generator=draw, dtype=torch.float64).to(dtype) for shape in ((1, 12, 12), (BOXES, 4)))
    objects = torch.arange(BOXES) < 1 + torch.randperm(6, generator=draw)[:, None]
    return {"x": x, "y": objects * torch.randint(1, 3, (6, BOXES), generator=draw), "z": z}


def detector() -> nn.Sequential:
    """Gives 3 scores and 4 numbers of a place for each box."""
    convolution, head = nn.Conv2d(1, 8, 3, stride=2), nn.Linear(200, BOXES * 7)
    return nn.Sequential(convolution, nn.ReLU(), nn.Flatten(), head, nn.Unflatten(1, (BOXES, 7)))


def sums(model: nn.Module, micro: Batch) -> tuple[Tensor, Tensor]:
    """The summed losses of the classes, and of the places of objects."""
    out, objects = model(micro["x"]), micro["y"] > 0
    classes = F.cross_entropy(out[..., :3].flatten(0, 1), micro["y"].flatten(), reduction="sum")
    return classes, F.smooth_l1_loss(out[..., 3:][objects], micro["z"][objects], reduction="sum")


def wrong(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = images(seed, dtype), seeded(seed, dtype, detector)

    def loss(micro: Batch, window: Sequence[Batch]) -> Tensor:
        classes, places = sums(model, micro)
        return (classes / micro["y"].numel() + places / (micro["y"] > 0).sum()) / len(window)

    return Case(loop(model, loss), batch, model, {"accumulation": 4}, "mean of means", {"growth": 0, "accumulation factor": 1})


def wrong_in_one(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    """The same without accumulation: said, and not blamed."""
    step, batch, model, *_ = wrong(seed, dtype)
    return Case(step, batch, model, kind="two counts", numbers={"growth": 0})


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = images(seed, dtype), seeded(seed, dtype, detector)
    step = loop(model, lambda micro, window: sum(sums(model, micro)) / len(micro["y"]) / len(window))
    return Case(step, batch, model, {"accumulation": 4}, numbers={"growth": 0, "accumulation factor": 1})
