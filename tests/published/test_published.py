"""The studies in sweeps/results/, and the documents that quote their numbers."""

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from lrscale.files import restore_folders, write_folder
from lrscale.published.compare import verdict_of
from lrscale.published.studies_table import MARKERS, REASONS, studies_page
from tests.configs import ROOT

README = (ROOT / "README.md").read_text()
PAGE = (ROOT / "sweeps" / "README.md").read_text()
RESULTS = ROOT / "sweeps" / "results"
PUBLISHED = sorted(file.parent.name for file in RESULTS.glob("*/record.json"))
FAILING: dict[str, set[str]] = {
    "batch_rules_chars": {
        "at 16 times the batch it is at most half as far off as the linear rule",
        "it is at most half as far off as with AdamW's weight decay left alone",
    },
    "eps": {"lr_sum*/lr_mean* is 1 at every B (eps 1)"},
    "turn_over": {"B_c is within a factor of 2 of the predicted 75.3 (hidden 256)"},
    "turn_over_momentum": {"B_c is 6 to 57 times the predicted 75.3 (hidden 256)"},
}
"""Claims that are published as failing, by study."""
UNTOLD: dict[str, set[str]] = {
    "chars": {"lr_sum*/lr_mean* falls as 1/c (momentum)", "lr_sum*/lr_mean* is 1 at every c (adamw)"},
    "cnn_turn_over": {
        "B_c is within a factor of 2 of the predicted 14.7, B_simple where lr lam_max is largest",
        "B_c is within a factor of 2 of the predicted 43.4, B_simple at 10 % of training",
    },
    "cnn_turn_over_momentum": {"B_c is 6 to 57 times the predicted 14.7", "lr_sum* = eta_max/(B + B_c), rms residual in ln lr"},
    "cnn": {"lr_mean* grows with B, and not faster (sgd)"},
    "curvature": {"256 hidden units, largest lr lam_max at the best lr for B = 4"},
    "digits": {"lr_sum* = eta_max/(B + B_c), rms residual in ln lr (digits, sgd)"},
    "fixed_steps": {"lr* is where the expected loss is least"},
    "last_batch": {
        "The final loss under mean parts from that under sum as the recursion says",
        "The best lr under mean parts from that under sum as the recursion says",
    },
    "regimes": {"steps fall nearly as 1/B at small B", "lr* is where the recursion is soonest at the target"},
    "steps_to_target": {"lr_sum* = 1/(B - 1 + kappa) (features 2)", "lr_sum* = 1/(B - 1 + kappa) (features 8)"},
    "turn_over": {"B_c is within a factor of 2 of the predicted 48.5 (hidden 16)"},
    "turn_over_momentum": {"B_c is 6 to 57 times the predicted 48.5 (hidden 16)"},
}
"""Claims that are published as ones that cannot be told, by study."""
NUMBER = re.compile(r"(-?\d+(?:\.\d+)?(?:×10<sup>-\d+</sup>)?)( %)?")


def report_of(study: str) -> dict[str, Any]:
    return json.loads((RESULTS / study / "report.json").read_text())


def record_of(study: str) -> dict[str, Any]:
    return json.loads((RESULTS / study / "record.json").read_text())


def cells_of(study: str) -> list[dict[str, str]]:
    return list(csv.DictReader((RESULTS / study / "cells.csv").read_text().splitlines()))


def row_of(study: str) -> list[str]:
    """The cells of a study's row."""
    command = re.compile(f"`lrscale reproduce {study}( --trust [^`]+)?`")
    (line,) = (line for line in PAGE.splitlines() if line.startswith("|") and command.search(line))
    return re.split(r"(?<!\\)\|", line)[1:-1]


def items_of(study: str) -> list[str]:
    """The study's items in the lists of claims that fail and of those that cannot be told."""
    return [line for line in PAGE.splitlines() if line.startswith(f"- **`{study}`**")]


def quotes(text: str, values: list[float]) -> bool:
    """Whether each number of a text is one of the values to the digits that it has; per cent may be of |ln(value/expected)|."""

    def is_rounded(number: str, percent: str) -> bool:
        mantissa, _, power = number.removesuffix("</sup>").partition("×10<sup>")
        scale = 10.0 ** int(power or 0)
        unit = scale * 10.0 ** -len(mantissa.partition(".")[2])
        meant = [v for value in values for v in ((100 * value, 100 * math.expm1(value)) if percent else (value,))]
        return any(abs(float(mantissa) * scale - value) <= 0.5001 * unit for value in meant)

    return all(is_rounded(*found) for found in NUMBER.findall(text))


def test_the_page_is_made_from_the_files() -> None:
    found = MARKERS.search(PAGE)
    assert found is not None
    assert found[0] == f"{found[1]}{studies_page(RESULTS)}{found[2]}", "Run lrscale publish STUDY in the repository."
    assert len([line for line in found[0].splitlines() if "`lrscale reproduce " in line]) == len(PUBLISHED)


