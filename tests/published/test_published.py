"""The studies that README publishes: its table is made from their files, and what fails is known to."""

import csv
import json
import re

import pytest

from lrscale.published.studies_table import MARKERS, measured_cell, table
from tests.configs import ROOT

README = (ROOT / "README.md").read_text()
RESULTS = ROOT / "sweeps" / "results"
PUBLISHED = sorted(file.parent.name for file in RESULTS.glob("*/record.json"))
FAILING: dict[str, set[str]] = {
    "adam": {"lr_sum*/lr_mean* is 1 at every B (adagrad)"},
    "digits": {
        "lr_sum* = eta_max/(B + B_c), rms residual in ln lr (digits, sgd)",
        "B_c is within a factor of 5 of B_simple = 141 (digits, sgd)",
        "B_c is within a factor of 5 of B_simple = 123 (digits_mlp, sgd)",
        "lr_sum* = eta_max/(B + B_c), rms residual in ln lr (digits_mlp, momentum)",
    },
    "fashion_mnist": {
        "B_c is within a factor of 5 of B_simple = 69 (fashion_mnist_mlp, momentum)",
    },
}
"""Claims that are published as failing, by study."""


def cells(study: str) -> list[dict[str, str]]:
    return list(csv.DictReader((RESULTS / study / "cells.csv").read_text().splitlines()))


def test_readmes_table_is_that_of_the_files() -> None:
    found = MARKERS.search(README)
    assert found is not None
    assert found[0] == f"{found[1]}{table(RESULTS)}{found[2]}", "Run lrscale publish STUDY in the repository."
    assert len(table(RESULTS).splitlines()) == 2 + len(PUBLISHED)


@pytest.mark.parametrize("study", PUBLISHED)
def test_every_claim_that_fails_is_known_and_named(study: str) -> None:
    claims = json.loads((RESULTS / study / "report.json").read_text())["claims"]
    failing = {claim["name"] for claim in claims if not claim["holds"]}
    assert claims and failing == FAILING.get(study, set())
    (row,) = (line for line in table(RESULTS).splitlines() if f"`lrscale reproduce {study}`" in line)
    assert row.count("**fails**") == len(failing)
    assert f"{len(claims) - len(failing)} of {len(claims)} claims hold" in row


def test_the_first_lines_quote_the_quickstart() -> None:
    found = json.loads((RESULTS / "quickstart" / "report.json").read_text())
    low, high = found["ratio"]["ci"]
    first = README.partition("\n## ")[0]
    assert f"{found['ratio']['slope']:.3f} [{low:.3f}, {high:.3f}]" in first
    small = next(s for s in found["slopes"] if s["reduction"] == "sum" and s["range"] == "small")
    assert f"(slope {small['slope']:.2f} [{small['ci'][0]:.2f}, {small['ci'][1]:.2f}])" in first
    assert f"{len(found['cells'])} cells, {sum(cell['n_trials'] for cell in found['cells'])} trials of 8 seeds" in first


def test_the_limits_quote_the_records() -> None:
    limits = README.partition("\n## Limits\n")[2]
    headline = cells("headline")
    over = {(r["batch_size"], r["reduction"]): float(r["lr_best"]) / float(r["lr_theory"]) - 1 for r in headline}
    below_n, at_n = (max(v for (b, _), v in over.items() if (b == "1024") is whole) for whole in (False, True))
    assert f"up to {100 * below_n:.0f} % above it while B < N, and {100 * at_n:.0f} % at B = N" in limits

    best = {(int(r["batch_size"]), r["reduction"]): float(r["lr_best"]) for r in cells("adam") if r["optimizer"] == "adagrad"}
    assert "from B = 64 its lr_sum\\* and lr_mean\\* agree to 1 %, but at B = 4 and 16 both lie above 1" in limits
    assert all(best[b, "sum"] == pytest.approx(best[b, "mean"], rel=0.01) for b in (64, 256, 1024))
    assert min(best[b, reduction] for b in (4, 16) for reduction in ("sum", "mean")) > 1


def test_a_row_names_what_fails_and_counts_what_holds() -> None:
    claims = [{"name": "level*", "measure": "slope"}, {"name": "lr*", "measure": "theory"}, {"name": "c", "measure": "largest"}]

    def verdict(name: str, value: float | None, holds: bool, ci: list[float] | None = None) -> dict[str, object]:
        return {"name": name, "measured": value, "ci": ci, "holds": holds}

    level = [verdict(f"level* ({of})", v, True, [v - 0.02, v + 0.02]) for of, v in (("sgd", 0.01), ("adam", 0.0))]
    rest = [verdict("lr* (sgd)", 0.05, True), verdict("lr* (adam)", 0.3, False), verdict("c", None, False)]
    assert measured_cell(claims, level + rest) == (
        r"level\*: 0.010 [-0.010, 0.030] (sgd), 0.000 [-0.020, 0.020] (adam); lr\*: within 35 % (adam) **fails**; "
        r"c: nothing measured **fails**; 3 of 5 claims hold"
    )
    many = [verdict(f"level* ({i})", i / 10, i != 3, [i / 10 - 0.1, i / 10 + 0.1]) for i in range(9)]
    assert (
        measured_cell(claims[:1], many)
        == r"level\*: 0.00 [-0.10, 0.10] to 0.80 [0.70, 0.90] in 8 cases, 0.30 [0.20, 0.40] (3) **fails**; 8 of 9 claims hold"
    )
    assert re.fullmatch(r".*2 of 2 claims hold", measured_cell(claims[1:2], [verdict("lr* (a)", 0.0, True)] * 2))
