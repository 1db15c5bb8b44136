"""The answer of a study as text for a terminal: tables of cells, slopes and claims, and the law in a sentence."""

import math
import shlex
import textwrap
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from lrscale.estimate.intervals import Interval
from lrscale.report.json import least_objective
from lrscale.study.answer import Answer
from lrscale.study.claims import Verdict
from lrscale.study.families import CellAnswer, Measurement
from lrscale.study.plan import in_words
from lrscale.study.remarks import coverage, remarks
from lrscale.study.statements import SAME_RUNS, TO_ROUNDING, digits, in_few, in_words_of, laws, of_same_runs
from lrscale.study.verdict import CANNOT_TELL, FAILS, HOLDS, Bound, Judgement
from lrscale.training.quantity import Quantity

SCREEN_LINES = 52
"""The largest number of lines of an answer, unless all of it is asked for: with the progress and the paths it has at most 60."""
FEWEST_ROWS = {"cells": 4, "quantities": 12, "slopes": 4, "claims": 4}
"""How many rows of each table are shown at least. Tables are cut in this order."""


class _Table(NamedTuple):
    """A table of an answer, and what its rows are called. `left_out` is the number of rows that are not shown."""

    rows_are: str
    title: str | None
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    left_out: int = 0


def show(answer: Answer, console: Console, verbose: bool = False) -> None:
    """Prints an answer: the tables of cells, slopes and claims, and then the law in a sentence.

    A table of cells that is wider than the console is printed in parts, which all start with the names of the cells.

    Args:
      answer: the answer of a study.
      console: where it is printed.
      verbose: whether all rows are printed. If not, and there would be more than SCREEN_LINES lines, a probe's cells are summed
        up by quantity, and tables are cut to FEWEST_ROWS at least.
    """
    title = answer.plan.question or answer.plan.study
    tables = [
        _Table("cells", title, *cell_table(answer)),
        _Table("slopes", "slope of log lr* over log B", SLOPE_COLUMNS, slope_rows(answer)),
        _Table("claims", None, CLAIM_COLUMNS, [claim_row(verdict) for verdict in answer.verdicts]),
    ]
    reasons, sentences = claim_remarks(answer.verdicts), laws(answer)
    if not verbose:
        tables, reasons, sentences = _cut(console, answer, tables, reasons, sentences)
    _show_all(console, answer, tables, reasons, sentences)


def _cut(
    console: Console, answer: Answer, tables: list[_Table], reasons: list[str], sentences: list[str]
) -> tuple[list[_Table], list[str], list[str]]:
    """Returns an answer's tables, reasons and laws, cut to SCREEN_LINES where FEWEST_ROWS, one reason and one law allow it."""

    def excess() -> int:
        return _lines(console, partial(_show_all, console, answer, tables, reasons, sentences)) - SCREEN_LINES

    if (too_many := excess()) > 0 and answer.measurements:
        tables[0] = _Table("quantities", tables[0].title, QUANTITY_COLUMNS, quantity_rows(answer.measurements))
        too_many = excess()
    for i, table in enumerate(tables):
        if too_many > 0 and len(table.rows) > FEWEST_ROWS[table.rows_are]:
            lines = _lines(console, partial(_show_table, console, answer, table)) / len(table.rows)
            kept = max(FEWEST_ROWS[table.rows_are], len(table.rows) - math.ceil((too_many + 1) / lines))
            rows = sorted(table.rows, key=lambda row: row[-1] == HOLDS)  # claims that do not hold are kept first
            tables[i] = table._replace(rows=rows[:kept], left_out=len(table.rows) - kept)
            too_many = excess()
    all_reasons, all_sentences = reasons, sentences
    for kept in range(len(all_sentences) - 1, 0, -1):
        if too_many > 0:
            sentences = [*all_sentences[:kept], f"… and {len(all_sentences) - kept} more laws"]
            too_many = excess()
    for kept in range(len(all_reasons) - 1, 0, -1):
        if too_many > 0:
            reasons = [*all_reasons[:kept], f"… and {len(all_reasons) - kept} more reasons"]
            too_many = excess()
    return tables, reasons, sentences


