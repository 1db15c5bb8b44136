"""Translations: the exact part against torch.optim's own trajectories, the rest against a made-up published study."""

import inspect
from typing import Any

import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor

from lrscale.errors import Refusal
from lrscale.law.homogeneity import RESPONSES
from lrscale.law.translation import Batch, translate
from lrscale.training import reference_loop as plain

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


def test_an_unknown_knob_is_refused() -> None:
    with pytest.raises(Refusal, match="`betas` is not known"):
        translate("adam", 0.1, Batch(), Batch("sum"), {"betas": 0.9})


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


def test_a_turn_over_must_be_that_of_the_momentum() -> None:
    batches = Batch("mean", 32), Batch("mean", 256)
    of_momentum = translate("sgd", 0.1, *batches, {"momentum": 0.9}, b_crit=100)
    assert "B_c must be one that was measured with momentum 0.9." in of_momentum.caveats
    assert "moves B_c" not in of_momentum.answer.otherwise
    plain_sgd, not_known = translate("sgd", 0.1, *batches, b_crit=100), translate("sgd", 0.1, *batches, {"momentum": 0.5})
    assert not [c for c in (*plain_sgd.caveats, *not_known.caveats) if "B_c must" in c]
    assert "moves" not in plain_sgd.answer.otherwise and "momentum 0.5 moves B_c: x 3 where" in not_known.answer.otherwise


@pytest.mark.parametrize("is_scaled", [True, False])
def test_a_loss_scale_is_no_part_of_c_and_its_translation_keeps_the_scaled_loss(is_scaled: bool) -> None:
    """The same float16 gradients, bit for bit, if loss x scale stays; GradScaler takes the scale out before the step."""
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))

    def weights(reduction: str, lr: float, scale: float, clip: float) -> Tensor:
        weight = torch.ones(4, requires_grad=True)
        optimizer, scaler = torch.optim.SGD([weight], lr=lr), torch.amp.GradScaler("cpu", init_scale=scale)
        for _ in range(3):
            optimizer.zero_grad()
            losses = (x.half() @ weight.half()).square()
            scaler.scale(getattr(losses, reduction)()).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_([weight], clip)
            scaler.step(optimizer)
            scaler.update()
        return weight.detach()

    knobs = {"loss_scale": 64.0, "clip_norm": 0.5}
    after = {k.name: k.after for k in translate("sgd", 0.1, Batch("mean", 16), Batch("sum", 16), knobs).answer.knobs}
    assert after == {"lr": 0.1 / 16, "loss_scale": 4.0, "clip_norm": 8.0}
    by_mean = weights("mean", 0.1, 64.0, 0.5)
    by_sum = weights("sum", after["lr"], after["loss_scale"] if is_scaled else 32.0, after["clip_norm"])
    assert_allclose(by_sum, by_mean, rtol=1e-5 if is_scaled else 2e-2)
    assert not torch.allclose(by_mean, weights("sum", 0.1, 4.0, 8.0), rtol=5e-2)
