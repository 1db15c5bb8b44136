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

from lrscale.report.tables import (
    CLAIM_COLUMNS,
    QUANTITY_COLUMNS,
    SLOPE_COLUMNS,
    cell_table,
    claim_remarks,
    claim_row,
    quantity_rows,
    slope_rows,
)
from lrscale.study.answer import Answer
from lrscale.study.remarks import coverage, remarks
from lrscale.study.statements import laws
from lrscale.study.verdict import CANNOT_TELL, FAILS, HOLDS

SCREEN_LINES = 52
"""The largest number of lines of an answer, unless all of it is asked for: with the progress and the paths it has at most 60."""
FEWEST_ROWS = {"cells": 4, "quantities": 12, "slopes": 4, "claims": 4}
"""How many rows of each table are shown at least. Tables are cut in this order."""


GAP = 2
"""Number of spaces between two columns."""
WRAPPED = ("claim", "quantity")
"""The columns whose texts may wrap."""
LEFT_COLUMNS = ("cell", "quantity", "cells", "batch sizes", "claim", "")
"""The columns that are aligned left."""
ROW_STYLES = {FAILS: "bold red", CANNOT_TELL: "bold"}
"""The style of the rows of claims, by their verdict."""


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

    A group has at least two columns, if there are as many, even where these do not fit. A column `expected` is in the group
    of the column before it. Headers may wrap between words.

    Args:
      columns: the header of each column.
      rows: the texts of each row, one for each column.
      width: the width of the console, in characters.

    Example:
      >>> list(column_groups(["cell", "a long name", "b"], [["sum b4", "1.25", "0.5"]], 16))
      [[0, 1], [0, 2]]
      >>> list(column_groups(["cell", "p", "q", "expected"], [["sgd size1", "0.999", "0.999", "1"]], 24))
      [[0, 1], [0, 2, 3]]
      >>> list(column_groups(["cell"], [], 9))
      [[0]]
    """
    widths = [max(map(len, (*header.split(" "), *(row[i] for row in rows)))) + GAP for i, header in enumerate(columns)]
    units: list[list[int]] = []
    for i, header in enumerate(columns[1:], 1):
        units = [*units[:-1], [*units[-1], i]] if header == "expected" and units else [*units, [i]]
    group = [0]
    for unit in units:
        if len(group) > 1 and sum(widths[k] for k in (*group, *unit)) - GAP > width:
            yield group
            group = [0]
        group += unit
    yield group