def _show_all(
    console: Console, answer: Answer, tables: Sequence[_Table], reasons: Sequence[str], sentences: Sequence[str]
) -> None:
    """Prints the tables of an answer, why claims cannot be told, and then the law in sentences."""
    for i, table in enumerate(tables):
        if table.rows or i == 0:
            if i > 0:
                console.print()
            _show_table(console, answer, table)
    for reason in reasons:
        console.print(reason if reason.startswith("…") else f"- {reason}")
    console.print()
    for sentence in sentences:
        console.print(sentence, style="bold" if console.is_terminal else None)
    if sentence := coverage(answer.cells):
        console.print(sentence)
    if any(table.left_out or table.rows_are == "quantities" for table in tables):
        console.print(f"All rows: lrscale report {shlex.quote(answer.plan.study)} --verbose", soft_wrap=True)


def _show_table(console: Console, answer: Answer, table: _Table) -> None:
    """Prints a table, in parts where it is too wide, and how many of its rows are left out; below cells, what holds for all."""
    title = table.title
    columns, rows = table.columns, table.rows
    groups = column_groups(columns, rows, console.width) if table.rows_are == "cells" else [range(len(columns))]
    for group in groups:
        _print_table(console, title, [columns[i] for i in group], [[row[i] for i in group] for row in rows])
        title = None
    if table.left_out:
        console.print(f"… and {table.left_out} more {table.rows_are}")
    if table.rows_are == "cells" and answer.families:
        for line in (f"objective: {answer.plan.objective}", *remarks(answer)):
            console.print(line, style="dim italic" if console.is_terminal else None)


def _lines(console: Console, print_it: Callable[[], object]) -> int:
    """Returns how many lines would be printed."""
    with console.capture() as capture:
        print_it()
    return capture.get().count("\n")


