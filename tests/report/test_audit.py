"""What a reader sees of an audit: lines of 80 columns that can be copied, one JSON document, and the picture of |g|."""

import io
import json
import math
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from lrscale.audit.finding import Audit, Finding
from lrscale.report.audit import audit_json, in_few_words, measured_rows, show_audit
from lrscale.report.audit_files import audit_files
from lrscale.report.figures.audit import gradient_against_examples

LINE = "lrscale translate --optimizer adamw --lr 0.001 --weight-decay 0.01 --eps 1e-08 --reduction sum --batch-size 64"
FIX = "loss = losses.mean()   # or losses.sum() / the number of terms of the whole update"
NUMBERS: dict[str, Any] = {
    "growth": 1.0,
    "reduction": "sum",
    "c(2n)/c(n)": 2.0,
    "sizes": {6: 1.5, 12: 3.0, 24: 6.0},
    "part sizes": [1, 2, 3],
    "part weights": [1.0, 1.0, 1.0],
    "not from parts": math.nan,
    "given / raw": 1 / 1024,
    "clip threshold": 1.0,
    "clip active": True,
    "gradient norm": 3.25,
    "groups": [
        {"optimizer": "AdamW", "group": 0, "p": 0.0, "lr": 0.001, "weight_decay": 0.01},
        {"optimizer": "AdamW", "group": 1, "p": math.nan, "lr": 0.002},
    ],
    "window of j / whole": {1: 1.0, 4: 4.0},
    "accumulation factor": 4.0,
    "c": math.inf,
    "c at examples": 12,
    "rounding": 2e-16,
}
SUM = Finding("sum", "The gradient grows in proportion to the number of examples.", {"growth": 1.0}, LINE, FIX, True)
TWO = Finding("not divided", "Micro-batches are added up.", {}, f"{LINE} && {LINE} --to-divided", "(loss / 4).backward()", True)
SCALED = Finding("clip before unscale", "Almost nothing is left.", {}, None, "scaler.unscale_(optimizer)")
CLIP = Finding("clip", "Gradients are clipped at norm 1: it acts here.")
WRONG = Audit((SUM, TWO, SCALED, CLIP), NUMBERS, ("The size of the gradient: Pass reference=.",), 33)
RIGHT = Audit((CLIP,), {"growth": -1e-9, "reduction": "mean", "sizes": {6: 1.5, 12: 1.5}, "mean over": ["examples"]}, (), 20)
REFUSED = Audit((Finding("closure", "The optimizer computes the loss several times."),), {}, (), 1)
AUDITS = {"wrong": WRONG, "right": RIGHT, "refused": REFUSED}


def text(audit: Audit, width: int = 80, is_terminal: bool = False) -> str:
    out = io.StringIO()
    show_audit(
        audit, Console(file=out, width=width, force_terminal=is_terminal, color_system="standard" if is_terminal else None)
    )
    return out.getvalue()


@pytest.mark.parametrize("name", AUDITS)
def test_lines_are_plain_and_have_at_most_80_columns(name: str) -> None:
    said = text(AUDITS[name], 200)
    assert max(map(len, said.splitlines())) <= 80
    assert said == said.encode("ascii").decode() and not re.search(r"\s$", said.replace("\n", ""))
    assert re.sub(r"\x1b\[[\d;]*m", "", text(AUDITS[name], is_terminal=True)) == text(AUDITS[name])


def test_the_verdict_comes_first_and_mistakes_before_the_rest() -> None:
    said = text(WRONG)
    parts = [WRONG.verdict, "1. sum", "2. not divided", "3. clip before unscale", "Also found", "- clip: ", "What cannot be told"]
    places = [said.index(part) for part in [*parts, "Measured in 33 runs of the step"]]
    assert places == sorted(places) and places[0] == 0
    assert text(RIGHT).startswith("The update is invariant") and "1." not in text(RIGHT).partition("Measured")[0]
    assert text(REFUSED).startswith("This step could not be audited.\n\n1. closure\n")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_shell_reads_each_command_as_it_is(width: int) -> None:
    lines = text(WRONG, width).splitlines()
    joined = "\n".join(lines).replace("\\\n", " ")
    read = [shlex.split(line) for line in joined.splitlines() if "lrscale translate" in line]
    assert read == [shlex.split(command) for command in (LINE, LINE, f"{LINE} --to-divided")]
    words = max(len(f"       {word} {value} \\") for word, value in re.findall(r"(--\S+) (\S+)", LINE))
    assert max(map(len, lines)) <= max(min(width, 80), words)


