"""`lrscale.audit` on steps of Trainer, Lightning and Accelerate: the right forms, and the mistakes that were met in public.

Each step runs the library's own loop on small random models. Nothing is downloaded, and nothing is written outside `tmp_path`.
"""

import gc
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
from torch.utils.data import DataLoader

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TRANSFORMERS_VERBOSITY": "error"}

from transformers import Trainer, TrainingArguments

import lrscale
from tests.audit.accelerate_steps import (
    accelerate_case,
    accelerator_of,
    divided_again,
    local_mean,
    makes_rank,
    over_the_window,
    over_the_window_divided,
)
from tests.audit.framework_data import WINDOW, Case, mean, network, points, prompts, sequences, total, with_reference
from tests.audit.lightning_steps import (
    ClipsScaled,
    ClipsUnscaled,
    Manual,
    Module,
    batches,
    counted,
    lightning_case,
    setting,
)
from tests.audit.trainer_steps import (
    DividesAgain,
    DropsCount,
    LocalMean,
    LocalMeanDeclared,
    TimesSetting,
    TimesWindow,
    WithoutCount,
    classifier_case,
    language_model,
    mean_over_micro_batch,
    mixture,
    sum_over_count,
    trainer_case,
    with_own_loss,
)
from tests.configs import ROOT

pytestmark = [
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),  # Lightning, with many cores
    pytest.mark.filterwarnings("ignore:The `srun` command is available"),  # Lightning, beside Slurm
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning"),  # Lightning, of torch
]
DOCUMENT = ROOT / "src" / "lrscale" / "audit" / "FRAMEWORKS.md"
TOKENS = (2 / 7, 5 / 7)  # of the two halves that differ most: 6 and 15 of 21
UNTRUE = {"several optimizers", "random", "not repeatable", "not in float64", "cannot tell"}
"""What holds for none of these steps."""
CLOSE = 1e-3  # of a factor; rounding in float32 inside some losses is 1e-7


class Expected(NamedTuple):
    """A case, the kinds of mistakes that the audit must find, and no other, and the numbers that it must measure."""

    case: Callable[[Path], Case]
    mistakes: frozenset[str] = frozenset()
    numbers: Mapping[str, float] = MappingProxyType({})


def says(case: Callable[[Path], Case], *mistakes: str, **numbers: float) -> Expected:
    """What the audit must say; `accumulation_factor=1` stands for the number "accumulation factor"."""
    return Expected(case, frozenset(mistakes), {name.replace("_", " "): number for name, number in numbers.items()})