def _print_table(console: Console, title: str | None, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table. Words are aligned left and numbers right. Names of claims and quantities may wrap; other values may not.

    Headers wrap only where the table would be wider than the console. The row of a claim that does not hold is bold, and
    red where it fails.
    """
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
    is_too_wide = sum(max(pair) + GAP for pair in zip(widths, map(len, columns), strict=True)) - GAP > console.width
    for column, width in zip(columns, widths, strict=True):
        wrapped = textwrap.wrap(column, max(width, *map(len, column.split(" ")))) if is_too_wide and column else [column]
        header = "\n".join(wrapped)
        table.add_column(header, justify="left" if column in LEFT_COLUMNS else "right", no_wrap=column not in WRAPPED)
    for row in rows:
        table.add_row(*row, style=ROW_STYLES.get(row[-1]) if console.is_terminal else None)
    console.print(table)


def column_groups(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Iterator[list[int]]:
    """Yields groups of columns, by their indices. Each group fits into the width and starts with the first column.

    A group has at least two columns, if there are as many, even where these do not fit. Headers may wrap between words.

    Args:
      columns: the header of each column.
      rows: the texts of each row, one for each column.
      width: the width of the console, in characters.

    Example:
      >>> list(column_groups(["cell", "a long name", "b"], [["sum b4", "1.25", "0.5"]], 16))
      [[0, 1], [0, 2]]
      >>> list(column_groups(["cell"], [], 9))
      [[0]]
    """
    widths = [max(map(len, (*header.split(" "), *(row[i] for row in rows)))) + GAP for i, header in enumerate(columns)]
    group = [0]
    for i in range(1, len(columns)):
        if len(group) > 1 and sum(widths[k] for k in (*group, i)) - GAP > width:
            yield group
            group = [0]
        group.append(i)
    yield group


def cell_table(answer: Answer) -> tuple[list[str], list[list[str]]]:
    """Returns the columns and the rows of the table of cells; for a probe, those of the table of quantities.

    The last column holds remarks. It is left out where no cell has a remark, and so is the column of theory.
    """
    if not answer.families:
        return quantity_table(answer.measurements)
    rows = [cell_row(cell) for cell in answer.cells]
    empty = {"theory": "-", "": ""}
    shown = [i for i, name in enumerate(COLUMNS) if any(row[i] != empty.get(name) for row in rows) or name not in empty]
    return [COLUMNS[i] for i in shown], [[row[i] for i in shown] for row in rows]


GAP = 2
"""Number of spaces between two columns."""
SLOPE_COLUMNS = ("cells", "batch sizes", "slope", "95 % interval")
CLAIM_COLUMNS = ("claim", "expected", "measured", "95 % interval", "")
WRAPPED = ("claim", "quantity")
"""The columns whose texts may wrap."""
LEFT_COLUMNS = ("cell", "quantity", "cells", "batch sizes", "claim", "")
"""The columns that are aligned left."""
ROW_STYLES = {FAILS: "bold red", CANNOT_TELL: "bold"}
"""The style of the rows of claims, by their verdict."""
COLUMNS = ("cell", "best lr", "95 % interval", "theory", "objective", "lrs", "diverged", "")
"""The columns of the table of cells: `lrs` counts trials, `diverged` counts runs, and the last one holds remarks."""


def cell_row(cell: CellAnswer) -> list[str]:
    """Returns the row of a cell, with one text for each of COLUMNS."""
    best = cell.best
    interval = best.interval if best else None
    diverged = sum(sum(t.diverged) for t in cell.trials)
    runs = sum(len(t.objectives) for t in cell.trials)
    unknown = "no trials" if not cell.trials else "diverged" if cell.tuned else "not tuned"
    return [
        cell.cell.label,
        number(best.lr if best else None),
        f"{number(interval.low)} - {number(interval.high)}" if interval else (best and best.bound) or "-",
        number(cell.theory_lr),
        number(least_objective(cell)),
        str(len(cell.trials)),
        f"{diverged}/{runs}",
        best.remark if best else unknown,
    ]


def quantity_table(measurements: Sequence[Measurement]) -> tuple[list[str], list[list[str]]]:
    """Returns the columns and the rows of a probe's table, with one row for each cell and one column for each quantity.

    Beside a quantity whose expected value is known there is a column with that value.
    """
    names = list(dict.fromkeys(m.quantity.name for m in measurements))
    with_expected = {m.quantity.name for m in measurements if m.quantity.expected is not None}
    quantities_by_cell: dict[str, dict[str, Quantity]] = {}
    for m in measurements:
        quantities_by_cell.setdefault(m.cell.label, {})[m.quantity.name] = m.quantity
    columns = ["cell", *(header for name in names for header in ([name, "expected"] if name in with_expected else [name]))]
    return columns, [
        [label, *(text for name in names for text in _quantity_texts(quantities.get(name), name in with_expected))]
        for label, quantities in quantities_by_cell.items()
    ]


def _quantity_texts(quantity: Quantity | None, with_expected: bool) -> list[str]:
    """Returns a quantity as text with its interval, and its expected value as a second text if there is a column for it."""
    if quantity is None:
        return ["-", "-"] if with_expected else ["-"]
    interval = "" if quantity.low is None else f" [{number(quantity.low)}, {number(quantity.high)}]"
    return [number(quantity.value) + interval, *([number(quantity.expected)] if with_expected else [])]


QUANTITY_COLUMNS = ("quantity", "cells", "measured", "expected", "largest gap")
"""The columns of the table of quantities; the last one is the largest distance of a measured value from an expected one."""


def quantity_rows(measurements: Sequence[Measurement]) -> list[list[str]]:
    """Returns one row for each quantity of a probe: the range of its values, of those expected, and the largest distance.

    A quantity that has an expected value in some cells only has a second row for the others, so that the two ranges compare.
    """
    by_name: dict[tuple[str, bool], list[Quantity]] = {}
    for m in sorted(measurements, key=lambda m: m.quantity.expected is None):
        by_name.setdefault((m.quantity.name, m.quantity.expected is None), []).append(m.quantity)
    order = list(dict.fromkeys(m.quantity.name for m in measurements))
    rows = []
    for (name, _), quantities in sorted(by_name.items(), key=lambda item: order.index(item[0][0])):
        pairs = [(q.value, q.expected) for q in quantities if q.expected is not None]
        expected = _range([e for _, e in pairs])
        rows.append([name, str(len(quantities)), _range([q.value for q in quantities]), expected, _farthest(pairs)])
    return rows


def _range(values: Sequence[float]) -> str:
    """Returns the smallest and the largest value as text; one number where they are equal in the digits that are shown."""
    return " to ".join(dict.fromkeys(number(end) for end in (min(values), max(values)))) if values else "-"


def _farthest(pairs: Sequence[tuple[float, float]]) -> str:
    """Returns the largest distance of a value from its expected value: in per cent where no expected value is 0."""
    if not pairs:
        return "-"
    is_relative = all(expected for _, expected in pairs)
    distance = max(abs(value - expected) / (abs(expected) if is_relative else 1) for value, expected in pairs)
    if distance < TO_ROUNDING:
        return "rounding" if distance else "0"
    return f"{100 * distance:.2g} %" if is_relative else f"{distance:.2g}"


def slope_rows(answer: Answer) -> list[list[str]]:
    """Returns the rows of the slopes of log lr* over log B. Each family, reduction and range of batch sizes has a row."""
    rows = []
    for line in answer.slopes:
        if line.slope is not None:
            batch_sizes = "all" if line.range == "all" else f"{line.range} (B {line.low:g} to {line.high:g})"
            name = " ".join(filter(None, (", ".join(in_words(line.of)), line.reduction)))
            rows.append([name, batch_sizes, *_in_columns(line.slope)])
    return rows


def claim_row(verdict: Verdict) -> list[str]:
    """Returns the row of a claim: its name, its bound, the measured value with its interval, and its verdict."""
    measured, interval = verdict.measured, verdict.interval
    if measured is None or interval is None:
        value = measured.value if measured else None
        said = "rounding" if value and abs(value) < TO_ROUNDING else number(value)
        return [verdict.name, verdict.bound.words, said, "-", verdict.verdict]
    if of_same_runs(verdict.measure, measured):
        return [verdict.name, verdict.bound.words, *SAME_RUNS, verdict.verdict]
    return [verdict.name, verdict.bound.words, *_in_columns(interval, verdict.bound), verdict.verdict]


def _in_columns(interval: Interval, bound: Bound | None = None) -> list[str]:
    """Returns the texts of two columns, a value and its interval, in the digits that its bound or its width justifies."""
    if interval.high - interval.low < TO_ROUNDING:
        return [number(interval.value), "to rounding"]
    count = digits(interval, bound)
    value, low, high = (f"{end:z.{count}f}" for end in interval)
    return [value, f"{low} to {high}"]


def claim_remarks(verdicts: Sequence[Verdict]) -> list[str]:
    """Returns why claims cannot be told, with the way out. Claims with the same reason share a sentence."""
    names: dict[Judgement, list[str]] = {}
    for verdict in verdicts:
        if verdict.verdict == CANNOT_TELL:
            judgement = Judgement(verdict.verdict, verdict.reason, verdict.way_out)
            names.setdefault(judgement, []).append(verdict.name)
    if len(names) == 1:
        return [f"{in_words_of(judgement)}." for judgement in names]
    return [f"{in_few(claims)}: {in_words_of(judgement)}." for judgement, claims in names.items()]


def number(value: float | None) -> str:
    """Returns a number with three significant digits as text; `-` for None and for a number that is not finite.

    Example:
      >>> number(0.0123456), number(float("inf")), number(None)
      ('0.0123', '-', '-')
    """
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.3g}"
