"""Tasks of image classification: the digits of scikit-learn, and Fashion-MNIST, which is read from its idx files.

torch is imported inside the functions that make data. Composing a config needs only the declarations, and no torch.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrscale.errors import Refusal
from lrscale.files import from_start
from lrscale.rules import TEXT, integer, one_of
from lrscale.spec import Option, Training
from lrscale.tasks.built_in import Arrays, BuiltInTask
from lrscale.tasks.registry import TASKS, TaskKind

if TYPE_CHECKING:
    import numpy as np

IMAGE_CLASSES, DIGITS_EXAMPLES = 10, 1437
"""The number of classes of both tasks, and the number of training examples of digits."""
FASHION_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
"""The files of Fashion-MNIST: training images, training labels, validation images, validation labels."""


def _make_digits(training: Training) -> BuiltInTask:
    return _classification(training, _digits())


def _make_fashion_mnist(training: Training) -> BuiltInTask:
    options = training.task.options
    check_fashion_mnist(options)
    return _classification(training, _fashion_mnist(from_start(options["root"]), options["examples"]))


def _classification(training: Training, pixels: Arrays) -> BuiltInTask:
    """Makes a task of images with pixels in [0, 1].

    `pixels` have the dtype of their file. They are cached, so the next job uses them again; the task has a copy in the
    training's dtype.
    """
    import torch

    from lrscale.tasks.models import classifier

    options, dtype = training.task.options, getattr(torch, training.dtype)
    data = Arrays(pixels.x.to(dtype), pixels.y, pixels.x_valid.to(dtype), pixels.y_valid)
    hidden = options["hidden"] if options["model"] == "mlp" else None
    return BuiltInTask(data, None, classifier(data.x.shape[1], IMAGE_CLASSES, hidden), None, None)


@lru_cache(maxsize=1)
def _digits() -> Arrays:
    """Returns the digits, pixels in [0, 1] as float64, split into training and validation data by a fixed random stream."""
    import torch
    from sklearn.datasets import load_digits  # takes 1 s to import, so it is imported only when it is used

    from lrscale.streams import generator

    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(images), generator=generator("data", "digits", "split"))
    x, y, count = torch.from_numpy(images / 16)[order], torch.from_numpy(labels).long()[order], DIGITS_EXAMPLES
    return Arrays(x[:count], y[:count], x[count:], y[count:])


def check_fashion_mnist(options: Mapping[str, Any]) -> None:
    """Raises Refusal where one of the files of Fashion-MNIST is missing."""
    root = from_start(options["root"])
    missing = [name for name in FASHION_FILES if not (root / name).is_file()]
    if missing:
        raise Refusal(
            f"`task.root` must hold Fashion-MNIST's four idx.gz files, got {root} without {missing[0]}. "
            "Get them with `apt-get install dataset-fashion-mnist`, or set task.root to a folder that has them."
        )


@lru_cache(maxsize=1)
def _fashion_mnist(root: Path, examples: int) -> Arrays:
    """Returns the first `examples` training examples and all validation examples, pixels in [0, 1] as float32."""
    import numpy as np
    import torch

    x, y, x_valid, y_valid = (_read_idx(root / name) for name in FASHION_FILES)
    images = [torch.from_numpy(array.reshape(len(array), -1).astype(np.float32) / 255) for array in (x[:examples], x_valid)]
    labels = [torch.from_numpy(array.astype(np.int64)) for array in (y[:examples], y_valid)]
    return Arrays(images[0], labels[0], images[1], labels[1])


def _read_idx(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Returns the array of one idx file.

    An idx file holds two zero bytes, a type byte (8 means unsigned byte), the number of axes, the size of each axis, and
    the data.
    """
    import numpy as np

    with gzip.open(path) as file:
        raw = file.read()
    if raw[:3] != b"\x00\x00\x08":
        raise Refusal(f"`task.root` must hold idx files of unsigned bytes, got {path}, which is not one. Get it again.")
    sizes = np.frombuffer(raw, ">i4", raw[3], 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(sizes)


def _size(images: int, pixels: int, options: Mapping[str, Any]) -> tuple[int, int, int]:
    """Returns how large a task of some images is, as `TaskKind.size` does."""
    hidden = options["hidden"] if options["model"] == "mlp" else 0
    layers = [(pixels, hidden), (hidden, IMAGE_CLASSES)] if hidden else [(pixels, IMAGE_CLASSES)]
    weights = sum((inputs + 1) * outputs for inputs, outputs in layers)
    return images * (pixels + 1), weights, 3 * (IMAGE_CLASSES + hidden)  # `width` of `classifier`


_PRESETS = {"objective": "valid_loss", "dtype": "float32"}
MODEL = Option("softmax", one_of("softmax", "mlp"), "softmax: softmax regression; mlp: one hidden ReLU layer")
"""The option of both tasks that chooses the model."""

TASKS.declare(
    "digits",
    TaskKind(
        about="scikit-learn's 8 x 8 digits: 1437 for training, 360 for validation.",
        options={"model": MODEL, "hidden": Option(64, integer(1, 10_000), "width of the hidden layer of the mlp")},
        variants={"digits_mlp": {"model": "mlp"}},
        presets=_PRESETS,
        make=_make_digits,
        examples=lambda options: DIGITS_EXAMPLES,
        classes=True,
        size=lambda options: _size(DIGITS_EXAMPLES + 360, 64, options),
    ),
)
TASKS.declare(
    "fashion_mnist",
    TaskKind(
        about="Fashion-MNIST: 60000 images for training, 10000 for validation.",
        options={
            "model": MODEL,
            "hidden": Option(256, integer(1, 10_000), "width of the hidden layer of the mlp"),
            "examples": Option(60000, integer(2, 60_000), "number of training examples, taken from the start of the file"),
            "root": Option(
                "/usr/share/datasets/fashion-mnist",
                TEXT,
                "folder with the four idx.gz files; Debian's package installs them here",
            ),
        },
        variants={"fashion_mnist_mlp": {"model": "mlp", "hidden": 64}},  # fewer than the book's (d2l) 256, so a run is quick
        presets={**_PRESETS, "points": 10},  # few, because each point takes one pass over the training data
        make=_make_fashion_mnist,
        examples=lambda options: int(options["examples"]),
        classes=True,
        check_files=check_fashion_mnist,
        size=lambda options: _size(options["examples"] + 10_000, 784, options),
    ),
)
