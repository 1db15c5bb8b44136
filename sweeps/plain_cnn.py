"""The CNN of cnn.py without batch norm and dropout: each example then has a loss of its own, and so a gradient of its own."""

from cnn import images
from torch import nn
from torch.nn import functional as F

import lrscale


def plain_cnn(width: int = 4, examples: int = 512) -> lrscale.Task:
    """A CNN without batch norm and dropout on the first examples of Fashion-MNIST."""

    def net() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * width * 49, 10),
        )

    return lrscale.Task(net, F.cross_entropy, images("train", examples), images("t10k", 50), wrong=lrscale.top1)
