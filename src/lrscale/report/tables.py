"""The columns and rows of an answer's tables, as texts: for a terminal and for a page."""

import math
from collections.abc import Sequence

from lrscale.estimate.intervals import Interval
from lrscale.report.json import least_objective
from lrscale.study.answer import Answer
from lrscale.study.claims import Verdict
from lrscale.study.families import CellAnswer, Measurement
from lrscale.study.meanings import meaning
from lrscale.study.plan import in_words
from lrscale.study.statements import SAME_RUNS, TO_ROUNDING, digits, in_few, in_words_of, of_same_runs
from lrscale.study.verdict import CANNOT_TELL, Bound, Judgement
from lrscale.training.quantity import Quantity

SLOPE_COLUMNS = ("cells", "batch sizes", "slope", "95 % interval")
CLAIM_COLUMNS = ("claim", "expected", "measured", "95 % interval", "")
COLUMNS = ("cell", "best lr", "95 % interval", "theory", "objective", "lrs", "diverged", "")
"""The columns of the table of cells: `lrs` counts trials, `diverged` counts runs, and the last one holds remarks."""
QUANTITY_COLUMNS = ("quantity", "cells", "measured", "expected", "largest gap")
"""The columns of the table of quantities; the last one is the largest distance of a measured value from an expected one."""


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
        rows.append([meaning(name), str(len(quantities)), _range([q.value for q in quantities]), expected, _farthest(pairs)])
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
