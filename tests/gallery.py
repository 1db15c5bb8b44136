"""The gallery in tests/cases: which steps it has, whether an audit judges them rightly, and the page that shows it."""

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch

import lrscale
from lrscale.audit.finding import Audit
from tests.cases import VERDICTS, Case, Expected, Step

FOLDER = Path(__file__).parent / "cases"
PAGE = FOLDER / "README.md"
MOST_RUNS = 60
"""An audit may run a step so often."""
RANKS = "Several processes"
GROUPS = {
    "Accumulation": (
        *("token_means", "padding", "class_weights", "focal_loss", "triplet", "times_window"),
        *("divided_twice", "not_divided", "time_steps", "sum_of_micro_batch"),
        *("short_window", "auxiliary_each_micro_batch", "clip_in_loop", "zeroed_in_loop"),
    ),
    "Reduction": (
        *("plain_sum", "times_batch_size", "ctc_sum", "ctc_divided_twice", "kl_over_elements", "mse_over_outputs"),
        *("penalty_on_sum", "root_of_mean"),
    ),
    "Examples that see each other": ("contrastive", "hardest_partner", "batch_norm", "variance_penalty", "experts"),
    "Between backward and update": ("clip_before_unscale",),
    RANKS: ("ddp_sum", "ddp_divided_twice", "ddp_local_means", "ddp_mean_times_ranks", "ddp_missing"),
    "Larger networks": ("cnn", "transformer", "lstm", "vae", "two_heads", "gan", "codebook"),
    "Steps that an audit refuses": ("lbfgs", "sharpness_aware"),
    "Right steps that could raise a false alarm": (
        *("sentence_average", "dropout", "label_smoothing", "mixup", "shared_weights", "parameter_groups"),
        *("checkpointing", "schedule", "moving_average"),
    ),
}
"""The files by what they are about, in the order of the page."""
SLOW = {"Larger networks", "Steps that an audit refuses", RANKS}
"""Groups whose steps are not redrawn many times: they take longer, or draw nothing that matters."""
TOLERANCES = {"float64": 1e-3, "float32": 2e-2, "bfloat16": 5e-2}
"""How far a measured number may be from the expected one, as a share, by the precision of the step."""


class Exhibit(NamedTuple):
    """One file of the gallery: its name, what its docstring says, and its module."""

    name: str
    title: str
    met: str
    right: str
    module: ModuleType

    def functions(self, start: str) -> list[str]:
        """The names of its own functions that start with a word, such as "wrong"."""
        return [
            name
            for name, value in vars(self.module).items()
            if name.startswith(start) and getattr(value, "__module__", None) == self.module.__name__
        ]


@lru_cache
def exhibit(name: str) -> Exhibit:
    """Returns a file of the gallery, whose docstring has a title, "Met in:" where it was met in public, and "Right:"."""
    text = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text())) or ""
    parts = re.fullmatch(r"(?P<title>.+?\.)\n\n(?:Met in: (?P<met>.+?)\.\n)?Right: (?P<right>.+)", text, re.S)
    assert parts, f"{name}.py: its docstring must have a title and a line 'Right: ...'"
    title, met, right = (" ".join((parts[key] or "").split()).removesuffix(".") for key in ("title", "met", "right"))
    return Exhibit(name, title, met, right, import_module(f"tests.cases.{name}"))


def names(*, slow: bool = True) -> Iterator[tuple[str, str]]:
    """Yields file and function of each step in one process; without the slow groups if asked to."""
    for group, files in GROUPS.items():
        if group != RANKS and (slow or group not in SLOW):
            for name in files:
                yield from ((name, function) for start in ("wrong", "right") for function in exhibit(name).functions(start))


