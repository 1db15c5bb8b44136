"""Reads the data of tasks that have files: scikit-learn's digits, and Fashion-MNIST's idx files."""

import gzip
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from lrscale.errors import Refusal
from lrscale.spec import FIXED_EXAMPLES, Choice
from lrscale.streams import generator
from lrscale.tasks.task import Arrays

FASHION_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


def check_files(task: Choice) -> None:
    """Raises Refusal where a task's data files are not there."""
    if task.name != "fashion_mnist":
        return
    root = Path(task.options["root"])
    missing = [name for name in FASHION_FILES if not (root / name).is_file()]
    if missing:
        raise Refusal(
            f"`task.root` must hold Fashion-MNIST's four idx.gz files, got {root} without {missing[0]}. "
            "Get them with `apt-get install dataset-fashion-mnist`, or set task.root to a folder that has them."
        )


def read_files(task: Choice) -> Arrays | None:
    """Returns the data that a task reads from files, in [0, 1]; None where it reads none. Kept for the next job."""
    if task.name == "digits":
        return _digits()
    if task.name == "fashion_mnist":
        check_files(task)
        return _fashion_mnist(Path(task.options["root"]), task.options["examples"])
    return None


@lru_cache(maxsize=1)
def _digits() -> Arrays:
    from sklearn.datasets import load_digits  # 1 s to import: only where it is needed

    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(images), generator=generator("data", "digits", "split"))
    x, y, count = torch.from_numpy(images / 16)[order], torch.from_numpy(labels).long()[order], FIXED_EXAMPLES["digits"]
    return Arrays(x[:count], y[:count], x[count:], y[count:])


@lru_cache(maxsize=1)
def _fashion_mnist(root: Path, examples: int) -> Arrays:
    x, y, x_valid, y_valid = (_idx(root / name) for name in FASHION_FILES)
    images = [torch.from_numpy(a.reshape(len(a), -1).astype(np.float32) / 255) for a in (x[:examples], x_valid)]
    labels = [torch.from_numpy(a.astype(np.int64)) for a in (y[:examples], y_valid)]
    return Arrays(images[0], labels[0], images[1], labels[1])


def _idx(path: Path) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    """Reads one idx file: two zero bytes, a type byte (8: unsigned byte), the number of axes, their sizes, the data."""
    with gzip.open(path) as file:
        raw = file.read()
    if raw[:3] != b"\x00\x00\x08":
        raise Refusal(f"`task.root` must hold idx files of unsigned bytes, got {path} which is not one. Fetch it again.")
    sizes = np.frombuffer(raw, ">i4", raw[3], 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(sizes)
