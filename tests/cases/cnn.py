"""A convolutional network with batch norm and dropout is trained with accumulation.

Met in: giotto-ai/giotto-deep#75, ultralytics/yolov5#1630.
Right: use one micro-batch an update, or a norm within an example.
"""

import torch
from torch import nn

from tests.cases import Batch, Case, class_loss, generator, loop, seeded


def pictures(seed: int, dtype: torch.dtype) -> Batch:
    """Pictures x [example, channel, row, column] with their classes y [example]."""
    draw = generator(seed)
    x = torch.randn(8, 3, 16, 16, generator=draw, dtype=torch.float64).to(dtype)
    return {"x": x, "y": torch.randint(10, (8,), generator=draw)}


def network() -> nn.Sequential:
    """Two convolutions, each with batch norm, then dropout."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 8), (8, 16)):
        layers += [nn.Conv2d(inputs, outputs, 3), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))


def wrong(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = pictures(seed, dtype), seeded(seed, dtype, network)
    step = loop(model, lambda micro, window: class_loss(model, micro) / len(window))
    return Case(step, batch, model, {"accumulation": 2}, "batch norm", {"growth": 0, "accumulation factor": 1})


def right(seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    batch, model = pictures(seed, dtype), seeded(seed, dtype, network)
    step = loop(model, lambda micro, window: class_loss(model, micro))
    return Case(step, batch, model, numbers={"growth": 0})
