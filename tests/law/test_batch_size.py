"""From one batch size to another: the rules, what goes with the lr, and that AdamW's decay keeps its timescale."""

import pytest
import torch
from numpy.testing import assert_allclose

from lrscale.law.translation import Batch, translate


@pytest.mark.parametrize(
    ("optimizer", "linear", "root", "same"),
    [("sgd", 0.1 / 32, 0.1 * 8**0.5 / 256, 0.1 / 256), ("adam", 0.8, 0.1 * 8**0.5, 0.1)],
)
def test_the_rules_are_in_the_targets_units(optimizer: str, linear: float, root: float, same: float) -> None:
    found = translate(optimizer, 0.1, Batch("mean", 32), Batch("sum", 256))
    assert_allclose([rule.lr for rule in found.rules], [linear, root, same])
    assert not translate(optimizer, 0.1, Batch("mean", 32), Batch("sum", 32)).rules


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


def test_eps_follows_the_size_that_the_turn_over_gives_a_gradient() -> None:
    """A gradient of B examples has the square |G|^2 (1 + B_c/B), so eps follows its root, and lr x decay / size x steps stays."""
    size = ((1 + 96 / 128) / (1 + 96 / 32)) ** 0.5
    after = answered("Adam", {"eps": 1e-6, "weight_decay": 0.1}, b_crit=96.0)
    assert_allclose([after["lr"], after["eps"]], [0.1 / size, 1e-6 * size])
    assert_allclose(after["lr"] * after["weight_decay"] / size / 4, 0.1 * 0.1)
    assert (
        answered("Adagrad", {"weight_decay": 0.1})["weight_decay"]
        == answered("Adam", {"weight_decay": 0.1})["weight_decay"]
        == 0.1
    )


def test_adagrad_keeps_its_lr_where_noise_dominates() -> None:
    assert_allclose(list(answered("Adagrad", {"eps": 1e-8}).values()), [0.1, 0.25e-8])


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