TRAINER = {
    "right: a language model": says(lambda f: trainer_case(f, language_model()), accumulation_factor=1, growth=0),
    "right: against the token mean": says(lambda f: with_own_loss(trainer_case(f, language_model())), c=1),
    "right: a sum over the count it is given": says(
        lambda f: trainer_case(f, language_model(), compute_loss_func=sum_over_count)
    ),
    "right: label smoothing": says(lambda f: trainer_case(f, language_model(), label_smoothing_factor=0.1)),
    "right: clipped at 1, as by default": says(lambda f: trainer_case(f, language_model(), max_grad_norm=1.0), clip_threshold=1),
    "right: bf16 autocast": says(lambda f: trainer_case(f, language_model(), bf16=True), accumulation_factor=1, growth=0),
    "right: a classifier that is told to be divided": says(lambda f: classifier_case(f, is_told=True), accumulation_factor=1),
    "right: experts without a loss on the router": says(lambda f: trainer_case(f, mixture(router_loss=False))),
    # transformers#34191: token means, averaged over micro-batches
    "a model that takes no count": says(lambda f: trainer_case(f, WithoutCount(language_model().config)), "mean of means"),
    "a local mean, declared": says(lambda f: trainer_case(f, language_model(), LocalMeanDeclared), "mean of means"),
    # transformers#37766 #47688: a local mean of which the Trainer believes that it was divided
    "a model that drops the count": says(
        lambda f: with_own_loss(trainer_case(f, DropsCount(language_model().config))),
        "mean of means",
        "not divided",
        accumulation_factor=WINDOW,
    ),
    "compute_loss with a local mean": says(
        lambda f: with_own_loss(trainer_case(f, language_model(), LocalMean)),
        "mean of means",
        "not divided",
        accumulation_factor=WINDOW,
    ),
    "compute_loss_func with a local mean": says(
        lambda f: trainer_case(f, language_model(), compute_loss_func=mean_over_micro_batch),
        "mean of means",
        "grows with the window",
        accumulation_factor=WINDOW,
    ),
    # transformers#35207 #35438: times k, to undo a division that is not made any more
    "times the window": says(
        lambda f: trainer_case(f, language_model(), TimesWindow), "grows with the window", accumulation_factor=WINDOW
    ),
    "times the setting": says(
        lambda f: with_own_loss(trainer_case(f, language_model(), TimesSetting)), "c", c=WINDOW, accumulation_factor=1
    ),
    "divided again": says(
        lambda f: trainer_case(f, language_model(), DividesAgain), "falls with the window", accumulation_factor=1 / WINDOW
    ),
    "a loss on the router": says(lambda f: trainer_case(f, mixture(router_loss=True)), "coupled loss"),
}
LIGHTNING = {
    "right: automatic": says(lambda _: lightning_case(Module(), points()), accumulation_factor=1, growth=0),
    "right: bf16 autocast": says(lambda _: lightning_case(Module(), points(), precision="bf16-mixed"), accumulation_factor=1),
    "right: automatic, clipped": says(lambda _: lightning_case(Module(), points(), gradient_clip_val=0.5), clip_threshold=0.5),
    "right: manual, by the window": says(
        lambda _: with_reference(lightning_case(Manual(batches), points())), c=1, accumulation_factor=1
    ),
    "right: manual, by its labels": says(lambda _: lightning_case(Manual(counted, total), sequences()), accumulation_factor=1),
    "right: clipped after unscaling": says(
        lambda _: lightning_case(ClipsUnscaled(), points(), None, scaled=True), clip_threshold=1
    ),
    # Lightning#19987: the last window of an epoch has fewer
    "automatic, a short last window": says(
        lambda _: with_reference(lightning_case(Module(), points(), window=WINDOW)), "short window"
    ),
    "manual, a short last window": says(lambda _: with_reference(lightning_case(Manual(setting), points())), "short window"),
    "automatic, a sum": says(lambda _: lightning_case(Module(total), points()), "sum", growth=1),
    "automatic, token means": says(lambda _: lightning_case(Module(), sequences()), "mean of means", accumulation_factor=1),
    "manual, not divided": says(
        lambda _: with_reference(lightning_case(Manual(), points())), "not divided", accumulation_factor=WINDOW
    ),
    "manual, token means": says(lambda _: lightning_case(Manual(batches), sequences()), "mean of means"),
    # Lightning#9694: a mistake, but not about grouping
    "clipped before unscaling": says(
        lambda _: lightning_case(ClipsScaled(), points(), None, scaled=True), clip_threshold=2.0**-16
    ),
}
ACCELERATE = {
    "right: a mean, whole windows": says(
        lambda _: with_reference(accelerate_case(local_mean, points())), c=1, accumulation_factor=1
    ),
    "right: the window's labels": says(
        lambda _: with_reference(accelerate_case(over_the_window, sequences(), whole_windows=False)), c=1, accumulation_factor=1
    ),
    "right: clipped once an update": says(lambda _: accelerate_case(local_mean, points(), clip="last"), clip_threshold=0.5),
    "a short last window": says(
        lambda _: with_reference(accelerate_case(local_mean, points(), whole_windows=False)), "short window"
    ),
    # accelerate#3533: backward divides, and so does the user
    "divided again": says(
        lambda _: accelerate_case(divided_again, points()), "falls with the window", accumulation_factor=1 / WINDOW
    ),
    "the window's labels, divided again": says(
        lambda _: accelerate_case(over_the_window_divided, sequences()), "falls with the window", accumulation_factor=1 / WINDOW
    ),
    "token means": says(lambda _: accelerate_case(local_mean, sequences()), "mean of means", accumulation_factor=1),
    "clipped at every backward": says(lambda _: accelerate_case(local_mean, points(), clip="every"), "changed between backwards"),
}
EXPECTED = {
    f"{library}, {name}": expected
    for library, cases in (("trainer", TRAINER), ("lightning", LIGHTNING), ("accelerate", ACCELERATE))
    for name, expected in cases.items()
}


@pytest.fixture(scope="module", autouse=True)
def _quick_collection() -> Iterator[None]:
    """`Trainer.train` collects garbage at its end: 0.25 s where these libraries are loaded, and 0.01 s where they are frozen."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accelerate's state belongs to the process: each test begins with a new one. Lightning says little."""
    accelerator_of()
    monkeypatch.setattr(logging.getLogger("lightning.pytorch"), "level", logging.ERROR)


def audited(case: Case) -> lrscale.Audit:
    return lrscale.audit(case.step, case.batch, case.model, **case.options)


@pytest.mark.parametrize("name", EXPECTED)
def test_the_audit_says_what_a_step_does(name: str, tmp_path: Path) -> None:
    case, mistakes, numbers = EXPECTED[name]
    audit = audited(case(tmp_path))
    assert {finding.kind for finding in audit.findings if finding.is_mistake} == mistakes, audit
    assert audit.ok is (not mistakes), audit
    assert not audit.kinds & UNTRUE, audit
    for number, value in numbers.items():
        assert audit.numbers[number] == pytest.approx(value, rel=CLOSE, abs=1e-6), number
    if "mean of means" in mistakes:
        apart, together = audit.numbers["weights as micro-batches"], audit.numbers["weights in one batch"]
        assert apart[0] == pytest.approx(apart[1], rel=CLOSE)
        assert [weight / sum(together) for weight in together] == pytest.approx(TOKENS, rel=CLOSE)
    assert ("clip before unscale" in audit.kinds) is ("before unscaling" in name)
    assert audit.runs <= 60
    assert not list(tmp_path.iterdir()), "a step of one update writes nothing"


