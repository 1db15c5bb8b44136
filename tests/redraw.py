"""Draws the figures of the published studies again, from their published numbers.

Run it in the repository, after figures have changed: python -m tests.redraw [STUDY ...]
"""

import csv
import json
import sys
from typing import Any

from lrscale.files import write_whole
from lrscale.published.files import Published, names, read
from lrscale.report.draw import main_figures
from lrscale.report.json import as_json
from lrscale.study.answer import Answer, answer
from lrscale.study.records import TrialRecord
from lrscale.training.quantity import Quantity
from tests.configs import ROOT

RESULTS = ROOT / "sweeps" / "results"
NUMBERS = ("value", "low", "high", "expected")


def trials_of(published: Published) -> list[TrialRecord]:
    """The trials of a published study, or the cells of a probe as one trial each."""
    plan = published.study.plan
    ids = {cell.label: cell.id for cell in plan.cells}
    if "trials.csv" not in published.files:
        measured: dict[str, list[Quantity]] = {}
        for row in json.loads(published.files["report.json"])["quantities"]:
            measured.setdefault(row["label"], []).append(Quantity(row["name"], *(row[key] for key in NUMBERS)))
        return [TrialRecord("", ids[label], 0, {}, (), (), None, tuple(found)) for label, found in measured.items()]
    keys = {key.rpartition(".")[2]: key for key in plan.intervals}
    runs: dict[tuple[str, str, tuple[str, ...]], list[dict[str, str]]] = {}
    for row in csv.DictReader(published.files["trials.csv"].splitlines()):
        runs.setdefault((ids[row["cell"]], row.get("round", "1"), tuple(row[key] for key in keys)), []).append(row)
    trials, counts, firsts = [], dict.fromkeys(ids.values(), 0), {}
    for (cell, round_name, values), rows in runs.items():
        number = counts[cell]
        counts[cell] += 1
        params = {key: float(value) for key, value in zip(keys.values(), values, strict=True)}
        objectives, diverged = (tuple(float(row[key]) for row in rows) for key in ("objective", "diverged"))
        together = firsts.setdefault((cell, round_name), number)
        trials.append(TrialRecord("", cell, number, params, objectives, tuple(map(bool, diverged)), together))
    return trials


def answer_of(study: str) -> Answer:
    """The answer of a published study."""
    published = read(study)
    return answer(published.study, trials_of(published))


def verdicts(document: dict[str, Any]) -> list[tuple[str, str]]:
    return [(claim["name"], claim["verdict"]) for claim in document["claims"]]


def main() -> None:
    for study in sys.argv[1:] or names():
        found = answer_of(study)
        published = json.loads((RESULTS / study / "report.json").read_text())
        if verdicts(as_json(found)) != verdicts(published):
            raise SystemExit(f"{study}: the published numbers give other verdicts; publish it again")
        for name, content in main_figures(found).items():
            write_whole(RESULTS / study / name, content)
            print(f"sweeps/results/{study}/{name}  {len(content) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
