"""Shows a translation as text or JSON, with what the published studies beside sweeps/ say."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from lrscale.errors import Failure
from lrscale.files import home
from lrscale.law.translation import Batch, Translation, translate


def published(folder: Path | None = None) -> dict[str, dict[str, Any]]:
    """Reads report.json of each published study, by name; none where nothing is published.

    Args:
      folder: holds one folder a study; by default sweeps/results of the package or the repository.

    Raises:
      Failure: a report cannot be read.
    """
    if folder is None:
        folder = home() / "sweeps" / "results"
    found = {}
    for file in sorted(folder.glob("*/report.json")):
        try:
            found[file.parent.name] = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise Failure(f"{file} cannot be read ({error}). Restore it from the repository.") from None
    return found


def print_translation(
    optimizer: str, lr: float, source: Batch, target: Batch, knobs: dict[str, float], decoupled: bool | None, form: str
) -> None:
    """Prints a translation in a form: text or json.

    Raises:
      Refusal: a value cannot be used.
    """
    found = translate(optimizer, lr, source, target, knobs, decoupled, published())
    if form == "json":
        print(json.dumps(translation_json(found), indent=2, allow_nan=False))
    else:
        show_translation(found, Console(highlight=False, markup=False, emoji=False))


def translation_json(found: Translation) -> dict[str, Any]:
    """A translation as one document: `exact` and `batch_size` are its two answers."""
    return {
        "optimizer": found.optimizer,
        "p": found.p,
        "source": asdict(found.source) | {"c": found.source.c},
        "target": asdict(found.target) | {"c": found.target.c},
        "r": found.ratio,
        "exact": {
            "equals": {"reduction": "mean", "batch_size": found.target.size, "lr": found.lr_mean},
            "knobs": [asdict(knob) for knob in found.knobs],
            "caveats": list(found.caveats),
        },
        "batch_size": {
            "from": found.source.size,
            "to": found.target.size,
            "rules": [asdict(rule) for rule in found.rules],
            "evidence": [asdict(one) for one in found.evidence],
        },
    }


def show_translation(found: Translation, console: Console) -> None:
    """Prints a translation to be read, at 80 columns and more."""
    console.print(f"{found.optimizer}, p = {found.p:g}")
    console.print(f"  from  {found.source}: c = {_number(found.source.c)}")
    console.print(f"  to    {found.target}: c = {_number(found.target.c)}")
    console.print(f"  r     {_number(found.ratio)}: so much larger is the gradient, c after / c before")
    table = _table("1. Exact: the same updates", ("knob", "was", "becomes", "why"))
    for knob in found.knobs:
        table.add_row(knob.name, _number(knob.before), _number(knob.after), knob.reason)
    console.print("")
    console.print(table)
    others = "the other knobs as they were" if found.source.c == 1 else f"what scales with r / {_number(found.source.c)}"
    console.print(f"These are the steps of mean at B = {found.target.size} with lr {_number(found.lr_mean)} and {others}.")
    for caveat in found.caveats:
        console.print(f"- {caveat}")
    console.print("")
    before, after = found.source.size, found.target.size
    if before == after:
        console.print("2. Batch size: it does not change, so the tuned lr stays tuned.")
        return
    table = _table(f"2. From B = {before} to {after}: a matter of regime, nothing exact", ("rule", "lr", "holds where"))
    for rule in found.rules:
        table.add_row(rule.name, _number(rule.lr), rule.when)
    console.print(table)
    console.print("The other knobs are those of 1.")
    if not found.evidence:
        console.print(f"No published study covers p = {found.p:g} from B = {before} to {after}: measure it (lrscale run -m).")
        return
    table = _table("what published studies measured, each on its own task", ("study", "measured", "lr", "conditions"))
    for one in found.evidence:
        name = "B_c" if one.measure == "b_c" else "slope"
        table.add_row(one.study, f"{name} {_interval(one.value)}", _interval(one.lr), one.conditions)
    console.print(table)
    console.print("slope: lr_mean* ~ B^slope; B_c: lr_sum* = eta_max / (B + B_c).")


def _table(title: str, columns: tuple[str, ...]) -> Table:
    return Table(*columns, title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)


def _number(value: float) -> str:
    return f"{value:.6g}"


def _interval(values: tuple[float, float, float]) -> str:
    value, low, high = (f"{v:.3g}" for v in values)
    return f"{value} [{low}, {high}]"