def claims_of(study: str, verdict: str) -> list[dict[str, Any]]:
    """The claims of a study with a verdict."""
    return [claim for claim in report_of(study)["claims"] if verdict_of(claim) == verdict]


@pytest.mark.parametrize("study", PUBLISHED)
def test_every_claim_that_does_not_hold_is_known_and_listed(study: str) -> None:
    claims, held, failing, untold = report_of(study)["claims"], *(claims_of(study, v) for v in ("holds", "fails", "cannot tell"))
    assert claims and {claim["name"] for claim in failing} == FAILING.get(study, set())
    assert {claim["name"] for claim in untold} == UNTOLD.get(study, set())
    assert len(items_of(study)) == len(failing) + len(untold)
    assert row_of(study)[3].strip().startswith(f"{len(held)} of {len(claims)}")
    assert f"{len(failing)} fail" in row_of(study)[3] or not failing
    assert f"{len(untold)} cannot be told" in row_of(study)[3] or not untold


def predicted(study: str, **cell: str) -> float:
    """The noise scale that a study of curvature measured in a cell, before the lr was tuned."""
    rows = csv.DictReader((RESULTS / study / "quantities.csv").read_text().splitlines())
    wanted = {"name": "b_simple", **{key.replace("__", "."): value for key, value in cell.items()}}
    (value,) = (float(row["value"]) for row in rows if wanted.items() <= row.items())
    return value


@pytest.mark.parametrize(("study", "factors"), [("turn_over", (1 / 2, 2)), ("turn_over_momentum", (6, 57))])
@pytest.mark.parametrize(("hidden", "lr"), [("16", "0.136"), ("256", "0.424")])
def test_the_prediction_of_the_turn_over_is_what_curvature_measured(
    study: str, factors: tuple[float, float], hidden: str, lr: str
) -> None:
    expected = predicted("curvature", task__hidden=hidden, optimizer__lr=lr, probe__fraction="0.1")
    claims = yaml.safe_load((ROOT / "sweeps" / f"{study}.yaml").read_text())["study"]["claims"]
    (claim,) = (c for c in claims if c.get("where") == {"task.hidden": int(hidden)})
    assert (claim["at_least"], claim["at_most"]) == pytest.approx([factor * expected for factor in factors], rel=2e-3)


@pytest.mark.parametrize(("study", "factors"), [("cnn_turn_over", (1 / 2, 2)), ("cnn_turn_over_momentum", (6, 57))])
def test_the_predictions_for_the_cnn_are_what_curvature_measured(study: str, factors: tuple[float, float]) -> None:
    rows = list(csv.DictReader((RESULTS / "cnn_curvature" / "quantities.csv").read_text().splitlines()))
    largest = max((row for row in rows if row["name"] == "lr_lam_max"), key=lambda row: float(row["value"]))
    claims = yaml.safe_load((ROOT / "sweeps" / f"{study}.yaml").read_text())["study"]["claims"]
    predictions = [claim for claim in claims if claim["measure"] == "b_c"]
    for fraction, claim in zip((largest["probe.fraction"], "0.1"), predictions, strict=False):
        expected = predicted("cnn_curvature", probe__fraction=fraction)
        assert (claim["at_least"], claim["at_most"]) == pytest.approx([factor * expected for factor in factors], rel=5e-3)


def are_exact(study: str, verdicts: list[dict[str, Any]]) -> bool:
    """Whether the claims are of ratios of the same runs: measured without an error, at the expected exponent."""
    return all(ratio["same_runs"] for ratio in report_of(study)["ratios"]) and all(
        v["expected"] == v["measured"] and v["ci"] == [v["measured"]] * 2 for v in verdicts
    )


@pytest.mark.parametrize("study", PUBLISHED)
def test_a_row_quotes_the_first_claim_and_the_time(study: str) -> None:
    first = record_of(study)["claims"][0]["name"]
    verdicts = [v for v in report_of(study)["claims"] if v["name"] == first or v["name"].startswith(f"{first} (")]
    measured, _, cases = row_of(study)[2].strip().rpartition(", ") if len(verdicts) > 1 else (row_of(study)[2].strip(), "", "")
    assert cases == (f"{len(verdicts)} cases" if len(verdicts) > 1 else "")
    assert verdicts and quotes(measured, [value for v in verdicts for value in (v["measured"], *(v["ci"] or ()))])
    least = verdicts[0]["measured"]
    exact = {
        "-": all(v["measured"] is None for v in verdicts),
        "exact": least == 0,
        "gradient scale c of sum to rounding": least is not None and least < 1e-13,
        "exact, the same runs": least is not None and are_exact(study, verdicts),
    }
    assert NUMBER.search(measured) or exact[measured]
    number, unit = row_of(study)[0].strip().split()[-1].split("&nbsp;")
    assert float(number) == round(record_of(study)["seconds"] / {"s": 1, "min": 60}[unit])


