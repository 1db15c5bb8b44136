"""A small CNN with batch norm and dropout on some of Fashion-MNIST: an example of a task of one's own."""

import gzip
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import lrscale

FOLDER = Path("/usr/share/datasets/fashion-mnist")  # of Debian's package dataset-fashion-mnist


def read(name: str, count: int) -> Tensor:
    """Reads the first images or labels of an idx file."""
    with gzip.open(FOLDER / f"{name}-ubyte.gz") as file:
        raw = file.read()
    sizes = np.frombuffer(raw, ">i4", raw[3], 4)  # raw[3] is the number of axes
    array = np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(sizes)
    return torch.from_numpy(array[:count].copy())


def images(kind: str, count: int) -> tuple[Tensor, Tensor]:
    """Images [example, 1, 28, 28] with pixels around 0, and their labels."""
    pixels, labels = read(f"{kind}-images-idx3", count), read(f"{kind}-labels-idx1", count)
    return (pixels.float().unsqueeze(1) - 73) / 90, labels.long()


def cnn(width: int = 8, dropout: float = 0.25, examples: int = 1024) -> lrscale.Task:
    """A CNN with batch norm and dropout on the first examples of Fashion-MNIST."""

    def net() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, width, 3, stride=2, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(2 * width * 49, 10),
        )

    return lrscale.Task(net, F.cross_entropy, images("train", examples), images("t10k", 1000), wrong=lrscale.top1)
