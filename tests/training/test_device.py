"""Runs on another device: the same runs up to rounding, and in a step no tensor elsewhere.

Where a machine has a GPU, the tests of `DEVICES` run on it too. Elsewhere the device `meta`, whose tensors have a shape and no
numbers, shows that a step leaves nothing on the CPU.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

from lrscale.errors import Refusal
from lrscale.spec import Compute, Training
from lrscale.tasks.held import fingerprint
from lrscale.tasks.own import Task
from lrscale.training import device as devices
from lrscale.training import engine
from lrscale.training.device import chosen, described, own_settings
from lrscale.training.forms import FORMS, quiet
from lrscale.training.minibatches import batch_order
from lrscale.training.own_runs import OwnRuns, choose_form, own_minibatches
from tests.training.own_models import CASES, IMAGES, LABELS, REFUSED, WIDE, Augmented, Case, normed, task_of, training

META = torch.device("meta")
DEVICES = ["cpu", *devices._found()]
"""The devices of this machine on which runs are compared with those on the CPU."""
ROUNDING = 2e-3  # float32, relative to a loss; sums are taken in another order, and 8 steps let that grow
DRAWS = [name for name in CASES if "dropout" in name]
KEPT = "drawn beside weights"  # its order is an attribute, which stays on the CPU; other devices take such an index
CONFIG = {"task": {"name": "mine.py:make"}, "dtype": "float32"}


class OnlyOn(TorchDispatchMode):
    """Fails where an operation takes or makes a tensor on another device than one. It takes single numbers from the CPU."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device, self.count = device, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.count += 1
        for tensor in _pytree.tree_leaves((args, kwargs, out)):
            if isinstance(tensor, Tensor) and tensor.device != self.device:
                raise AssertionError(f"{func} has a tensor of shape {list(tensor.shape)} on {tensor.device}")
        return out


def forms_of(name: str) -> list[str]:
    has_convolution = any(isinstance(module, nn.Conv2d) for module in CASES[name].model().modules())
    return [form for form in FORMS if form not in REFUSED.get(name, set()) and (form != "unfold" or has_convolution)]


def made_with(form: str, **changes: Any) -> Training:
    made = replace(training(**changes), dtype="float32")
    return replace(made, task=replace(made.task, options={"form": form}))


@pytest.mark.parametrize("name", [name for name in CASES if name != KEPT])
def test_a_step_makes_no_tensor_on_another_device(name: str) -> None:
    for form in forms_of(name):
        made, task = made_with(form, accumulation=2, reduction="sum_over_nominal"), task_of(CASES[name])
        with own_settings(META), quiet():
            runs = OwnRuns(made, task, slice(None), form, META)
            minibatch, valid = next(own_minibatches(made, task)), task.valid.take(torch.arange(3))
            with OnlyOn(META) as seen:
                runs.step_unrecorded(minibatch, 1)
                loss = runs.step(minibatch, 2)
                sums = runs.loop.evaluate(runs.parameters, runs.buffers, *valid, lambda seed: None)
        assert loss.device == sums.device == META and loss.shape == (2, 2) and seen.count > 20


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "adagrad", "adafactor", "radam", "rprop", "rmsprop", "nadam", "adadelta"])
def test_an_optimizer_makes_no_tensor_on_another_device(optimizer: str) -> None:
    made, task = made_with("loop", optimizer=optimizer, schedule="cosine"), task_of(CASES["mlp"])
    runs = OwnRuns(made, task, slice(None), "loop", META)
    minibatch = next(own_minibatches(made, task))
    with OnlyOn(META):
        for step in (1, 2):
            runs.step_unrecorded(minibatch, step)


@pytest.fixture(autouse=True)
def swapped() -> Iterator[None]:
    """Lets a module move to `meta` with its tied weights: without it, torch keeps them tied for cuda and mps only."""
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield
    torch.__future__.set_swap_module_params_on_conversion(False)


@contextmanager
def default_device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


