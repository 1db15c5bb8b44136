"""README's table of published studies, made from their files alone."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lrscale.files import write_whole
from lrscale.study.statements import measured_in_words

MARKERS = re.compile(r"(<!-- studies -->\n).*?(<!-- /studies -->)", re.S)
HEAD = "| question | law | measured | repeat it |\n|---|---|---|---|\n"
LISTED = 4
"""So many families of cells are named with their numbers; of more the extremes are."""


def write_table(readme: Path, results: Path) -> bool:
    """Puts the table of all studies in `results` between a file's markers; False where there is no such place."""
    if not readme.is_file() or not MARKERS.search(text := readme.read_text("utf-8")):
        return False
    made = table(results)
    write_whole(readme, MARKERS.sub(lambda found: f"{found[1]}{made}{found[2]}", text))
    return True


def table(results: Path) -> str:
    """The table, a row for each folder of `results`, by name."""
    folders = sorted(file.parent for file in results.glob("*/record.json"))
    rows = [row(*(json.loads((f / name).read_text("utf-8")) for name in ("record.json", "report.json"))) for f in folders]
    return HEAD + "".join(rows)


def row(record: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    """One study: its question, the published law, what was measured with how many claims hold, and the command."""
    seconds = record["seconds"]
    time = f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
    command = f"`lrscale reproduce {record['study']}`, {time}"
    question, law = escaped(record["question"] or record["study"]), escaped(record["law"] or "-")
    return f"| {question} | {law} | {measured_cell(record['claims'], report['claims'])} | {command} |\n"


def measured_cell(claims: Sequence[Mapping[str, Any]], verdicts: Sequence[Mapping[str, Any]]) -> str:
    """The first claim's numbers, every claim that fails with its own, and how many hold."""
    parts = []
    for i, claim in enumerate(claims):
        of = [v for v in verdicts if v["name"] == claim["name"] or v["name"].startswith(f"{claim['name']} (")]
        failing = [v for v in of if not v["holds"]]
        if i == 0 and of:
            parts.append(f"{escaped(claim['name'])}: {_numbers(claim, of)}")
        elif failing:
            parts.append(f"{escaped(claim['name'])}: {_numbers(claim, failing)}")
    held = sum(v["holds"] for v in verdicts)
    parts.append(f"{held} of {len(verdicts)} claims hold")
    return "; ".join(parts)


def _numbers(claim: Mapping[str, Any], verdicts: Sequence[Mapping[str, Any]]) -> str:
    """The numbers of one claim, over families of cells; where there are many, the extremes and those that fail."""
    listed = list(verdicts) if len(verdicts) <= LISTED else [v for v in verdicts if not v["holds"]]
    texts: list[str] = []
    if len(verdicts) > LISTED:
        held = sorted((v for v in verdicts if v["holds"]), key=lambda v: float(v["measured"]))
        if held:
            least, most = (measured_in_words(claim["measure"], verdict) for verdict in (held[0], held[-1]))
            texts.append(f"{least} to {most} in {len(held)} cases")
    for verdict in listed:
        number = measured_in_words(claim["measure"], verdict)
        of = escaped(verdict["name"].removeprefix(claim["name"]))
        texts.append(f"{number}{of}{'' if verdict['holds'] else ' **fails**'}")
    return ", ".join(texts)


def escaped(text: str) -> str:
    """A text as it stands in a cell of a Markdown table."""
    plain = text.replace("|", "\\|").replace("*", "\\*").replace("](", "]\\(")
    return re.sub("<(?=[a-zA-Z/!?])", "&lt;", plain)
