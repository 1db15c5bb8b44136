"""What an audit says of plain steps, and that its advice is exact."""

import shlex
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import lrscale
from lrscale.audit import entries
from lrscale.errors import Refusal
from lrscale.law.translation import Batch, translate

Loss = Callable[[Tensor, Tensor], Tensor]


def mean(out: Tensor, y: Tensor) -> Tensor:
    return F.mse_loss(out, y)


def total(out: Tensor, y: Tensor) -> Tensor:
    return F.mse_loss(out, y, reduction="sum")


def made(
    loss: Loss, optimizer: str = "SGD", divided: bool = True, width: int = 5, **options: Any
) -> tuple[Callable[[list[Any]], None], tuple[Tensor, Tensor], nn.Module]:
    """Returns a step with one backward for each micro-batch, its batch and its model."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 1))
    rule = getattr(torch.optim, optimizer)(net.parameters(), **{"lr": 0.1, **options})

    def step(micros: list[Any]) -> None:
        rule.zero_grad()
        for x, y in micros:
            (loss(net(x), y) / (len(micros) if divided else 1)).backward()
        rule.step()

    return step, (torch.randn(8, 3), torch.randn(8, 1)), net


def test_a_mean_is_clean_and_the_runs_are_counted() -> None:
    audit = lrscale.audit(*made(mean), accumulation=4, reference=None)
    assert audit.ok is True and audit.findings == () and 20 <= audit.runs <= 60
    assert audit.numbers["mean over"][0] == "examples" and audit.numbers["p"] == pytest.approx(1, abs=1e-6)


def translated(line: str) -> tuple[float, dict[str, float]]:
    """Returns lr and the knobs that a printed `lrscale translate` line gives."""
    words = shlex.split(line)[2:]
    values = dict(zip(words[::2], words[1::2], strict=False)) | {w: "" for w in words if w == "--to-divided"}
    source = Batch(
        values.get("--reduction", "mean"), int(values["--batch-size"]), int(values.get("--accumulation", 1)), False, 1,
        float(values.get("--terms", 1)),
    )  # fmt: skip
    target = Batch(
        values.get("--to-reduction", source.reduction), source.size, source.accumulation, "--to-divided" in values, 1,
        float(values.get("--to-terms", source.terms)),
    )  # fmt: skip
    knobs = {"weight_decay": float(values["--weight-decay"])} if "--weight-decay" in values else {}
    knobs |= {"momentum": float(values["--momentum"])} if "--momentum" in values else {}
    answer = translate(values["--optimizer"], float(values["--lr"]), source, target, knobs)
    return answer.knobs[0].after, {knob.name: knob.after for knob in answer.knobs}


@pytest.mark.parametrize(
    ("loss", "divided", "k", "kind"),
    [(total, False, 1, "sum"), (total, False, 2, "sum"), (mean, False, 4, "grows with the window")],
)
def test_the_translated_lr_takes_the_same_steps_once_the_step_is_mended(loss: Loss, divided: bool, k: int, kind: str) -> None:
    options = {"momentum": 0.5, "weight_decay": 0.25}
    step, (x, y), net = made(loss, divided=divided, **options)
    audit = lrscale.audit(step, (x, y), net, accumulation=k if k > 1 else None)
    finding = next(f for f in audit.findings if f.kind == kind)
    assert finding.translate is not None
    lr, knobs = translated(finding.translate)
    mended, _, other = made(mean, lr=lr, momentum=0.5, weight_decay=knobs["weight_decay"])
    for _ in range(5):
        for run in (step, mended):
            run([(x, y)] * k)
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("optimizer", "p"), [("SGD", 1), ("Adam", 0), ("AdamW", 0), ("RMSprop", 0), ("Adagrad", 0)])
def test_p_is_that_of_the_rule(optimizer: str, p: float) -> None:
    audit = lrscale.audit(*made(mean, optimizer, lr=0.01))
    assert audit.numbers["p"] == pytest.approx(p, abs=1e-3)


def test_p_belongs_to_the_rule_and_not_to_what_the_optimizer_remembers() -> None:
    step, batch, net = made(mean, "Adam", lr=0.01)
    for _ in range(10):
        step([batch])
    assert lrscale.audit(step, batch, net).numbers["p"] == pytest.approx(0, abs=1e-3)


def test_a_large_model_is_compared_at_the_same_chosen_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    step, batch, net = made(total, width=40)
    _, _, other = made(total, width=40)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)

    def clip(micros: list[Any]) -> None:
        optimizer.zero_grad()
        total(other(micros[0][0]), micros[0][1]).backward()
        nn.utils.clip_grad_norm_(other.parameters(), 1e-3)
        optimizer.step()

    whole, norms = lrscale.audit(step, batch, net), lrscale.audit(clip, batch, other)
    monkeypatch.setattr(entries, "ENTRIES", 60)  # of 201
    one, two = (entries.Entries(list(net.parameters())).sample(0, net[0].weight) for _ in range(2))
    assert torch.equal(one, two) and len(one) < net[0].weight.numel()
    chosen, few = lrscale.audit(step, batch, net), lrscale.audit(clip, batch, other)
    assert whole.kinds == chosen.kinds == {"sum"} and few.kinds == norms.kinds
    for name in ("sizes", "growth", "part weights"):
        assert chosen.numbers[name] == pytest.approx(whole.numbers[name]), name
    for name in ("clip threshold", "gradient norm"):
        assert few.numbers[name] == pytest.approx(norms.numbers[name]), name


def test_a_large_eps_is_said() -> None:
    assert "eps acts" in lrscale.audit(*made(mean, "Adam", eps=1.0)).kinds
    assert "eps acts" not in lrscale.audit(*made(mean, "Adam")).kinds


def test_gradients_that_are_divided_after_the_backwards_are_a_mean() -> None:
    step, batch, net = made(total)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    def divided(micros: list[Any]) -> None:
        optimizer.zero_grad()
        for x, y in micros:
            total(net(x), y).backward()
        for p in net.parameters():
            assert p.grad is not None
            p.grad /= sum(len(y) for _, y in micros)
        optimizer.step()

    assert lrscale.audit(divided, batch, net, accumulation=2).ok is True
    assert lrscale.audit(step, batch, net).kinds == {"sum"}


def test_batch_norm_is_named_also_where_the_step_ends_in_eval_mode() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 1))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    def step(micros: list[Any]) -> None:
        net.train()
        optimizer.zero_grad()
        mean(net(micros[0][0]), micros[0][1]).backward()
        optimizer.step()
        net.eval()

    net.eval()
    assert lrscale.audit(step, (torch.randn(8, 3), torch.randn(8, 1)), net).kinds == {"batch norm"}


def test_a_reference_tells_the_size() -> None:
    step, batch, net = made(lambda out, y: 3 * mean(out, y))
    audit = lrscale.audit(step, batch, net, reference=lambda b: mean(net(b[0]), b[1]))
    assert audit.kinds == {"c"} and audit.numbers["c"] == pytest.approx(3)


def test_a_step_that_divides_by_a_constant_is_a_sum() -> None:
    assert lrscale.audit(*made(lambda out, y: total(out, y) / 32)).kinds == {"sum"}


def refused(kind: str) -> tuple[Callable[[list[Any]], None], Any, nn.Module]:
    _, batch, net = made(mean)
    optimizer = torch.optim.LBFGS(net.parameters()) if kind == "closure" else torch.optim.SGD(net.parameters(), lr=0.1)
    fixed = batch

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return mean(net(x), y)

    def other(micros: list[Any]) -> None:
        optimizer.zero_grad()
        if kind == "closure":

            def closure() -> Tensor:
                optimizer.zero_grad()
                value = loss(*micros[0])
                value.backward()
                return value

            optimizer.step(closure)
            return
        if kind == "no gradient":
            return
        x, y = fixed if kind == "ignores the batch" else micros[0]
        x, y = x.to(next(net.parameters()).dtype), y.to(next(net.parameters()).dtype)
        loss(x, y).backward()
        if kind == "weights move":
            with torch.no_grad():
                for p in net.parameters():
                    p += 0.1
            loss(x, y).backward()
        optimizer.step()

    return other, batch, net


@pytest.mark.parametrize("kind", ["closure", "no gradient", "ignores the batch", "weights move"])
def test_what_cannot_be_audited_is_said_in_a_sentence(kind: str) -> None:
    step, batch, net = refused(kind)
    before = [p.detach().clone() for p in net.parameters()]
    audit = lrscale.audit(step, batch, net)
    assert audit.ok is None and audit.kinds == {kind}
    assert all(torch.equal(p, old) for p, old in zip(net.parameters(), before, strict=True))


@pytest.mark.parametrize("given", [lambda net: [net], lambda net: {"net": net}, lambda net: net.parameters()])
def test_models_and_parameters_come_in_any_form(given: Callable[[nn.Module], Any]) -> None:
    step, batch, net = made(mean)
    assert lrscale.audit(step, batch, given(net)).numbers == lrscale.audit(step, batch, net).numbers


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch": torch.zeros(0, 3)}, "`batch` must have 4 examples or more, got 0"),
        ({"batch": torch.zeros(3, 3)}, "`batch` must have 4 examples or more, got 3"),
        ({"model": []}, "`model` must be a torch.nn.Module"),
        ({"model": 5}, "`model` must be a torch.nn.Module"),
        ({"accumulation": 0}, "`accumulation`"),
        ({"tolerance": -1.0}, "`tolerance`"),
        ({"ranks": 2}, "`ranks` must go with a function"),
        ({"step": "step"}, "`step` must be a function"),
        ({"reference": lambda batch: 1.0}, "`reference` must return one loss"),
    ],
)
def test_bad_arguments_are_refused_in_a_line(options: dict[str, Any], words: str) -> None:
    step, batch, model = made(mean)
    with pytest.raises(Refusal, match=words):
        lrscale.audit(**{"step": step, "batch": batch, "model": model, **options})


def test_an_audit_is_an_assertion_and_a_fixture(assert_batch_invariant: Callable[..., lrscale.Audit]) -> None:
    assert assert_batch_invariant(*made(mean)).ok is True
    with pytest.raises(AssertionError, match="SUM: The gradient grows in proportion"):
        assert_batch_invariant(*made(total))
    assert assert_batch_invariant(*made(total), allow="sum").ok is False
    with pytest.raises(AssertionError, match="could not be audited"):
        assert_batch_invariant(*refused("closure"))
    with pytest.raises(Refusal, match="`allow` must name kinds of finding, got summ"):
        assert_batch_invariant(*made(mean), allow=("summ",))
