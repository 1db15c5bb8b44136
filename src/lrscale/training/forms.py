"""The forms in which the gradients of many runs of a module are computed. All give the same numbers up to rounding.

    loop          one run after another, as a plain loop does
    vmap_grad     torch.func's vmap of grad
    vmap_forward  vmap of the forward pass of all runs, then one backward pass
    unfold        vmap_forward with convolutions as products of unfolded images

What torch.func cannot run is computed in a loop. `fastest` times the forms and takes the fastest.
"""

import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from lrscale.streams import generator
from lrscale.tasks.own import Task, called
from lrscale.tasks.rows import Tree, mapped
from lrscale.tasks.terms import summed
from lrscale.training.device import widest

Tensors = Sequence[Tensor]
Seeding = Callable[[int], None]
"""A function that seeds torch's generator for the draws of a seed, by its index."""
TIMED_STEPS = 2
"""How often each form is timed, after one step that is not timed."""


class Form(ABC):
    """One way to compute the sums of losses of many runs, and their gradients.

    Parameters and buffers are lists of tensors [seed, trial, ...]; inputs and targets are [seed, example, ...].
    """

    name = ""

    def __init__(self, task: Task, seeds: Sequence[int] = (0,)) -> None:
        """Prepares a form for the runs of a task. Where the module draws at random, all trials of a seed get the same draws.

        Its modules are on the CPU, and must be moved to the runs' device.

        Args:
          task: the task.
          seeds: the seeds of the runs. Each has a module of its own where it decides more than weights and buffers.
        """
        self.task, self.by_seed = task, task.draws or task.maker.is_drawn
        self.modules = [task.fresh(generator("init", seed)) for seed in (seeds if task.maker.is_drawn else seeds[:1])]
        self.module = self.modules[0]
        self.buffer_names = [name for name, _ in self.module.named_buffers()]

    def take_module(self, seed: int) -> None:
        """Makes the module of a seed, by its index, the one that is called."""
        self.module = self.modules[seed if self.task.maker.is_drawn else 0]

    @abstractmethod
    def gradients(self, parameters: Tensors, buffers: Tensors, x: Tree, y: Tree, out: Tensors, seeding: Seeding) -> Tensor:
        """Adds the gradients of each run's sum of losses to `out`, and returns these sums, [seed, trial].

        Buffers are changed in place, as batch norm does in train mode.
        """


class Loop(Form):
    """One run after another. The module's parameters point into the tensors of all runs, so nothing is copied."""

    name = "loop"

    def gradients(self, parameters: Tensors, buffers: Tensors, x: Tree, y: Tree, out: Tensors, seeding: Seeding) -> Tensor:
        seeds, trials = parameters[0].shape[:2]
        total = parameters[0].new_empty(seeds, trials)
        for seed in range(seeds):
            self.take_module(seed)
            self.module.train()
            trained = [p for p in self.module.parameters() if p.requires_grad]
            own_x, own_y = mapped(itemgetter(seed), x), mapped(itemgetter(seed), y)
            for trial in range(trials):
                self._point(parameters, buffers, seed, trial)
                for parameter, gradient in zip(trained, out, strict=True):
                    parameter.grad = gradient[seed, trial]
                seeding(seed)
                losses = self.task.terms_of(called(self.module, own_x), own_y).losses
                (loss := losses.sum()).backward()
                total[seed, trial] = loss.detach()
                self._keep_buffers(buffers, seed, trial)
        return total

    def evaluate(self, parameters: Tensors, buffers: Tensors, x: Tree, y: Tree, seeding: Seeding) -> Tensor:
        """Returns the sums over some examples in eval mode, [4, seed, trial], in the widest dtype; see `sums`.

        Many examples at once leave nothing to gain for torch.func, so all forms are evaluated so.

        Args:
          parameters: the parameters of all runs.
          buffers: their buffers.
          x: inputs, [example, ...].
          y: targets, [example, ...].
          seeding: seeds torch's generator, for a module that draws in eval mode too.
        """
        seeds, trials = parameters[0].shape[:2]
        rows = []
        with torch.no_grad():
            for seed in range(seeds):
                self.take_module(seed)
                self.module.train(False)
                for trial in range(trials):
                    self._point(parameters, buffers, seed, trial)
                    seeding(seed)
                    rows.append(self.sums(called(self.module, x), y))
        sums = torch.stack(rows, 1)
        return sums.view(-1, seeds, trials)

    def sums(self, out: Any, y: Tree) -> Tensor:
        """Returns sums over the terms of some examples: of losses, of weights, of wrong predictions, of predictions, [4].

        A prediction counts unless the weight of its term is 0, as with labels of -100.
        """
        each = self.task.each_term_of(out, y)
        losses, weights = summed(each)
        wrong = torch.full_like(losses, torch.nan) if self.task.wrong is None else self.task.wrong(out, y)
        its_own = next((w for w in (each.weights, weights) if w.shape == wrong.shape), None)
        counts = torch.ones_like(wrong) if its_own is None else its_own != 0
        return torch.stack([part.sum(dtype=widest(losses.device)) for part in (losses, weights, wrong * counts, counts)])

    def _point(self, parameters: Tensors, buffers: Tensors, seed: int, trial: int) -> None:
        """Makes the module that of one run."""
        trained = [p for p in self.module.parameters() if p.requires_grad]
        for parameter, values in zip(trained, parameters, strict=True):
            parameter.data = values[seed, trial]
        for buffer, values in zip(self.module.buffers(), buffers, strict=True):
            buffer.data = values[seed, trial]

    def _keep_buffers(self, buffers: Tensors, seed: int, trial: int) -> None:
        """Keeps the buffers of one run that the module has put in the place of those that it was given."""
        for buffer, values in zip(self.module.buffers(), buffers, strict=True):
            if buffer.data_ptr() != values[seed, trial].data_ptr():
                _ = values[seed, trial].copy_(buffer.detach())