def test_the_default_device_of_a_notebook_does_not_matter() -> None:
    """Every tensor is made on the device that is asked for: one on the default device could not be used."""
    made = made_with("vmap_forward", optimizer="adamw", optimizer__weight_decay=0.1)
    expected = engine.train(made, task_of(CASES["batch norm and dropout"]))
    sha256 = fingerprint(task_of(CASES["batch norm and dropout"]))
    batch_order.cache_clear()
    with default_device("meta"):
        assert fingerprint(task_of(CASES["batch norm and dropout"])) == sha256
        assert choose_form(made, task_of(CASES["batch norm and dropout"]))[0] in FORMS
        curves = engine.train(made, task_of(CASES["batch norm and dropout"]))
    assert_allclose(curves.train_loss, expected.train_loss, rtol=0)
    assert_allclose(curves.valid_loss, expected.valid_loss, rtol=0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", CASES)
def test_runs_on_a_device_are_those_on_the_cpu_up_to_rounding(name: str, device: str) -> None:
    """Dropout draws other masks on another device: then only the losses before the first step are the same."""
    for form in forms_of(name):
        made = made_with(form, optimizer__momentum=0.9)
        expected = engine.train(made, task_of(CASES[name]))
        curves = engine.train(made, task_of(CASES[name]), Compute(device=device))
        same = slice(0, 1) if name in DRAWS and device != "cpu" else slice(None)
        assert_allclose(curves.train_loss[same], expected.train_loss[same], rtol=ROUNDING, err_msg=form)
        if same == slice(None):
            assert_allclose(curves.valid_loss, expected.valid_loss, rtol=ROUNDING, err_msg=form)
            assert_allclose(curves.grad_norm, expected.grad_norm, rtol=10 * ROUNDING, err_msg=form)


@pytest.mark.parametrize("device", DEVICES)
def test_dropout_is_the_same_for_all_lrs_of_a_seed_and_for_each_repetition(device: str) -> None:
    made = made_with("vmap_forward")
    whole, again = (engine.train(made, task_of(CASES["batch norm and dropout"]), Compute(device=device)) for _ in range(2))
    first = whole.minibatch_loss[0].reshape(len(made.optimizer.options["lr"]), len(made.seeds))
    assert_allclose(first[0], first[1], rtol=ROUNDING)
    assert first[0, 0] != first[0, 1]
    assert_allclose(whole.train_loss, again.train_loss, rtol=ROUNDING)


@pytest.mark.parametrize("device", DEVICES)
def test_a_form_is_chosen_on_a_device_and_torchs_settings_are_as_before(device: str) -> None:
    state, tf32 = torch.get_rng_state(), torch.backends.cudnn.allow_tf32
    assert choose_form(replace(training(), dtype="float32"), task_of(CASES["mlp"]), torch.device(device))[0] in FORMS
    assert torch.equal(torch.get_rng_state(), state) and torch.backends.cudnn.allow_tf32 == tf32


class Items(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """Items that differ each time in an input that does not matter: they cannot be loaded once."""

    def __len__(self) -> int:
        return len(LABELS)

    def __getitem__(self, index: int) -> tuple[Any, Tensor]:
        return (WIDE[index], torch.rand(1)), LABELS[index]


class FirstOnly(nn.Linear):
    def forward(self, x: Tensor, _: Tensor) -> Tensor:
        return super().forward(x)


@pytest.mark.parametrize("device", DEVICES)
def test_random_examples_are_drawn_on_the_cpu_and_are_those_of_the_seed(device: str) -> None:
    made, task = made_with("vmap_forward"), Task(lambda: nn.Linear(3, 4), F.cross_entropy, Augmented(), Augmented())
    expected = engine.train(made, task)
    curves = engine.train(made, task, Compute(device=device))
    assert_allclose(curves.train_loss, expected.train_loss, rtol=ROUNDING)
    assert_allclose(curves.valid_loss, expected.valid_loss, rtol=ROUNDING)
    with own_settings(META):
        runs = OwnRuns(made, task, slice(None), "vmap_forward", META)
        minibatch = next(own_minibatches(made, task))
        with OnlyOn(META):
            loss = runs.step(minibatch, 1)
    assert task.train.is_random and loss.shape == (2, 2)


def test_data_that_fit_move_to_a_device_once_and_others_at_each_step() -> None:
    task = task_of(CASES["batch norm"])
    task.train.to(torch.float32, META)
    assert task.train.x.device == META and task.train.stored == META
    kept = task.train.x
    task.train.to(torch.float32, META)
    assert task.train.x is kept
    task.train.to(torch.float32)
    assert task.train.x.device.type == "cpu" and torch.equal(task.train.x, IMAGES.float())
    room = IMAGES.nbytes / 2 + LABELS.nbytes
    for case, least in ((task, room - 1), (task, room)):
        case.train.is_placed = False
        case.train.to(torch.float32, META, least)
        assert (case.train.x.device == META) == (least == room)
        assert all(tensor.device == META for tensor in case.train.take(torch.arange(3)))
    streamed = Task(lambda: FirstOnly(3, 4), F.cross_entropy, Items(), Items())
    streamed.train.to(torch.float32, META)
    (x, _), y = streamed.train.take(torch.arange(3))
    assert streamed.train.stored.type == "cpu" and x.device == META and y.device == META


def test_runs_take_what_is_free_on_a_device_unless_a_limit_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    made, task = replace(training(), dtype="float32"), task_of(CASES["mlp"])
    free = {"cpu": float("inf"), "meta": 2.0**33}
    monkeypatch.setattr(engine, "free_bytes", lambda device: free[device.type])
    cpu, meta, limited = (
        engine.trials_in_memory(made, task, compute)
        for compute in (Compute(), Compute(device="meta"), Compute(memory_mb=1024, device="meta"))
    )
    assert cpu == limited
    assert meta == pytest.approx(8 * devices.SHARE * cpu, rel=0.01)


class Positions(nn.Module):
    """Makes a tensor on the CPU in train mode or in eval mode, whatever the device of its input."""

    def __init__(self, in_training: bool) -> None:
        super().__init__()
        self.in_training, self.out = in_training, nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(x + torch.arange(3.0) if self.training == self.in_training else x)
        return out


def weighted(out: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(out, y, reduction="none") * torch.ones(4)[y]


@pytest.mark.parametrize(
    ("model", "loss"),
    [
        (lambda: Positions(in_training=True), F.cross_entropy),
        (lambda: Positions(in_training=False), F.cross_entropy),
        (lambda: nn.Linear(3, 4), weighted),
    ],
)
def test_a_task_that_makes_tensors_elsewhere_is_refused_in_one_line(model: Any, loss: Any) -> None:
    task = Task(model, loss, (WIDE, LABELS), (WIDE, LABELS))
    with pytest.raises(
        Refusal, match=r"`compute.device` meta cannot train `task`.* RuntimeError.* register_buffer.* compute.device=cpu"
    ) as says:
        choose_form(replace(training(), dtype="float32"), task, META)
    assert "\n" not in str(says.value) and "micro-batches" not in str(says.value)


def no_room(out: Tensor, y: Tensor) -> Tensor:
    if out.device == META:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has 139 GiB")
    return F.cross_entropy(out, y, reduction="none")


def test_a_device_that_others_have_filled_is_refused_in_one_line() -> None:
    task = Task(lambda: nn.Linear(3, 4), no_room, (WIDE, LABELS), (WIDE, LABELS))
    with pytest.raises(
        Refusal, match=r"`compute.device` meta must have room .* got OutOfMemoryError: .* compute.device=cpu"
    ) as says:
        choose_form(replace(training(), dtype="float32"), task, META)
    assert "\n" not in str(says.value) and "register_buffer" not in str(says.value)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_device_is_not_to_blame_for_what_the_cpu_cannot_take_either(device: str) -> None:
    made = replace(training(), dtype="float32", batch_size=1)
    with pytest.raises(Refusal, match=r"`batch_size` 1 gives micro-batches of 1, which the model.* Take larger batches"):
        choose_form(made, task_of(Case(normed, F.cross_entropy, WIDE, LABELS)), device)
    with pytest.raises(Refusal, match="`groups` must return factors of lr"):
        choose_form(made, task_of(CASES["mlp"], groups=lambda name, p: {"mine": 0.0}), device)


@pytest.mark.parametrize(
    ("asked", "found", "expected"),
    [
        ("cpu", ["cuda", "mps"], "cpu"),
        ("auto", ["cuda", "mps"], "cuda"),
        ("auto", ["mps"], "mps"),
        ("auto", [], "cpu"),
        ("cuda", ["cuda"], "cuda"),
    ],
)
def test_auto_takes_cuda_then_mps_then_the_cpu(asked: str, found: list[str], expected: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(devices, "_found", lambda: found)
    assert chosen(asked, [CONFIG]) == expected
    built_in = {**CONFIG, "task": {"name": "d2l"}}
    if asked in ("auto", "cpu"):
        assert chosen(asked, [built_in]) == "cpu"  # such a task stays on the CPU
    assert chosen(asked, [CONFIG, built_in]) == expected
    if expected == "mps":
        assert chosen("auto", [{**CONFIG, "dtype": "float64"}]) == "cpu"


@pytest.mark.parametrize(
    ("asked", "config", "says"),
    [
        ("cuda", CONFIG, r"`compute.device` must be a device that torch finds here, got cuda\. Found: mps, cpu\. Take .*=auto"),
        ("mps", {**CONFIG, "dtype": "float64"}, r"`dtype` float64 cannot be trained on the device mps.* Take dtype=float32\."),
        ("mps", {**CONFIG, "task": {"name": "d2l"}}, r"`compute.device` must be cpu or auto .*, got mps.* Leave it out"),
    ],
)
def test_a_device_that_cannot_be_used_is_refused_in_one_line(asked: str, config: Any, says: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(devices, "_found", lambda: ["mps"])
    with pytest.raises(Refusal, match=says) as refusal:
        chosen(asked, [config])
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("tf32", [False, True])
def test_tf32_is_as_asked_inside_and_as_before_afterwards(tf32: bool) -> None:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    with devices._products(tf32):
        assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (tf32, tf32)
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before
    assert described("cpu") == "cpu"