def test_the_right_line_of_code_is_a_line() -> None:
    lines = [line.strip() for line in text(WRONG).splitlines()]
    assert "loss = losses.mean()" in lines and "# or losses.sum() / the number of terms of the whole update" in lines
    assert {"(loss / 4).backward()", "scaler.unscale_(optimizer)"} <= set(lines)


def keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner)


@pytest.mark.parametrize("name", AUDITS)
def test_json_is_one_document_of_plain_values(name: str) -> None:
    audit = AUDITS[name]
    document = json.loads(json.dumps(audit_json(audit), allow_nan=False))
    assert (document["verdict"], document["ok"], document["runs"]) == (audit.verdict, audit.ok, audit.runs)
    assert [f["kind"] for f in document["findings"]] == [f.kind for f in audit.findings]
    assert [f["translate"] for f in document["findings"]] == [f.translate for f in audit.findings]
    assert document["unknown"] == list(audit.unknown)
    assert all(re.fullmatch(r"[a-z0-9_]+", key) for key in keys(document))
    assert len(document["numbers"]) == len(audit.numbers)


def test_json_has_none_for_what_is_not_finite_and_stable_names() -> None:
    numbers = audit_json(WRONG)["numbers"]
    assert numbers["c"] is None and numbers["not_from_parts"] is None and numbers["groups"][1]["p"] is None
    assert numbers["clip_active"] is True and numbers["accumulation_factor"] == 4.0 and numbers["c_at_2n_over_c_at_n"] == 2.0
    assert numbers["sizes"] == [{"examples": n, "gradient_norm": g} for n, g in NUMBERS["sizes"].items()]


def test_numbers_are_shown_in_words() -> None:
    rows = dict(measured_rows(WRONG))
    assert rows["growth of c with n examples"] == "n^1.00: as a sum"
    assert rows["norm of the gradient"] == "1.5, 3, 6 at n = 6, 12, 24"
    assert rows["accumulation factor"] == "4 micro-batches / all at once = 4"
    assert rows["clip threshold"] == "norm 1; acts here, at norm 3.25"
    assert rows["loss scale"].startswith("the loss times 1024,")
    assert rows["p of AdamW, group 0"].startswith("0.00 ") and "not measured" in rows["p of AdamW, group 1"]
    assert rows["c, against the reference"] == "inf at n = 12; in another direction: 0 % of it"
    assert rows["weight decay"] == "0.01" and rows["rounding of a gradient"] == "2e-16 of it"
    right = dict(measured_rows(RIGHT))
    assert right["growth of c with n examples"] == "n^0.00: as a mean" and right["the mean is over"] == "examples"


def test_the_picture_has_the_lines_of_mean_and_sum_through_the_first_point() -> None:
    figure = gradient_against_examples(WRONG)
    assert figure is not None
    (axes,) = figure.axes
    drawn = {str(line.get_label()): line for line in axes.lines}
    points = {label: list(zip(*line.get_data(), strict=True)) for label, line in drawn.items()}
    assert points["measured"] == [(6, 1.5), (12, 3.0), (24, 6.0)]
    assert points["mean: level"] == [(6, 1.5), (24, 1.5)]
    assert points["sum: in proportion to n"] == [(6, 1.5), (24, 6.0)]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_title(loc="left") == in_few_words(WRONG) == "Not invariant: sum, not divided"
    low, high = axes.get_ylim()
    assert low < 1.5 and high > 6.0


def test_there_is_no_picture_without_a_gradient() -> None:
    assert gradient_against_examples(REFUSED) is None
    assert set(audit_files(REFUSED)) == {"audit.txt", "audit.json"}
    files = audit_files(RIGHT)
    assert set(files) == {"audit.txt", "audit.json", "audit.png", "audit.svg"}
    assert files["audit.txt"].decode() == text(RIGHT) and json.loads(files["audit.json"]) == audit_json(RIGHT)
    assert files["audit.png"][1:4] == b"PNG"


def test_each_verdict_has_few_words() -> None:
    assert in_few_words(RIGHT) == "Invariant to how examples are grouped"
    assert in_few_words(REFUSED) == "Not audited: closure"