class _Vmapped(Form):
    """The forms of torch.func."""

    def call(self, parameters: Tensors, buffers: Tensors, x: Tree) -> Any:
        """Returns the output of one run."""
        values = dict(zip(self.task.names, parameters, strict=True)) | dict(zip(self.buffer_names, buffers, strict=True))
        inputs = (x,) if isinstance(x, Tensor) else x if isinstance(x, tuple) else ()
        return functional_call(self.module, values, inputs, x if isinstance(x, dict) else None)

    def loss(self, parameters: Tensors, buffers: Tensors, x: Tree, y: Tree) -> Tensor:
        """Returns the sum of losses of one run."""
        losses: Tensor = self.task.terms_of(self.call(parameters, buffers, x), y).losses
        return losses.sum()

    def per_seed(self, function: Callable[..., Any], arguments: tuple[Any, ...], seeding: Seeding) -> Any:
        """Returns the results of a function of the runs of one seed in train mode: stacked, or a list where `by_seed`."""
        for module in self.modules:
            module.train()
        with sdpa_kernel(SDPBackend.MATH), _no_cudnn_if_recurrent(self.module):  # torch.func has no rule for other kinds
            if not self.by_seed:
                return vmap(function)(*arguments)
            results = []
            for seed in range(arguments[0][0].shape[0]):
                self.take_module(seed)
                seeding(seed)
                results.append(function(*(_mapped_list(itemgetter(seed), argument) for argument in arguments)))
            return results


class VmapGrad(_Vmapped):
    """vmap of grad: the gradient of each run is a function that is mapped over the runs."""

    name = "vmap_grad"

    def gradients(self, parameters: Tensors, buffers: Tensors, x: Tree, y: Tree, out: Tensors, seeding: Seeding) -> Tensor:
        of_trials = vmap(grad_and_value(self.loss), (0, 0, None, None), randomness="same")
        results = self.per_seed(of_trials, (list(parameters), list(buffers), x, y), seeding)
        if self.by_seed:
            for seed, (gradients, _) in enumerate(results):
                for total, gradient in zip(out, gradients, strict=True):
                    total[seed] += gradient
            return torch.stack([sums for _, sums in results])
        for total, gradient in zip(out, results[0], strict=True):
            total += gradient
        sums: Tensor = results[1]
        return sums


class VmapForward(_Vmapped):
    """vmap of the forward pass, and one backward pass for all runs."""

    name = "vmap_forward"

    def gradients(self, parameters: Tensors, buffers: Tensors, x: Tree, y: Tree, out: Tensors, seeding: Seeding) -> Tensor:
        trained = [parameter.detach().requires_grad_() for parameter in parameters]
        of_trials = vmap(self.loss, (0, 0, None, None), randomness="same")
        results = self.per_seed(of_trials, (trained, list(buffers), x, y), seeding)
        sums = torch.stack(results) if self.by_seed else results
        for total, gradient in zip(out, torch.autograd.grad(sums.sum(), trained), strict=True):
            total += gradient
        return sums.detach()


class Unfold(VmapForward):
    """vmap of the forward pass, in which a convolution is a product of its weights with the unfolded images."""

    name = "unfold"

    def __init__(self, task: Task, seeds: Sequence[int] = (0,)) -> None:
        super().__init__(task, seeds)
        for module in self.modules:
            for parent, name, convolution in _convolutions(module):
                setattr(parent, name, _UnfoldedConvolution(convolution))


