"""Data do not depend on seeds, and files are read as they are."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from lrscale.errors import Refusal
from lrscale.tasks.images import FASHION_FILES
from lrscale.tasks.registry import TASKS, check_files, make_task
from tests.configs import make


@pytest.mark.parametrize("task", ["d2l", "linear", "digits"])
def test_data_and_splits_do_not_depend_on_the_seeds(task: str) -> None:
    first, second = (make(task=task, seeds=seeds) for seeds in ([0], [7]))
    a, b = (make_task(made).data for made in (first, second))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_the_books_constants() -> None:
    task = make_task(make())
    assert task.population is not None and task.optimum is not None
    assert task.population.weights.tolist() == [2.0, -3.4, 4.2] and task.population.noise == 0.01
    assert tuple(task.data.x.shape) == (1000, 3)
    assert torch.allclose(task.optimum.weights, task.population.weights, atol=2e-3)
    start = task.model.initial(torch.Generator().manual_seed(0))[0]
    assert start[2] == 0 and 0 < start[:2].abs().max() < 0.05


def test_digits_are_split_into_1437_and_360() -> None:
    made = make(task="digits")
    data = make_task(made).data
    assert len(data.x) == 1437 and len(data.x_valid) == 360
    assert float(data.x.max()) == 1.0 and set(data.y.tolist()) == set(range(10))


@pytest.mark.parametrize("name", ["d2l", "digits", "digits_mlp", "fashion_mnist_mlp", "linear"])
def test_the_declared_size_is_that_of_the_task_which_is_made(name: str) -> None:
    made = make(task=name, **({} if name.startswith("d") else {"task__examples": 20}))
    task = make_task(made)
    data = sum(tensor.numel() for tensor in task.data)
    weights = sum(tensor.numel() for tensor in task.model.initial(torch.Generator()))
    assert TASKS[made.task.name].size(made.task.options) == (data, weights, task.model.width)


def test_fashion_mnist_has_its_60000_images() -> None:
    made = make(task="fashion_mnist")
    files = make_task(made).data
    assert tuple(files.x.shape) == (60_000, 784) and tuple(files.x_valid.shape) == (10_000, 784)
    assert torch.bincount(files.y).tolist() == [6000] * 10
    assert 0.28 < float(files.x.mean()) < 0.29


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    made = make(task="fashion_mnist", task__root=str(tmp_path), task__examples=10)
    with pytest.raises(Refusal, match="apt-get install dataset-fashion-mnist"):
        check_files(made)
    for name in FASHION_FILES:
        (tmp_path / name).write_bytes(gzip.compress(b"garbage"))
    with pytest.raises(Refusal, match="idx files of unsigned bytes"):
        make_task(made)


def test_linear_features_have_the_spectrum_asked_for() -> None:
    task = make_task(make(task="linear", task__spectrum="power_law", task__examples=100_000, task__features=4, batch_size=8))
    assert task.population is not None
    assert np.allclose(task.data.x.var(0), task.population.spectrum, rtol=0.03)
    assert task.population.spectrum.tolist() == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])
