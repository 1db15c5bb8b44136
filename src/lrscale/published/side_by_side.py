"""Prints which published studies can be reproduced, and the published answer of one beside the answer here."""

import json
import shlex
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from lrscale.errors import Refusal, printable
from lrscale.published.compare import verdict_of
from lrscale.published.studies_table import all_published, bound_of, measured_words, reproducing
from lrscale.run.progress import duration
from lrscale.study.claims import quantity_name
from lrscale.study.meanings import what_is_measured
from lrscale.study.plan import Plan
from lrscale.study.verdict import CANNOT_TELL, FAILS

STYLES = {FAILS: "bold red", CANNOT_TELL: "bold"}
"""The style of a claim's row on a terminal, by its verdict here."""
NONE = "none"
"""What stands where one side has no such claim."""


def list_published() -> None:
    """Prints the command that reproduces each published study, with its question and the time that it took.

    Raises:
      Refusal: a published file is not as `lrscale publish` writes it.
    """
    console, studies = Console(highlight=False, markup=False), all_published()
    if not studies:
        console.print("No study is published here. Publish one with lrscale publish, or take --from RUN_ID.")
        return
    console.print("Published studies, with the time that each took where it was published:")
    for study in studies.values():
        console.print()
        console.print(f"{shlex.join(reproducing(study))}  ({duration(float(study.record['seconds']))})", soft_wrap=True)
        question = printable(str(study.record["question"] or "no question"))
        console.print(textwrap.fill(question, console.width, initial_indent="  ", subsequent_indent="  "))
    if any("--trust" in reproducing(study) for study in studies.values()):
        console.print()
        console.print("--trust FILE lets a study run the Python code in a file. Read the file first.")


def answer_rows(report: str) -> dict[str, tuple[str, str, str]]:
    """Returns what a report says of each claim, by the claim's name: what was expected, what was measured, and the verdict.

    Args:
      report: a report as JSON text, perhaps a stranger's.

    Raises:
      Refusal: it is not a report.
    """
    try:
        return dict(_rows(json.loads(report)))
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        raise Refusal("report.json must be a report that lrscale publish has written.") from None


def _rows(report: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, str, str]]]:
    for claim in report["claims"]:
        texts = (bound_of(claim).words, measured_words(str(claim["measure"]), claim), verdict_of(claim))
        yield printable(str(claim["name"])), (printable(texts[0]), printable(texts[1]), printable(texts[2]))


def show_answers(published: str, here: str, plan: Plan, console: Console) -> None:
    """Prints the law and each claim as published, beside those of the reproduction.

    The law of a probe is the one that the study states, since its report has a sentence for each claim, and the table shows them.

    Args:
      published: the published report, as JSON text.
      here: the report of the reproduction, as JSON text.
      plan: what the study asks.
      console: where this is printed.
    """
    console.print()
    if not plan.intervals:
        console.print(f"law: {printable(plan.law or 'none stated')}")
    else:
        laws = {side: " ".join(map(str, json.loads(text).get("law") or ["none"])) for side, text in _sides(published, here)}
        if laws["published"] == laws["here"]:
            console.print(f"law, published and here: {printable(laws['here'])}")
        else:
            for side, law in laws.items():
                console.print(f"law, {side}: {printable(law)}")
    theirs, ours = answer_rows(published), answer_rows(here)
    measured = {claim["name"]: what_is_measured(claim, quantity_name(claim)) for claim in plan.claims if "quantity" in claim}
    table = Table("claim", "expected", "published", "here", box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in dict.fromkeys([*theirs, *ours]):
        sides = [rows.get(name, (NONE, NONE, NONE)) for rows in (theirs, ours)]
        expected = next(row[0] for row in reversed(sides) if row[0] != NONE)
        texts = [row[2] if row[1] == NONE else f"{row[1]}\n{row[2]}" for row in sides]
        claim = f"{name}\n({printable(measured[name])})" if name in measured else name
        table.add_row(claim, expected, *texts, style=STYLES.get(sides[1][2]) if console.is_terminal else None)
    console.print()
    if table.row_count:
        console.print(table)
        console.print()


def _sides(published: str, here: str) -> list[tuple[str, str]]:
    return [("published", published), ("here", here)]
