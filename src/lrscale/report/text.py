"""An answer as text for a terminal: tables of cells, slopes and claims, and the law in a sentence."""

import math
import textwrap
from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from lrscale.report.json import least_objective
from lrscale.study.answer import Answer
from lrscale.study.claims import Verdict
from lrscale.study.families import CellAnswer, Measurement
from lrscale.study.plan import in_words
from lrscale.study.statements import laws
from lrscale.training.quantity import Quantity


def show(answer: Answer, console: Console) -> None:
    """Prints the answer: the cells, the slopes, the claims, and the law in a sentence."""
    plan = answer.plan
    columns, rows = cell_table(answer)
    title: str | None = plan.question or plan.study
    for part in fitting(columns, rows, console.width):
        _print(console, title, [columns[i] for i in part], [[row[i] for i in part] for row in rows])
        title = None
    if answer.families:
        console.print(f"objective: {plan.objective}", style="dim italic" if console.is_terminal else None)
    for heading, of, lines in (
        ("slope of log lr* over log B", SLOPE_COLUMNS, slope_rows(answer)),
        (None, CLAIM_COLUMNS, [claim_row(v) for v in answer.verdicts]),
    ):
        if lines:
            console.print()
            _print(console, heading, of, lines)
    console.print()
    for sentence in laws(answer):
        console.print(sentence, style="bold" if console.is_terminal else None)
    seeds = {len(t.objectives) for cell in answer.cells for t in cell.trials}
    if seeds == {1}:
        console.print("One seed: the intervals cover the grid's resolution only. Take seeds=8.")


def _print(console: Console, title: str | None, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table: words are aligned left, numbers right, and only the names of claims may wrap."""
    style = "bold" if console.is_terminal else ""
    table = Table(
        title=title,
        title_justify="left",
        title_style=style,
        header_style=style,
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(len(columns))]
    narrow = sum(max(pair) + GAP for pair in zip(widths, map(len, columns), strict=True)) - GAP > console.width
    for column, width in zip(columns, widths, strict=True):
        header = "\n".join(textwrap.wrap(column, max(width, *map(len, column.split(" "))))) if narrow and column else column
        table.add_column(header, justify="left" if column in LEFT_COLUMNS else "right", no_wrap=column != CLAIM_COLUMNS[0])
    for row in rows:
        table.add_row(*row, style="bold red" if console.is_terminal and row[-1] == FAILS else None)
    console.print(table)


def fitting(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Iterator[list[int]]:
    """Yields groups of columns that fit a width together; each group starts with the first column. Headers may wrap.

    Example:
      >>> list(fitting(["cell", "a long name", "b"], [["sum b4", "1.25", "0.5"]], 16)), list(fitting(["cell"], [], 9))
      ([[0, 1], [0, 2]], [[0]])
    """
    needed = [max(map(len, (*title.split(" "), *(row[i] for row in rows)))) + GAP for i, title in enumerate(columns)]
    part = [0]
    for i in range(1, len(columns)):
        if len(part) > 1 and sum(needed[k] for k in (*part, i)) - GAP > width:
            yield part
            part = [0]
        part.append(i)
    yield part


def cell_table(answer: Answer) -> tuple[list[str], list[list[str]]]:
    """Returns the columns and rows of the table of cells, or of a probe's quantities."""
    if not answer.families:
        return quantity_table(answer.measurements)
    columns, rows = list(COLUMNS), [cell_row(cell) for cell in answer.cells]
    shown = len(columns) if any(row[-1] for row in rows) else len(columns) - 1
    return columns[:shown], [row[:shown] for row in rows]


GAP = 2
"""Spaces between two columns."""
SLOPE_COLUMNS = ("cells", "batch sizes", "slope", "95 % interval")
CLAIM_COLUMNS = ("claim", "expected", "measured", "")
LEFT_COLUMNS = ("cell", "cells", "batch sizes", "claim", "")
"""Columns that are aligned left."""
FAILS = "FAILS"
COLUMNS = ("cell", "best lr", "95 % interval", "theory", "objective", "lrs", "diverged", "")


def cell_row(cell: CellAnswer) -> list[str]:
    """Returns a cell's row: name, best lr, interval, theory, objective, trials, diverged runs and a remark."""
    best = cell.best
    interval = best.interval if best else None
    diverged = sum(sum(t.diverged) for t in cell.trials)
    runs = sum(len(t.objectives) for t in cell.trials)
    if best is None:
        remark = "no trials" if not cell.trials else "diverged" if cell.tuned else "not tuned"
    else:
        remark = "edge" if best.at_edge else ""
    return [
        cell.cell.label,
        number(interval.value if interval else None),
        f"{number(interval.low)} - {number(interval.high)}" if interval else "-",
        number(cell.theory_lr),
        number(least_objective(cell)),
        str(len(cell.trials)),
        f"{diverged}/{runs}",
        remark,
    ]


def quantity_table(measurements: Sequence[Measurement]) -> tuple[list[str], list[list[str]]]:
    """Returns a probe's columns and rows: one row a cell, one column a quantity, and beside it the expected value if known."""
    names = list(dict.fromkeys(m.quantity.name for m in measurements))
    known = {m.quantity.name for m in measurements if m.quantity.expected is not None}
    rows: dict[str, dict[str, Quantity]] = {}
    for m in measurements:
        rows.setdefault(m.cell.label, {})[m.quantity.name] = m.quantity
    columns = ["cell", *(title for name in names for title in ([name, "expected"] if name in known else [name]))]
    return columns, [
        [label, *(text for name in names for text in _quantity_texts(quantities.get(name), name in known))]
        for label, quantities in rows.items()
    ]


def _quantity_texts(quantity: Quantity | None, with_expected: bool) -> list[str]:
    if quantity is None:
        return ["-", "-"] if with_expected else ["-"]
    interval = "" if quantity.low is None else f" [{number(quantity.low)}, {number(quantity.high)}]"
    return [number(quantity.value) + interval, *([number(quantity.expected)] if with_expected else [])]


def slope_rows(answer: Answer) -> list[list[str]]:
    """Returns the rows of slopes of log lr* over log B, one for each reduction and range of batch sizes."""
    rows = []
    for line in answer.slopes:
        if line.slope is not None:
            batch_sizes = "all" if line.range == "all" else f"{line.range} (B {line.low:g} to {line.high:g})"
            name = " ".join(filter(None, (", ".join(in_words(line.of)), line.reduction)))
            rows.append([name, batch_sizes, number(line.slope.value), f"{number(line.slope.low)} to {number(line.slope.high)}"])
    return rows


def claim_row(verdict: Verdict) -> list[str]:
    """Returns a claim's row: name, expected, measured, holds or fails."""
    return [verdict.name, verdict.bound, number(verdict.measured), "holds" if verdict.holds else FAILS]


def number(value: float | None, digits: int = 3) -> str:
    """Returns a number for reading, or `-` for None and what is not finite."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.{digits}g}"