@pytest.mark.parametrize("study", sorted({*FAILING, *UNTOLD}))
def test_the_list_quotes_what_was_measured_and_expected(study: str) -> None:
    listed = [claim for verdict in ("fails", "cannot tell") for claim in claims_of(study, verdict)]
    for item, verdict in zip(items_of(study), listed, strict=True):
        _, numbers, _ = item.split("<br>")
        measured, expected = numbers.split("Expected: ")
        if verdict["measured"] is None:
            assert measured == "Measured: nothing measured. "
        else:
            assert NUMBER.search(measured) and quotes(measured, [verdict["measured"], *(verdict["ci"] or ())])
        bounds = [verdict[key] for key in ("expected", "tolerance", "at_least", "at_most") if verdict[key] is not None]
        assert [float(number) for number, _ in NUMBER.findall(expected.removesuffix("."))] == bounds


def test_each_failing_claim_has_a_reason_and_no_reason_is_left() -> None:
    assert set(REASONS) == {(study, claim) for study in PUBLISHED for claim in FAILING.get(study, ())}
    assert "no reason known" not in PAGE


def test_adagrads_exact_ratio_is_on_record() -> None:
    adagrad = [r for r in report_of("adam")["ratios"] if r["of"] == {"optimizer": "adagrad"}]
    assert adagrad and all(r["same_runs"] and abs(r["slope"]) < 1e-9 for r in adagrad)


def test_the_page_quotes_the_headline_and_the_processor() -> None:
    ratio = report_of("headline")["ratio"]
    assert ratio["same_runs"] and ratio["ci"] == [ratio["slope"]] * 2
    assert f"B<sup>{ratio['slope']:.0f}</sup> exactly: sum and mean are the same runs" in PAGE
    assert f"{sum(int(r['n_runs']) for r in cells_of('headline'))} recorded runs" in PAGE
    assert "AMD EPYC (family 25)" in PAGE
    assert all(record_of(study)["made_by"]["processor"].startswith("AMD EPYC, family 25,") for study in PUBLISHED)


def test_the_first_lines_quote_the_quickstart() -> None:
    found = report_of("quickstart")
    first = README.partition("\n## ")[0]
    assert found["ratio"]["same_runs"] and found["ratio"]["ci"] == [found["ratio"]["slope"]] * 2
    assert f"The exponent is **exactly {found['ratio']['slope']:.0f}**" in first
    small = next(s for s in found["slopes"] if s["reduction"] == "sum" and s["range"] == "small")
    assert f"(slope {small['slope']:z.2f}, 95 % interval {small['ci'][0]:z.2f} to {small['ci'][1]:z.2f})" in first
    assert f"{sum(cell['n_trials'] for cell in found['cells'])} lrs of 8 seeds each" in first
    output = README.partition("\n## Try it\n")[2].partition("\n## ")[0]
    rows = [line for line in output.splitlines() if line.endswith("holds")]  # the name of a claim may go on in the next line
    assert rows
    for claim, line in zip(found["claims"], rows, strict=False):  # README shows the first ones
        assert claim["name"].startswith(line.split("  ")[0])
        measured = line.split()[-5]
        assert verdict_of(claim) == "holds"
        assert measured == "exact" if claim["ci"] == [-1, -1] else quotes(measured, [claim["measured"]])


def test_the_limits_quote_the_headline() -> None:
    limits = README.partition("\n## Limits\n")[2]
    over = {(r["batch_size"], r["reduction"]): float(r["lr_best"]) / float(r["lr_theory"]) - 1 for r in cells_of("headline")}
    below_n, at_n = (max(v for (b, _), v in over.items() if (b == "1024") is whole) for whole in (False, True))
    assert f"up to {100 * below_n:.0f} % above it while B < N, and {100 * at_n:.0f} % at B = N" in limits


@pytest.mark.parametrize("move", [1, 2])
def test_a_publication_that_is_killed_leaves_the_old_files_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, move: int
) -> None:
    folder, moves = tmp_path / "study", []
    write_folder(folder, {"a": b"old", "b": b"old"})

    def killed(source: Path, target: Path) -> None:
        moves.append(target)
        if len(moves) == move:
            raise KeyboardInterrupt
        source.replace(target)

    monkeypatch.setattr("lrscale.files.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_folder(folder, {"a": b"new"})
    monkeypatch.undo()
    restore_folders(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["study"]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"a": b"old", "b": b"old"}
    write_folder(folder, {"a": b"new"})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"a": b"new"}