def build(name: str, function: str, seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    """Returns the case that a function of a file makes."""
    made: Callable[[int, torch.dtype], Case] = getattr(exhibit(name).module, function)
    return made(seed, dtype)


@lru_cache
def audited(name: str, function: str) -> Audit:
    """Returns the audit of a case as it stands, or of a rank's function in two processes."""
    if name in GROUPS[RANKS]:
        return lrscale.audit(getattr(exhibit(name).module, function), ranks=2)
    return audit(build(name, function))


def audit(case: Case, wrap: Callable[[Step], Step] = lambda step: step) -> Audit:
    """Returns the audit of a case, whose step may be wrapped."""
    return lrscale.audit(wrap(case.step), case.batch, case.model, **case.options)


def in_float32(step: Step) -> Step:
    """A step that turns its inputs into float32, so that an audit cannot run it in float64."""

    def converted(window: Sequence[dict[str, torch.Tensor]]) -> None:
        step([{key: t.float() if t.is_floating_point() else t for key, t in micro.items()} for micro in window])

    return converted


def in_bfloat16(step: Step) -> Step:
    """A step under autocast to bfloat16, which float64 would switch off."""

    def cast(window: Sequence[dict[str, torch.Tensor]]) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            in_float32(step)(window)

    return cast


def complaints(expected: Case | Expected, found: Audit, tolerance: float = TOLERANCES["float64"]) -> list[str]:
    """Returns what is wrong with an audit, where it should have found what is expected; nothing where it is right."""
    wrong = []
    if found.ok is not VERDICTS.get(expected.kind, False):
        wrong.append(f"ok is {found.ok}")
    if expected.kind is not None and expected.kind not in found.kinds:
        wrong.append(f"{expected.kind!r} is not said")
    for key, number in expected.numbers.items():
        if not is_near(found.numbers.get(key), number, tolerance):
            wrong.append(f"{key} is {found.numbers.get(key)}, not {number}")
    if found.runs > MOST_RUNS and not isinstance(expected, Expected):
        wrong.append(f"{found.runs} runs")
    return [f"{', '.join(wrong)}: {sorted(found.kinds)}"] if wrong else []


def is_near(measured: Any, number: Any, tolerance: float) -> bool:
    """Whether a number, or each of a sequence, is as expected."""
    if measured is None:
        return False
    if isinstance(number, Sequence):
        return len(measured) == len(number) and all(map(is_near, measured, number, [tolerance] * len(number)))
    return abs(measured - number) <= tolerance * max(1.0, abs(number))


def redraw(seeds: Iterable[int]) -> tuple[int, list[str]]:
    """Audits all cases that are not slow with other data and weights, in float64 and float32 by turns.

    Returns:
      How many were audited, and what was wrong, one line for each that was judged wrongly.
    """
    count, wrong = 0, []
    for seed in seeds:
        dtype = (torch.float64, torch.float32)[seed % 2]
        for name, function in names(slow=False):
            case = build(name, function, seed, dtype)
            alike = {key: number for key, number in case.numbers.items() if not isinstance(number, Sequence)}
            case = case._replace(numbers=alike)  # which halves are weighed depends on the data
            count += 1
            wrong += [f"{name} {function} {seed}: {complaint}" for complaint in complaints(case, audit(case))]
    return count, wrong


def page() -> str:
    """Returns the page of the gallery, made from the docstrings of its files and from real audits."""
    parts = [INTRODUCTION]
    for group, files in GROUPS.items():
        is_mistaken = any(exhibit(name).functions(prefix) for name in files for prefix in ("wrong", "make_wrong"))
        head = ["mistake" if is_mistaken else "step", "met in", "right", "the audit says"]
        rows = [head, ["---"] * len(head), *(row(exhibit(name)) for name in files)]
        if not any(exhibit(name).met for name in files):
            rows = [[cells[0], *cells[2:]] for cells in rows]
        parts.append(f"## {group}\n\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in rows) + "\n")
    return "\n".join(parts)


def row(shown: Exhibit) -> list[str]:
    """Returns the cells of a file: its title, where it was met, what is right, and what the audit says."""
    functions = [*shown.functions("wrong"), *shown.functions("make_wrong"), *shown.functions("right")]
    return [f"[{shown.title}]({shown.name}.py)", links(shown.met), shown.right, said(audited(shown.name, functions[0]))]


def links(met: str) -> str:
    """Turns OWNER/REPOSITORY#NUMBER into links."""
    return re.sub(r"([\w.-]+/([\w.-]+))#(\d+)", r"[\2#\3](https://github.com/\1/issues/\3)", met)


def said(found: Audit) -> str:
    """Returns the findings that matter: mistakes and refusals, else all that was said, else that nothing was."""
    findings = [finding for finding in found.findings if finding.is_mistake] or list(found.findings)
    sentences = [f"**{finding.kind}**: {finding.sentence}" for finding in findings]
    return " ".join(sentences).replace("|", "\\|") or "nothing against it"


INTRODUCTION = """# Cases

Known mistakes in how a training step averages, sums, accumulates and clips gradients. Each file has about ten lines of code \
for the wrong step, and the right step beside it. The pieces that they share, such as the usual loop, are in \
[\\_\\_init\\_\\_.py](__init__.py). The last column is what `lrscale.audit` says of the wrong step; of each right step it says \
nothing that counts against it.

This page is made from the files and from real audits. The second command audits all small cases again with other data and \
weights:

```bash
python -m tests.cases
python -m tests.cases --draws 300
```
"""