class _UnfoldedConvolution(nn.Module):
    """A two-dimensional convolution as a product. Its parameters have the names of the convolution's."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        self.kernel, self.stride, self.dilation = convolution.kernel_size, convolution.stride, convolution.dilation
        self.padding = tuple(map(int, convolution.padding))

    def forward(self, x: Tensor) -> Tensor:
        columns = F.unfold(x, self.kernel, self.dilation, self.padding, self.stride)
        out = self.weight.flatten(1) @ columns
        if self.bias is not None:
            out = out + self.bias.unsqueeze(-1)
        rows = (x.shape[-2] + 2 * self.padding[0] - self.dilation[0] * (self.kernel[0] - 1) - 1) // self.stride[0] + 1
        return out.view(*out.shape[:-1], rows, -1)


def _convolutions(module: nn.Module) -> list[tuple[nn.Module, str, nn.Conv2d]]:
    """Returns the convolutions of a module that can be unfolded: each with the module that holds it, and its name there."""
    return [
        (parent, name, child)
        for parent in module.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Conv2d and child.groups == 1 and child.padding_mode == "zeros" and not isinstance(child.padding, str)
    ]


@contextmanager
def _no_cudnn_if_recurrent(module: nn.Module) -> Iterator[None]:
    """Inside this context, recurrent layers on cuda are computed as on the CPU: cuDNN's need weights in one piece of memory."""
    before = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = before and not any(isinstance(child, nn.RNNBase) for child in module.modules())
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = before


FORMS: dict[str, type[Form]] = {form.name: form for form in (Loop, VmapGrad, VmapForward, Unfold)}
"""The forms, by name."""


def make_forms(task: Task, seeds: Sequence[int]) -> Iterator[Form]:
    """Yields the forms that a task can have."""
    for name, form in FORMS.items():
        if name != "unfold" or _convolutions(task.module):
            yield form(task, seeds)


@contextmanager
def quiet() -> Iterator[None]:
    """Silences warnings that a form is slow: the forms are timed instead."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")  # torch.func takes one run after another
        warnings.filterwarnings("ignore", message="RNN module weights are not part of")  # cuDNN copies them at each step
        yield


def fastest(forms: Sequence[Form], take_step: Callable[[Form], Sequence[Tensors]], wait: Callable[[], None]) -> tuple[str, str]:
    """Returns the name of the fastest of some forms, and why others cannot be taken; empty where all can.

    A form is taken only where its gradients and the buffers that it leaves are those of the loop.

    Args:
      forms: the forms. The first one is the loop, which runs everything.
      take_step: takes a step with a form, and returns the gradients, and how the buffers of each type changed.
      wait: waits until the device has done what it was given.
    """
    seconds: dict[str, float] = {}
    notes: list[str] = []
    expected: list[list[Tensor]] = []
    for form in forms:
        try:
            results = [[tensor.clone() for tensor in tensors] for tensors in take_step(form)]
            times = []
            for _ in range(TIMED_STEPS):
                wait()
                start = time.perf_counter()
                _ = take_step(form)
                wait()
                times.append(time.perf_counter() - start)
        except Exception as error:  # torch.func says in many ways that it cannot run something
            if form.name == "loop":
                raise
            notes.append(f"{form.name}: {str(error).partition(chr(10))[0]:.200}".rstrip(". "))
            continue
        expected = expected or results
        if not _are_close(results[0], expected[0]):
            notes.append(f"{form.name}: other gradients than a plain loop, as random numbers are drawn in another way")
        elif not all(map(_are_close, results[1:], expected[1:])):
            notes.append(f"{form.name}: other buffers than a plain loop, as the module replaces them")
        else:
            seconds[form.name] = min(times)
    return min(seconds, key=lambda name: seconds[name]), "; ".join(notes)


def _are_close(results: Tensors, expected: Tensors) -> bool:
    """Returns whether the numbers of all runs differ by rounding only. Where a run is not finite, it counts as equal."""

    def norm(tensors: Iterable[Tensor]) -> float:
        norms = [torch.linalg.vector_norm(tensor.nan_to_num().to(widest(tensor.device))) for tensor in tensors]
        return float(torch.linalg.vector_norm(torch.stack(norms))) if norms else 0.0

    dtype = next((tensor.dtype for tensor in expected if tensor.is_floating_point()), torch.float64)
    tolerance = 30 * torch.finfo(dtype).eps ** 0.5
    return bool(norm(a - b for a, b in zip(results, expected, strict=True)) <= tolerance * norm(expected))


def _mapped_list(function: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """Returns a tree or a list of tensors after a function."""
    return [function(tensor) for tensor in tree] if isinstance(tree, list) else mapped(function, tree)
