"""`lrscale translate`: its answer first, what it assumes, the habits of libraries, and what it refuses."""

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from numpy.testing import assert_allclose

from lrscale.commands.cli import main
from lrscale.law.habits import HABITS, KNOB_DEFAULTS
from lrscale.law.homogeneity import HAS_BETAS, HAS_MOMENTUM, HAS_NO_EPS, RESPONSES
from tests.program import here


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
        (["--lr", "0.1", "--to-reduction", "none"], "to-reduction"),
        ([], "lr"),
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


def test_the_first_line_is_the_answer(folder: Path) -> None:
    lines = here(folder, "translate", "--lr", "0.1", "--to-reduction", "sum").splitlines()
    assert lines[0] == "lr=0.003125"
    assert any("Assumed: mean reduction, B = 32" in text for text in lines)


@pytest.mark.parametrize(
    ("arguments", "exact"),
    [
        (["--optimizer", "sgd"], True),
        (["--optimizer", "adam", "--eps", "1e-8"], True),
        (["--optimizer", "adam"], True),
        (["--optimizer", "lamb"], False),
        (["--optimizer", "radam", "--eps", "1e-8"], False),
        (["--optimizer", "lars"], False),
        (["--optimizer", "adadelta", "--eps", "1e-6"], False),
        (["--optimizer", "lbfgs"], False),
    ],
)
def test_only_what_takes_the_same_steps_is_called_exact(arguments: list[str], exact: bool, folder: Path) -> None:
    said = here(folder, "translate", "--lr", "0.1", *arguments, "--to-reduction", "sum")
    assert ("These take exactly the same steps" in said) == exact
    assert ("up to the points under 1" in said) != exact
    document = json.loads(here(folder, "translate", "--lr", "0.1", *arguments, "--to-reduction", "sum", "--format", "json"))
    assert document["exact"]["is_exact"] == exact


def test_keras_adds_up_the_sums_of_its_replicas(folder: Path) -> None:
    asked = ["--from", "keras", "--batch-size", "32", "--ranks", "4", "--to-reduction", "sum"]
    assert here(folder, "translate", "--lr", "0.1", *asked).startswith("lr=0.003125\n")


@pytest.mark.parametrize(("library", "before", "after"), [("hf", 32, 256), ("lightning", 32, 256), ("keras", 16, 64)])
def test_a_library_sets_who_divides_and_what_a_batch_size_counts(library: str, before: int, after: int, folder: Path) -> None:
    asked = ["--from", library, "--batch-size", "16", "--ranks", "2", "--to-accumulation", "4", "--to-ranks", "4"]
    said = json.loads(here(folder, "translate", "--lr", "0.1", *asked, "--format", "json"))
    assert (said["source"]["size"], said["target"]["size"]) == (before, after)
    assert said["r"] == 1 and said["target"]["divided"]
    assert_allclose(said["answer"]["knobs"][0]["after"], 0.1 * after / before)
    assert any("divided" in text or "averaged" in text for text in said["assumed"])


