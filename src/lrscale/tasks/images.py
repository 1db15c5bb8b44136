"""Tasks of image classification: scikit-learn's digits, and Fashion-MNIST, read from its idx files.

torch is imported where data are made: composing a config needs the declarations alone.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrscale.errors import Refusal
from lrscale.rules import TEXT, integer, one_of
from lrscale.spec import Option, Training
from lrscale.tasks.registry import TASKS, TaskKind
from lrscale.tasks.task import Arrays, Task

if TYPE_CHECKING:
    import numpy as np

IMAGE_CLASSES, DIGITS_EXAMPLES = 10, 1437
FASHION_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


def _make_digits(training: Training) -> Task:
    return _classification(training, _digits())


def _make_fashion_mnist(training: Training) -> Task:
    options = training.task.options
    check_fashion_mnist(options)
    return _classification(training, _fashion_mnist(Path(options["root"]), options["examples"]))


def _classification(training: Training, pixels: Arrays) -> Task:
    """A task of pixels in [0, 1], kept for the next job in the dtype of their file."""
    import torch

    from lrscale.tasks.models import classifier

    options, dtype = training.task.options, getattr(torch, training.dtype)
    data = Arrays(pixels.x.to(dtype), pixels.y, pixels.x_valid.to(dtype), pixels.y_valid)
    hidden = options["hidden"] if options["model"] == "mlp" else None
    return Task(data, None, classifier(data.x.shape[1], IMAGE_CLASSES, hidden), None, None)


@lru_cache(maxsize=1)
def _digits() -> Arrays:
    import torch
    from sklearn.datasets import load_digits  # 1 s to import: only where it is needed

    from lrscale.streams import generator

    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(images), generator=generator("data", "digits", "split"))
    x, y, count = torch.from_numpy(images / 16)[order], torch.from_numpy(labels).long()[order], DIGITS_EXAMPLES
    return Arrays(x[:count], y[:count], x[count:], y[count:])


def check_fashion_mnist(options: Mapping[str, Any]) -> None:
    """Raises Refusal where one of Fashion-MNIST's files is missing."""
    root = Path(options["root"])
    missing = [name for name in FASHION_FILES if not (root / name).is_file()]
    if missing:
        raise Refusal(
            f"`task.root` must hold Fashion-MNIST's four idx.gz files, got {root} without {missing[0]}. "
            "Get them with `apt-get install dataset-fashion-mnist`, or set task.root to a folder that has them."
        )


@lru_cache(maxsize=1)
def _fashion_mnist(root: Path, examples: int) -> Arrays:
    import numpy as np
    import torch

    x, y, x_valid, y_valid = (_idx(root / name) for name in FASHION_FILES)
    images = [torch.from_numpy(a.reshape(len(a), -1).astype(np.float32) / 255) for a in (x[:examples], x_valid)]
    labels = [torch.from_numpy(a.astype(np.int64)) for a in (y[:examples], y_valid)]
    return Arrays(images[0], labels[0], images[1], labels[1])


def _idx(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Reads one idx file: two zero bytes, a type byte (8: unsigned byte), the number of axes, their sizes, the data."""
    import numpy as np

    with gzip.open(path) as file:
        raw = file.read()
    if raw[:3] != b"\x00\x00\x08":
        raise Refusal(f"`task.root` must hold idx files of unsigned bytes, got {path} which is not one. Fetch it again.")
    sizes = np.frombuffer(raw, ">i4", raw[3], 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(sizes)


_PRESETS = {"objective": "valid_loss", "dtype": "float32"}
MODEL = Option("softmax", one_of("softmax", "mlp"), "softmax regression, or mlp")

TASKS.declare(
    "digits",
    TaskKind(
        about="scikit-learn's 8 x 8 digits: 1437 for training, 360 for validation.",
        options={"model": MODEL, "hidden": Option(64, integer(1, 10_000), "width of the mlp's hidden layer")},
        variants={"digits_mlp": {"model": "mlp"}},
        presets=_PRESETS,
        make=_make_digits,
        examples=lambda options: DIGITS_EXAMPLES,
        classes=True,
    ),
)
TASKS.declare(
    "fashion_mnist",
    TaskKind(
        about="Fashion-MNIST: 60000 images for training, 10000 for validation.",
        options={
            "model": MODEL,
            "hidden": Option(256, integer(1, 10_000), "width of the mlp's hidden layer"),
            "examples": Option(60000, integer(2, 60_000), "train on the first so many"),
            "root": Option(
                "/usr/share/datasets/fashion-mnist", TEXT, "holds the four idx.gz files; Debian's package puts them here"
            ),
        },
        variants={"fashion_mnist_mlp": {"model": "mlp", "hidden": 64}},  # narrower than the book's 256, to be quick
        presets={**_PRESETS, "points": 10},  # each one is a pass over the training data
        make=_make_fashion_mnist,
        examples=lambda options: int(options["examples"]),
        classes=True,
        check_files=check_fashion_mnist,
    ),
)
