"""Writes the remarks on a table of cells: why theory gives no best lr, and what the intervals cover."""

from collections.abc import Sequence

from lrscale.study.families import CellAnswer


def theory_remarks(cells: Sequence[CellAnswer]) -> list[str]:
    """Returns a sentence for each reason for which cells have no best lr in theory."""
    notes = [cell.theory_note for cell in cells if cell.theory_note]
    counts = {note: notes.count(note) for note in dict.fromkeys(notes)}
    return [
        f"No theory{'' if count == len(cells) else f' in {count} of {len(cells)} cells'}: {note}"
        for note, count in counts.items()
    ]


def coverage(cells: Sequence[CellAnswer]) -> str:
    """Returns a sentence on what the intervals of the best lrs cover; empty where no cell has a trial."""
    seeds = {len(trial.objectives) for cell in cells for trial in cell.trials}
    if not seeds:
        return ""
    if seeds == {1}:
        return "One seed was run: the intervals hold only the error of the grid of lrs. Take seeds=8."
    draws = {cell.training.data_seeds for cell in cells}
    if draws == {"own"}:
        return "Intervals cover seeds (data, order and initial weights) and the grid of lrs."
    others = "not other data" if draws == {"shared"} else "and other data only where data_seeds is own"
    return f"Intervals cover seeds (order and initial weights) and the grid of lrs, {others}."
