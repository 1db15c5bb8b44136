"""Translations: the exact part against torch.optim's own trajectories, the rest against a made-up published study."""

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor

from lrscale.commands.cli import main
from lrscale.errors import Refusal
from lrscale.law.homogeneity import RESPONSES
from lrscale.law.translation import Batch, translate
from lrscale.report.translation import published
from lrscale.training import reference_loop as plain
from tests.program import here

STEPS = 12
EXACT: dict[str, tuple[str, dict[str, float], dict[str, Any]]] = {
    "sgd": ("SGD", {}, {}),
    "sgd, momentum and decay": ("SGD", {"momentum": 0.9, "weight_decay": 0.1}, {}),
    "nesterov": ("SGD", {"momentum": 0.9, "weight_decay": 0.1}, {"nesterov": True}),
    "asgd": ("ASGD", {"weight_decay": 0.1}, {"lambd": 0.0}),
    "adam": ("Adam", {"eps": 0.1, "weight_decay": 0.1}, {}),
    "adamw": ("AdamW", {"eps": 0.1, "weight_decay": 0.1}, {}),
    "nadam": ("NAdam", {"eps": 0.1, "weight_decay": 0.1}, {}),
    "adamax": ("Adamax", {"eps": 0.1, "weight_decay": 0.1}, {}),
    "rmsprop": ("RMSprop", {"eps": 0.1, "weight_decay": 0.1}, {}),
    "adagrad": ("Adagrad", {"eps": 0.1, "weight_decay": 0.1}, {}),
    "rprop": ("Rprop", {}, {}),
    "muon": ("Muon", {"momentum": 0.9, "weight_decay": 0.1, "eps": 0.1}, {}),
    "clip by norm": ("SGD", {"clip_norm": 0.5, "weight_decay": 0.1}, {}),
    "clip by value": ("Adam", {"clip_value": 0.2, "eps": 0.1}, {}),
    "penalties": ("SGD", {"l1": 0.05, "l2": 0.1}, {}),
}