@pytest.mark.parametrize("gathers", [True, False])
def test_counts_of_several_processes_must_be_gathered(gathers: bool) -> None:
    """transformers#34373: each process divides by its own tokens, and DDP averages."""
    audit = lrscale.audit(makes_rank(gathers), ranks=2)
    assert {finding.kind for finding in audit.findings if finding.is_mistake} == (set() if gathers else {"mean of ranks' means"})
    assert audit.numbers["ranks / one process"] == pytest.approx(1, rel=CLOSE)


def test_transformers_own_classifier_is_judged_as_a_plain_comparison_judges_it(tmp_path: Path) -> None:
    """transformers#47688: its forward takes `**kwargs` and drops the count. A version that mends this has factor 1."""
    case = classifier_case(tmp_path)
    half = {name: values[:3] for name, values in case.batch.items()}

    def moved(micro_batches: list[Any]) -> torch.Tensor:
        before = {name: value.clone() for name, value in case.model.state_dict().items()}
        case.step(micro_batches)
        change = torch.cat([(value - before[name]).flatten() for name, value in case.model.state_dict().items()])
        case.model.load_state_dict(before)
        return change

    factor = float(moved([half] * WINDOW).norm() / moved([half]).norm())
    audit = audited(case)
    assert audit.numbers["accumulation factor"] == pytest.approx(factor, rel=CLOSE)
    assert audit.ok is (factor == pytest.approx(1, rel=CLOSE))


@pytest.mark.parametrize(
    "name", ["trainer, right: a language model", "lightning, right: automatic", "accelerate, right: a mean, whole windows"]
)
def test_an_audit_leaves_the_training_as_it_was(name: str, tmp_path: Path) -> None:
    def weights(with_audit: bool) -> torch.Tensor:
        case = EXPECTED[name].case(tmp_path)
        case.step([case.batch] * WINDOW)
        if with_audit:
            audited(case)
        case.step([case.batch] * WINDOW)
        return torch.cat([parameter.detach().flatten() for parameter in case.model.parameters()])

    assert torch.equal(weights(with_audit=True), weights(with_audit=False))


BLOCKS = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.S)
TRAINER_CODE, LIGHTNING_CODE, WATCH_CODE, ACCELERATE_CODE = BLOCKS


def own_trainer(folder: Path) -> Trainer:
    """A Trainer as a user builds it: with data, and an epoch of several updates."""
    rows = [dict(zip(prompts(), row, strict=True)) for row in zip(*prompts().values(), strict=True)]
    settings = {"per_device_train_batch_size": 6, "gradient_accumulation_steps": WINDOW, "report_to": "none", "use_cpu": True}
    return Trainer(language_model(), TrainingArguments(str(folder), disable_tqdm=True, **settings), train_dataset=rows * 8)


def test_the_documented_trainer_step_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(TRAINER_CODE, {"trainer": own_trainer(tmp_path)})
    assert "The update is invariant to how its examples are grouped" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_the_documented_lightning_step_runs(capsys: pytest.CaptureFixture[str]) -> None:
    exec(LIGHTNING_CODE, {"module": Module(), "batch": points()})
    assert "grows with the window" in capsys.readouterr().out.lower()  # a constant divides: a short last window counts less


def accelerated(window: int) -> dict[str, Any]:
    """What the documented loop of Accelerate uses: 8 batches of six examples, and the parts of a run."""
    accelerator, net = accelerator_of(window), network()
    data = points()
    loader = DataLoader(
        [{name: values.roll(k, 0) * (1 if name == "y" else 1 + k) for name, values in data.items()} for k in range(8)],
        batch_size=None,
    )
    loader, model, optimizer = accelerator.prepare(loader, net, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9))
    return {"accelerator": accelerator, "loader": loader, "model": model, "optimizer": optimizer, "loss_of": mean, "batch": data}


def test_the_documented_accelerate_step_runs(capsys: pytest.CaptureFixture[str]) -> None:
    exec(ACCELERATE_CODE, accelerated(WINDOW))
    assert "grows with the window" in capsys.readouterr().out.lower()


@pytest.mark.parametrize("window", [1, 2, WINDOW])
def test_watch_says_what_a_loop_of_accelerate_does_and_changes_nothing(window: int, capsys: pytest.CaptureFixture[str]) -> None:
    plain = accelerated(window)
    exec(WATCH_CODE.replace("lrscale.watch(loader, model)", "loader"), plain)
    plain_weights = torch.cat([parameter.detach().flatten() for parameter in plain["model"].parameters()])
    watched = accelerated(window)
    exec(WATCH_CODE, watched)
    said = capsys.readouterr().out
    assert "The update is invariant to how its examples are grouped" in said, said
    assert torch.equal(torch.cat([parameter.detach().flatten() for parameter in watched["model"].parameters()]), plain_weights)


def test_watch_finds_a_mistake_in_a_loop_of_accelerate(capsys: pytest.CaptureFixture[str]) -> None:
    loop = accelerated(WINDOW)
    exec(WATCH_CODE, {**loop, "loss_of": total})
    assert "\nsum: " in capsys.readouterr().out.lower()