@pytest.mark.parametrize("library", HABITS)
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
            loss = (x[micro, rank] @ weight).square().mean() / (1 if library in ("ddp", "fsdp") else count)  # who divides
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
        (["--optimizer", "adam", "--betas", "0.9", "1"], "beta2"),
        (["--optimizer", "adam", "--betas", "-0.1", "0.9"], "beta1"),
        (["--model", "forest"], "model"),
        (["--from", "hf", "--ranks", "0"], "ranks"),
        (["--from", "keras", "--to-accumulation", "0"], "accumulation"),
        (["--optimizer", "adamw", "--momentum", "0.9"], "--momentum"),
        (["--optimizer", "lion", "--eps", "1e-8"], "--eps"),
        (["--betas", "0.9", "0.99"], "--betas"),
    ],
)
def test_new_options_are_refused_in_one_line(arguments: list[str], field: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["translate", "--lr", "0.1", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"lrscale: `{field}` ") and err.count("\n") == 1


@pytest.mark.parametrize("name", [n for n, o in vars(torch.optim).items() if inspect.isclass(o) and n.lower() in RESPONSES])
def test_the_options_of_an_optimizer_are_those_of_torch(name: str) -> None:
    parameters = inspect.signature(getattr(torch.optim, name)).parameters
    has = {"momentum": HAS_MOMENTUM, "betas": HAS_BETAS, "eps": [known for known in RESPONSES if known not in HAS_NO_EPS]}
    assert {option for option, names in has.items() if name.lower() in names} == set(has) & set(parameters)


@pytest.mark.parametrize("name", [n for n, o in vars(torch.optim).items() if inspect.isclass(o) and n.lower() in RESPONSES])
def test_the_defaults_are_those_of_torch(name: str) -> None:
    parameters = inspect.signature(getattr(torch.optim, name)).parameters
    values = {knob: parameters[knob].default for knob in ("eps", "weight_decay") if knob in parameters}
    if not RESPONSES[name.lower()].eps or not isinstance(values.get("eps"), float):  # Adafactor's depends on the dtype
        values.pop("eps", None)
    if "betas" in parameters:
        values |= dict(zip(("beta1", "beta2"), parameters["betas"].default, strict=True))
    assert KNOB_DEFAULTS.get(name.lower(), {}) == {knob: value for knob, value in values.items() if value}


WIDER = {"beta1": 0.9**4, "beta2": 0.999**4, "eps": 0.5e-8}
"""What becomes of the defaults of Adam at four times the batch size."""


@pytest.mark.parametrize(
    ("arguments", "knobs"),
    [
        ("--optimizer adamw --to-reduction sum", {"lr": 0.1, "eps": 32e-8}),
        ("--optimizer adamw --to-reduction sum --to-batch-size 128", {"lr": 0.2, **WIDER, "eps": 64e-8, "weight_decay": 0.02}),
        ("--optimizer adamw --to-batch-size 128", {"lr": 0.2, **WIDER, "weight_decay": 0.02}),
        ("--optimizer adamw --weight-decay 0 --to-batch-size 128", {"lr": 0.2, **WIDER, "weight_decay": 0}),
        ("--optimizer adamw --coupled --to-batch-size 128", {"lr": 0.2, **WIDER}),
        ("--optimizer adamw --from hf --to-batch-size 128", {"lr": 0.2, **WIDER}),
        (
            "--optimizer adamw --from keras --to-batch-size 128 --to-reduction sum",
            {"lr": 0.2, **WIDER, "eps": 64e-7, "weight_decay": 0.008},
        ),
        ("--optimizer adam --eps 1e-8 --betas 0.9 0.999 --to-batch-size 128", {"lr": 0.2, **WIDER}),
        ("--optimizer adam --to-batch-size 128", {"lr": 0.2, **WIDER}),
        ("--optimizer adagrad --to-batch-size 128", {"lr": 0.1, "eps": 0.25e-10}),
        ("--optimizer lion --to-batch-size 64", {"lr": 0.1 * 2**0.5, "beta1": 0.9**2, "beta2": 0.99**2}),
        ("--optimizer adagrad --to-reduction sum", {"lr": 0.1, "eps": 32e-10}),
        ("--optimizer adam --eps 1e-6 --to-reduction sum", {"lr": 0.1, "eps": 32e-6}),
        ("--optimizer adam --to-accumulation 4 --to-divided", {"lr": 0.1}),
        ("--to-reduction sum", {"lr": 0.1 / 32}),
    ],
)
def test_what_was_not_given_and_must_change_is_set_too(arguments: str, knobs: dict[str, float], folder: Path) -> None:
    said = json.loads(here(folder, "translate", "--lr", "0.1", *arguments.split(), "--format", "json"))
    after = {knob["name"]: knob["after"] for knob in said["answer"]["knobs"]}
    assert after == pytest.approx(knobs)
    defaults = next((text for text in said["assumed"] if text.startswith("the default")), "")
    named = {name for name in ("eps", "beta1", "beta2", "weight_decay") if f"{name} = " in defaults}
    option = {"beta1": "--betas", "beta2": "--betas", "weight_decay": "--weight-decay"}
    assert named == {name for name in knobs if name != "lr" and option.get(name, f"--{name}") not in arguments}


def test_the_rule_quotes_the_studies_that_tested_it(folder: Path) -> None:
    def quoted(*arguments: str) -> set[str]:
        asked = ["translate", "--lr", "0.1", *arguments, "--format", "json"]
        return {quote["study"] for quote in json.loads(here(folder, *asked))["studies"]}

    wider = ["--to-batch-size", "512"]
    assert quoted(*wider) == {"batch_rules"}
    assert quoted(*wider, "--momentum", "0.9") == {"batch_rules", "momentum_edge", "momentum"}
    assert "batch_rules" in quoted(*wider, "--optimizer", "adam")
    for other in (["--to-reduction", "sum"], [*wider, "--b-crit", "100"], [*wider, "--optimizer", "lion"]):
        assert quoted(*other) == set()
    said = here(folder, "translate", "--lr", "0.1", "--momentum", "0.9", *wider)
    assert "heavy-ball momentum 0.9 moves B_c: x 19" in " ".join(said.split()) and "(momentum_edge)" in said


def test_batch_sizes_in_tokens_quote_no_study_in_examples(folder: Path) -> None:
    def document(*arguments: str) -> dict[str, Any]:
        asked = ["translate", "--lr", "0.1", "--optimizer", "adam", *arguments, "--format", "json"]
        document: dict[str, Any] = json.loads(here(folder, *asked))
        return document

    tokens, examples = document("--tokens", "64", "--to-tokens", "256"), document("--batch-size", "64", "--to-batch-size", "256")
    assert tokens["answer"] == examples["answer"] and "B counts tokens" in tokens["assumed"]
    assert tokens["batch_size"]["evidence"] == [] and examples["batch_size"]["evidence"]
    of_all = document("--tokens", "4096", "--from", "hf", "--ranks", "4", "--accumulation", "2")
    assert of_all["source"]["size"] == 4096 and of_all["source"]["c"] == 1


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