def trajectory(name: str, lr: float, knobs: dict[str, float], batch: Batch, options: dict[str, Any]) -> Tensor:
    """Weights of a small regression after each step of torch.optim, its gradient put together as `batch` says, [step, ..]."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(STEPS, batch.size, 4, generator=generator, dtype=torch.float64)
    y = torch.randn(STEPS, batch.size, int(batch.terms), generator=generator, dtype=torch.float64)
    module = torch.nn.Linear(4, y.shape[-1], bias=False, dtype=torch.float64)
    with torch.no_grad():
        module.weight.copy_(torch.randn(module.weight.shape, generator=generator, dtype=torch.float64))
    own = {k: v for k, v in knobs.items() if k in ("momentum", "weight_decay", "eps")}
    optimizer = getattr(torch.optim, name)(module.parameters(), lr=lr, **own, **options)
    return plain.trajectory(module, optimizer, zip(x, y, strict=True), batch, knobs, lambda out, y: (out - y) ** 2)


def translated(name: str, knobs: dict[str, float], target: Batch, lr: float = 0.05) -> dict[str, float]:
    """Lr and knobs for a target of the same size and terms, from mean."""
    found = translate(name, lr, Batch("mean", target.size, terms=target.terms), target, knobs)
    return {knob.name: knob.after for knob in found.knobs}


@pytest.mark.parametrize("case", EXACT)
def test_sum_with_translated_knobs_is_mean_bit_for_bit(case: str) -> None:
    name, knobs, options = EXACT[case]
    by_mean = trajectory(name, 0.05, knobs, Batch("mean", 16), options)
    after = translated(name, knobs, Batch("sum", 16))
    by_sum = trajectory(name, after.pop("lr"), after, Batch("sum", 16), options)
    if "clip_norm" in knobs:  # torch adds 1e-6 to the norm
        assert_allclose(by_sum, by_mean, rtol=1e-4)
    else:
        assert torch.equal(by_sum, by_mean)
    assert not torch.allclose(by_mean[0], by_mean[-1], rtol=1e-3)


@pytest.mark.parametrize(
    ("case", "knob"), [(case, knob) for case, (_, knobs, _) in EXACT.items() for knob in ("lr", *knobs) if knob != "momentum"]
)
def test_a_knob_left_alone_breaks_it_where_it_is_said_to_scale(case: str, knob: str) -> None:
    name, knobs, options = EXACT[case]
    by_mean = trajectory(name, 0.05, knobs, Batch("mean", 16), options)
    after = translated(name, knobs, Batch("sum", 16))
    before = {"lr": 0.05} | knobs
    scales = after[knob] != before[knob]
    after[knob] = before[knob] if scales else before[knob] * 16
    by_sum = trajectory(name, after.pop("lr"), after, Batch("sum", 16), options)
    broken = not torch.allclose(by_sum, by_mean, rtol=1e-3)
    assert broken or (name, knob) == ("Muon", "eps")  # which acts where a gradient's norm is below it, not here


@pytest.mark.parametrize(
    "target",
    [
        Batch("sum", 24),
        Batch("sum_over_nominal", 24, terms=3),
        Batch("sum", 24, terms=3),
        Batch("mean", 24, accumulation=4),
        Batch("mean", 24, accumulation=4, divided=True),
        Batch("sum", 24, accumulation=3, ranks=4),
        Batch("sum", 24, ranks=4),
        Batch("sum", 24, accumulation=2, divided=True, ranks=2, terms=3),
    ],
    ids=str,
)
@pytest.mark.parametrize("case", ["sgd, momentum and decay", "adam", "penalties"])
def test_every_way_of_making_a_gradient_is_translated(case: str, target: Batch) -> None:
    name, knobs, options = EXACT[case]
    reference = trajectory(name, 0.05, knobs, Batch("mean", 24, terms=target.terms), options)
    after = translated(name, knobs, target)
    assert_allclose(trajectory(name, after.pop("lr"), after, target, options), reference, rtol=1e-7)
    back = translate(name, 0.05, target, Batch("mean", 24, terms=target.terms))
    assert_allclose(back.knobs[0].after * back.ratio ** RESPONSES[name.lower()].p, 0.05)


def names() -> list[str]:
    chosen = vars(torch.optim).items()
    return [
        n for n, o in chosen if inspect.isclass(o) and issubclass(o, torch.optim.Optimizer) and o is not torch.optim.Optimizer
    ]


def test_every_optimizer_of_torch_is_known() -> None:
    assert {name.lower() for name in names()} | {"lion", "signsgd", "lars", "lamb"} == set(RESPONSES)


@pytest.mark.parametrize("name", sorted(set(names()) - {"SparseAdam", "LBFGS"}))
def test_p_is_what_torchs_optimizers_do(name: str) -> None:
    weight = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)
    gradients = torch.randn(20, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def last_update(scale: float) -> Tensor:
        parameter = weight.clone().requires_grad_()
        takes = inspect.signature(getattr(torch.optim, name)).parameters
        optimizer = getattr(torch.optim, name)([parameter], lr=1e-3, **({"weight_decay": 0} if "weight_decay" in takes else {}))
        before = weight
        for gradient in gradients:
            before = parameter.detach().clone()
            parameter.grad = gradient * scale
            optimizer.step()
        return parameter.detach() - before

    one, many = last_update(1.0), last_update(1024.0)
    measured = float(torch.log2(many.norm() / one.norm())) / 10
    assert abs(measured - RESPONSES[name.lower()].p) < 0.02


def test_radam_divides_its_first_five_steps_only() -> None:
    def weights(scale: float, first: float) -> Tensor:
        parameter = torch.ones(3, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.RAdam([parameter], lr=0.01, eps=1e-4 * scale)
        for step in range(12):
            optimizer.param_groups[0]["lr"] = 0.01 / first if step < 5 else 0.01
            parameter.grad = scale * (1 + step) * torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
            optimizer.step()
        return parameter.detach()

    assert torch.equal(weights(64.0, 64.0), weights(1.0, 1.0))
    assert not torch.allclose(weights(64.0, 1.0), weights(1.0, 1.0), rtol=1e-3)
    assert any("first steps" in c for c in translate("RAdam", 0.01, Batch(), Batch("sum")).caveats)


def test_asgds_lambd_scales_as_its_note_says() -> None:
    by_mean = trajectory("ASGD", 0.05, {}, Batch("mean", 16), {"lambd": 0.5})
    assert torch.allclose(trajectory("ASGD", 0.05 / 16, {}, Batch("sum", 16), {"lambd": 8.0}), by_mean, rtol=1e-12)
    assert not torch.allclose(trajectory("ASGD", 0.05 / 16, {}, Batch("sum", 16), {"lambd": 0.5}), by_mean, rtol=1e-3)


@pytest.mark.parametrize(
    ("optimizer", "linear", "root", "same"),
    [("sgd", 0.1 / 32, 0.1 * 8**0.5 / 256, 0.1 / 256), ("adam", 0.8, 0.1 * 8**0.5, 0.1)],
)
def test_the_rules_are_in_the_targets_units(optimizer: str, linear: float, root: float, same: float) -> None:
    found = translate(optimizer, 0.1, Batch("mean", 32), Batch("sum", 256))
    assert_allclose([rule.lr for rule in found.rules], [linear, root, same])
    assert not translate(optimizer, 0.1, Batch("mean", 32), Batch("sum", 32)).rules


def line(reduction: str, low: int | None, high: int | None, slope: float) -> dict[str, Any]:
    return {"of": {}, "reduction": reduction, "low": low, "high": high, "slope": slope, "ci": [slope - 0.1, slope + 0.2]}


REPORT = {
    "objective": "train_loss",
    "cells": [{"batch_size": 1}, {"batch_size": 16}, {"batch_size": 512}],
    "ratios": [{"of": {}, "expected": -1}],
    "slopes": [line("sum", 1, 16, 0.0), line("sum", None, None, -0.5), {**line("sum", 300, 400, 0.0), "slope": None, "ci": None}],
    "turn_over": [{"of": {}, "b_c": 100.0, "ci": [50.0, 200.0]}],
}


def test_a_published_study_speaks_where_it_measured() -> None:
    found = translate("sgd", 0.1, Batch("mean", 32), Batch("sum", 256), reports={"made_up": REPORT})
    slope, turn = found.evidence
    assert_allclose(slope.value, [0.5, 0.4, 0.7])
    assert_allclose(slope.lr, [0.1 * 8**power / 256 for power in (0.5, 0.4, 0.7)])
    assert_allclose(turn.value, [100, 50, 200])
    assert_allclose(turn.lr, [0.1 / 32 * (32 + b) / (256 + b) for b in (100, 50, 200)])
    assert not translate("adam", 0.1, Batch("mean", 32), Batch("sum", 256), reports={"made_up": REPORT}).evidence
    assert not translate("sgd", 0.1, Batch("mean", 32), Batch("sum", 1024), reports={"made_up": REPORT}).evidence


def test_of_several_ranges_the_narrowest_that_holds_both_batch_sizes_speaks() -> None:
    found = translate("sgd", 0.1, Batch("mean", 2), Batch("mean", 8), reports={"made_up": REPORT})
    assert_allclose(found.evidence[0].value[0], 1)
    assert found.evidence[0].conditions.startswith("B 1 to 16")


def test_published_studies_are_read_from_their_folder(tmp_path: Path) -> None:
    (tmp_path / "made_up").mkdir()
    (tmp_path / "made_up" / "report.json").write_text(json.dumps(REPORT))
    assert published(tmp_path) == {"made_up": REPORT}
    assert published(tmp_path / "nosuch") == {}


@pytest.mark.parametrize(
    ("arguments", "lr", "decay"),
    [
        (["--to-reduction", "sum", "--to-batch-size", "256"], 0.1 / 256, 1e-4 * 256),
        (["--to-batch-size", "256", "--to-accumulation", "8"], 0.1 / 8, 1e-4 * 8),
        (["--to-reduction", "sum", "--to-ranks", "4"], 0.1 / 8, 1e-4 * 8),
    ],
)
def test_the_command_answers(arguments: list[str], lr: float, decay: float, folder: Path) -> None:
    asked = ["translate", "--lr", "0.1", "--momentum", "0.9", "--weight-decay", "1e-4", *arguments]
    said = json.loads(here(folder, *asked, "--format", "json"))
    after = {knob["name"]: knob["after"] for knob in said["exact"]["knobs"]}
    assert_allclose([after["lr"], after["weight_decay"], after["momentum"]], [lr, decay, 0.9])
    text = here(folder, *asked)
    assert f"{lr:.6g}" in text and f"{decay:.6g}" in text and "1. Exact" in text and "2. " in text
    assert max(map(len, text.splitlines())) <= 80
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (["--lr", "0"], "lr"),
        (["--lr", "nan"], "lr"),
        (["--lr", "0.1", "--optimizer", "sofia"], "optimizer"),
        (["--lr", "0.1", "--batch-size", "0"], "batch_size"),
        (["--lr", "0.1", "--to-ranks", "3"], "batch_size"),
        (["--lr", "0.1", "--to-accumulation", "0"], "accumulation"),
        (["--lr", "0.1", "--to-reduction", "none"], "reduction"),
        (["--lr", "0.1", "--terms", "-1"], "terms"),
        (["--lr", "0.1", "--weight-decay", "-1"], "weight_decay"),
        (["--lr", "0.1", "--momentum", "1"], "momentum"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(arguments: list[str], field: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["translate", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"lrscale: `{field}` ") and err.count("\n") == 1


def test_help_names_every_knob(capsys: pytest.CaptureFixture[str]) -> None:
    from lrscale.law.translation import KNOBS

    with pytest.raises(SystemExit):
        main(["translate", "--help"])
    said = capsys.readouterr().out
    assert all(f"--{knob.replace('_', '-')}" in said for knob in KNOBS if not knob.startswith("beta")) and "--betas" in said


def test_an_unknown_knob_is_refused() -> None:
    with pytest.raises(Refusal, match="`betas` is not known"):
        translate("adam", 0.1, Batch(), Batch("sum"), {"betas": 0.9})


def answered(optimizer: str, knobs: dict[str, float], b_crit: float | None = None) -> dict[str, float]:
    found = translate(optimizer, 0.1, Batch("mean", 32), Batch("mean", 128), knobs, b_crit=b_crit)
    return {knob.name: knob.after for knob in found.answer.knobs}


def test_adamws_decay_keeps_lr_x_wd_x_steps_and_its_companions_follow() -> None:
    after = answered("AdamW", {"weight_decay": 0.1, "eps": 1e-8, "beta1": 0.9, "beta2": 0.999})
    assert_allclose(list(after.values()), [0.2, 0.2, 0.5e-8, 0.9**4, 0.999**4])
    assert_allclose(after["lr"] * after["weight_decay"] / 4, 0.1 * 0.1)


def test_sgd_follows_the_linear_rule_or_the_turn_over() -> None:
    assert_allclose(list(answered("SGD", {"weight_decay": 1e-4}).values()), [0.4, 1e-4])
    after = answered("SGD", {"weight_decay": 1e-4}, b_crit=96.0)
    assert_allclose(after["lr"], 0.1 * 4 * (32 + 96) / (128 + 96))
    assert_allclose(after["lr"] * after["weight_decay"] / 4, 0.1 * 1e-4)


def test_a_law_that_does_not_hold_is_not_quoted() -> None:
    for verdict in ("fails", "cannot tell"):
        report = {**REPORT, **{k: [row | {"verdict": verdict} for row in REPORT[k]] for k in ("slopes", "turn_over")}}
        assert not translate("sgd", 0.1, Batch("mean", 32), Batch("sum", 256), reports={"made_up": report}).evidence


def test_the_first_line_is_the_answer(folder: Path) -> None:
    lines = here(folder, "translate", "--lr", "0.1", "--to-reduction", "sum").splitlines()
    assert lines[0] == "lr=0.003125"
    assert any("Assumed: mean reduction, B = 32" in text for text in lines)


@pytest.mark.parametrize(("library", "before", "after"), [("hf", 32, 256), ("lightning", 32, 256), ("keras", 16, 64)])
def test_a_library_sets_who_divides_and_what_a_batch_size_counts(library: str, before: int, after: int, folder: Path) -> None:
    asked = ["--from", library, "--batch-size", "16", "--ranks", "2", "--to-accumulation", "4", "--to-ranks", "4"]
    said = json.loads(here(folder, "translate", "--lr", "0.1", *asked, "--format", "json"))
    assert (said["source"]["size"], said["target"]["size"]) == (before, after)
    assert said["r"] == 1 and said["target"]["divided"]
    assert_allclose(said["answer"]["knobs"][0]["after"], 0.1 * after / before)
    assert any("divided" in text or "averaged" in text for text in said["assumed"])


def test_adagrad_keeps_its_lr_where_noise_dominates() -> None:
    assert_allclose(list(answered("Adagrad", {"eps": 1e-8}).values()), [0.1, 0.25e-8])


def moved(name: str, scale: float, lr: float, options: dict[str, Any], shape: tuple[int, ...] = (6,)) -> Tensor:
    """Weights after each of 8 steps of torch.optim on given gradients times `scale`."""
    generator = torch.Generator().manual_seed(1)
    parameter = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(shape).clone().requires_grad_()
    optimizer = getattr(torch.optim, name)([parameter], lr=lr, **options)
    rows = []
    for _ in range(8):
        gradient = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
        parameter.grad = gradient.to_sparse() if name == "SparseAdam" else gradient
        optimizer.step()
        rows.append(parameter.detach().clone())
    return torch.stack(rows)


def test_sparse_adam_is_translated_bit_for_bit() -> None:
    after = translated("SparseAdam", {"eps": 0.1}, Batch("sum", 16))
    one = moved("SparseAdam", 1.0, 0.05, {"eps": 0.1})
    assert torch.equal(moved("SparseAdam", 16.0, after["lr"], {"eps": after["eps"]}), one)
    assert not torch.allclose(moved("SparseAdam", 16.0, after["lr"], {"eps": 0.1}), one, rtol=1e-3)


def test_adafactors_eps_is_exact_for_vectors_and_for_matrices_only_above_it() -> None:
    after = translated("Adafactor", {"eps": 0.5, "weight_decay": 0.1}, Batch("sum", 16))

    def weights(scale: float, first: float, shape: tuple[int, ...]) -> Tensor:
        options = {"eps": (first, 1e-3), "weight_decay": after["weight_decay"]}
        return moved("Adafactor", scale, after["lr"], options, shape)

    assert after["weight_decay"] == 0.1 and after["lr"] == 0.05
    assert torch.equal(weights(16.0, after["eps"], (6,)), weights(1.0, 0.5, (6,)))
    assert torch.equal(weights(16.0, 16e-6, (2, 3)), weights(1.0, 1e-6, (2, 3)))
    assert not torch.allclose(weights(1.6, 16 * 0.05, (2, 3)), weights(0.1, 0.05, (2, 3)), atol=1e-2)
    assert any("row's mean" in c for c in translate("Adafactor", 0.1, Batch(), Batch("sum")).caveats)


def test_adadelta_is_close_while_gradients_are_far_above_eps_and_says_so() -> None:
    def apart(eps: float) -> float:
        one, many = (moved("Adadelta", scale, 1.0, {"eps": eps}) for scale in (1.0, 16.0))
        return float((one - many).abs().max() / (one[-1] - one[0]).abs().max())

    assert apart(1e-8) < 1e-4 < 0.05 < apart(1.0)
    assert any("no value of eps is exact" in c for c in translate("Adadelta", 0.1, Batch(), Batch("sum")).caveats)


def test_lbfgs_follows_its_note() -> None:
    def weights(scale: float, tolerance: float, search: str | None) -> Tensor:
        parameter = torch.linspace(1, 2, 5, dtype=torch.float64).requires_grad_()
        optimizer = torch.optim.LBFGS([parameter], lr=0.5, max_iter=6, tolerance_grad=tolerance, line_search_fn=search)

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = scale * (torch.arange(1, 6) * parameter.square()).sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        return parameter.detach()

    assert_allclose(weights(16.0, 16.0, None), weights(1.0, 1.0, None), rtol=1e-9)
    assert not torch.allclose(weights(16.0, 1.0, None), weights(1.0, 1.0, None), rtol=1e-9)
    assert translated("LBFGS", {}, Batch("sum", 16))["lr"] == 0.05


def test_adamws_run_over_the_same_examples_stays_only_if_decay_goes_with_lr() -> None:
    """Gradients of pure noise of size 1/sqrt(B): the weights forget their start at lr x wd a step, and diffuse."""

    def spread(size: int, scale_decay: bool) -> float:
        knobs = {"weight_decay": 0.5, "eps": 1e-8, "beta1": 0.9, "beta2": 0.99}
        after = {k.name: k.after for k in translate("AdamW", 0.02, Batch(size=4), Batch(size=size), knobs).answer.knobs}
        decay = after["weight_decay"] if scale_decay else 0.5
        parameter = torch.ones(4000, dtype=torch.float64, requires_grad=True)
        betas = (after["beta1"], after["beta2"])
        optimizer = torch.optim.AdamW([parameter], lr=after["lr"], betas=betas, eps=after["eps"], weight_decay=decay)
        generator = torch.Generator().manual_seed(0)
        for _ in range(400 // (size // 4)):
            parameter.grad = torch.randn(4000, generator=generator, dtype=torch.float64) / size**0.5
            optimizer.step()
        return float(parameter.detach().mean())

    start = spread(4, True)
    assert start < 0.1
    assert_allclose(spread(16, True), start, atol=0.02)
    assert spread(16, False) > start + 0.05


@pytest.mark.parametrize("library", ["hf", "lightning", "accelerate", "keras"])
def test_what_from_says_is_what_a_loop_with_those_habits_does(library: str, folder: Path) -> None:
    count, ranks, own = 4, 2, 6
    asked = ["--from", library, "--batch-size", str(own), "--ranks", str(ranks), "--accumulation", str(count), "--format", "json"]
    said = json.loads(here(folder, "translate", "--lr", "0.1", *asked))["source"]
    generator = torch.Generator().manual_seed(0)
    per_rank = own // ranks if library == "keras" else own
    x = torch.randn(count, ranks, per_rank, 3, generator=generator, dtype=torch.float64)
    weight = torch.ones(3, dtype=torch.float64, requires_grad=True)
    for rank in range(ranks):
        for micro in range(count):
            loss = (x[micro, rank] @ weight).square().mean() / count  # the library divides by the number of micro-batches
            (loss / ranks).backward()  # and averages over the ranks
    assert said["size"] == x[..., 0].numel()
    flat = torch.ones(3, dtype=torch.float64, requires_grad=True)
    (x.reshape(-1, 3) @ flat).square().mean().backward()
    assert weight.grad is not None and flat.grad is not None
    assert_allclose(weight.grad, said["c"] * flat.grad, rtol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (["--b-crit", "0"], "b_crit"),
        (["--b-crit", "nan"], "b_crit"),
        (["--betas", "0.9", "1"], "beta2"),
        (["--betas", "-0.1", "0.9"], "beta1"),
        (["--model", "forest"], "model"),
        (["--from", "hf", "--ranks", "0"], "ranks"),
        (["--from", "keras", "--to-accumulation", "0"], "accumulation"),
    ],
)
def test_new_options_are_refused_in_one_line(arguments: list[str], field: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["translate", "--lr", "0.1", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"lrscale: `{field}` ") and err.count("\n") == 1


def test_the_answer_stays_on_one_line(folder: Path) -> None:
    asked = [
        "--optimizer",
        "adamw",
        "--weight-decay",
        "0.1",
        "--betas",
        "0.9",
        "0.999",
        "--eps",
        "1e-8",
        "--to-batch-size",
        "512",
    ]
    lines = here(folder, "translate", "--lr", "3e-4", *asked).splitlines()
    assert lines[0].startswith("lr=0.0012 ") and "beta2=" in lines[0] and "eps=" in lines[0]
    assert any("shorter than a step" in line or "becomes shorter" in line for line in lines)
