"""Computes the results of families of cells: best lrs, the ratio of sum to mean, slopes, and where lr_sum* turns over."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from lrscale.estimate.best_lr import BestLr, best_lr, mean_slope, ratio_slope, slope
from lrscale.estimate.fits import TradeOff, TurnOver, trade_off, turn_over
from lrscale.estimate.intervals import Interval
from lrscale.spec import Training
from lrscale.study.plan import Cell, Plan, in_words
from lrscale.study.records import TrialRecord
from lrscale.study.script import homogeneity
from lrscale.study.theory import theory_of
from lrscale.study.twins import has_uneven_steps, shared_axes
from lrscale.training.quantity import Quantity
from lrscale.training.reduction import REDUCTIONS, step_gradient_scale
from lrscale.training.results import mean_objective


@dataclass(frozen=True)
class CellAnswer:
    """One cell with its trials, its gradient scale c and its best lr.

    `best` is None where no lr was tuned, or where every trial has a run that diverged. `theory_lr` is the best lr in
    theory, and `theory_edge` the mean-square edge of stability; both are None where theory makes no statement.
    `theory_note` says why there is no `theory_lr`, and is empty where there is one.
    """

    cell: Cell
    trials: tuple[TrialRecord, ...]
    c: float
    best: BestLr | None
    theory_lr: float | None
    theory_edge: float | None
    theory_note: str

    @property
    def fits(self) -> bool:
        """Whether the best lr takes part in fits: it exists, and it is not at an edge of the lrs that were tried."""
        return self.best is not None and not self.best.at_edge

    @property
    def training(self) -> Training:
        """The training of the cell."""
        return self.cell.training

    @property
    def step_examples(self) -> int:
        """The number of examples in a step, B."""
        return self.training.step_examples

    @property
    def tuned(self) -> bool:
        """Whether the lr was tuned in the cell. An lr that is fixed, or an axis of the study, is not tuned."""
        return any("optimizer.lr" in trial.params for trial in self.trials)

    def points(self) -> list[tuple[float, float, int]]:
        """Returns the lr, the objective and the number of diverged runs of each trial, sorted by lr."""
        rows = [
            (t.params["optimizer.lr"], mean_objective(t.objectives), sum(t.diverged))
            for t in self.trials
            if "optimizer.lr" in t.params
        ]
        return sorted(rows)

    def best_trial(self) -> TrialRecord | None:
        """Returns the trial with the lowest objective; None where every trial has a run that diverged."""
        trials = [t for t in self.trials if math.isfinite(mean_objective(t.objectives))]
        return min(trials, key=lambda t: mean_objective(t.objectives), default=None)


class Ratio(NamedTuple):
    """The law of the ratio of best lrs under two ways of computing a gradient, such as sum and mean.

    `of` and `over` name them. `slope` is the slope of the log of the ratio over the log of the ratio of their c; it is None
    where it could not be estimated. `expected` is the slope in theory, -p; it is None where p is not known. `same_runs` says
    whether all pairs of cells are the same runs. Then the slope is not measured: it is -p by algebra, an interval of width
    zero. `is_uneven` says whether some pair takes steps of fewer examples than others, which the two weight differently:
    then theory is not exact.
    """

    of: str
    over: str
    slope: Interval | None
    expected: float | None
    same_runs: bool
    is_uneven: bool


@dataclass(frozen=True)
class Family:
    """Cells that differ only in reduction and batch size.

    `of` holds the axis values that they share, by name. `homogeneity` is the optimizer's p, or None where it
    is not known. `ratios` has the law of each
    ratio of best lrs that the study can tell, the most important first. `trade_off` is the trade-off of steps against
    examples; it exists where steps to a target are counted. `turn_over` and `trade_off` are None where they could not be
    estimated.
    """

    of: Mapping[str, Any]
    cells: tuple[CellAnswer, ...]
    homogeneity: float | None
    ratios: tuple[Ratio, ...]
    turn_over: TurnOver | None
    trade_off: TradeOff | None

    @property
    def ratio(self) -> Interval | None:
        """The slope of the ratio of sum to mean; None where the family cannot tell it."""
        return next((ratio.slope for ratio in self.ratios if (ratio.of, ratio.over) == ("sum", "mean")), None)

    @property
    def name(self) -> str:
        """The axis values that its cells share, in words; empty where the study has only one family."""
        return ", ".join(in_words(self.of))

    def by_reduction(self, reduction: str) -> list[CellAnswer]:
        """Returns the cells of one reduction that take part in fits, sorted by batch size."""
        chosen = [cell for cell in self.cells if cell.training.reduction == reduction and cell.fits]
        return sorted(chosen, key=lambda cell: cell.step_examples)

    def slope(self, reduction: str, low: float, high: float) -> Interval | None:
        """Returns the slope of log lr* over log batch size, for steps of low to high examples; None if it is unknown."""
        cells = [cell for cell in self.by_reduction(reduction) if low <= cell.step_examples <= high]
        return slope(np.log([cell.step_examples for cell in cells]), [c.best for c in cells if c.best])

    def steps(self) -> list[tuple[int, tuple[float, ...]]]:
        """Returns, for each batch size, the steps to the target of each seed at the best lr that was tried.

        The cells of one reduction are enough, because all reductions give the same steps.
        """
        cells = next((cells for name in REDUCTIONS if (cells := self.by_reduction(name))), [])
        best = [(cell, cell.best_trial()) for cell in cells if cell.training.objective == "steps_to_target"]
        return [(cell.step_examples, trial.objectives) for cell, trial in best if trial is not None]

    def steps_slope(self, low: float, high: float) -> Interval | None:
        """Returns the slope of log steps to the target over log batch size, for batch sizes from low to high."""
        chosen = [(math.log(size), steps) for size, steps in self.steps() if low <= size <= high]
        return mean_slope(*(np.array(part) for part in zip(*chosen, strict=True))) if chosen else None

    def reductions(self) -> list[str]:
        """Returns the reductions of its cells, each once."""
        return list(dict.fromkeys(cell.training.reduction for cell in self.cells))


class Measurement(NamedTuple):
    """A quantity that a probe measured in a cell, with that cell."""

    cell: Cell
    quantity: Quantity


def answer_cell(cell: Cell, trials: Sequence[TrialRecord]) -> CellAnswer:
    """Estimates the best lr of a cell from its trials, and computes the best lr and the edge in theory."""
    training = cell.training
    tuned = [t for t in trials if "optimizer.lr" in t.params]
    best = None
    if tuned:
        best = best_lr(np.array([t.params["optimizer.lr"] for t in tuned]), np.array([t.objectives for t in tuned]))
    c = step_gradient_scale(training)
    return CellAnswer(cell, tuple(trials), c, best, *theory_of(training, c))


def answer_family(cells: Sequence[CellAnswer], base: Sequence[CellAnswer] = ()) -> Family:
    """Estimates the ratios of best lrs, the turn-over and the trade-off of a family.

    Args:
      cells: the cells of one family; they differ only in reduction and batch size.
      base: the cells of the family that differs from it only in accumulating fewer micro-batches, if there is one.
    """
    p = homogeneity(cells[0].training)
    family = Family(shared_axes(cells[0].cell), tuple(cells), p, (), None, None)
    by_sum = family.by_reduction("sum")
    turn = turn_over(np.array([c.step_examples for c in by_sum], dtype=float), [c.best for c in by_sum if c.best])
    steps = family.steps()
    trade = trade_off(*(np.array(part, dtype=float) for part in zip(*steps, strict=True))) if steps else None
    return replace(family, ratios=tuple(_ratios(family, base)), turn_over=turn, trade_off=trade)


def _ratios(family: Family, base: Sequence[CellAnswer]) -> Iterator[Ratio]:
    """Yields the law of each ratio of best lrs in a family, and of the family to its base; see `answer_family`."""
    names = family.reductions()
    expected = None if family.homogeneity is None else -family.homogeneity
    over = next((name for name in ("mean", "sum_over_nominal") if name in names), None)
    for name in sorted(names, key=lambda name: name != "sum"):
        if over is not None and name != over:
            yield from _ratio(name, over, _cells_of(family.cells, name), _cells_of(family.cells, over), expected)
    for name in names if base else ():
        of, fewer = (f"{name}, accumulation {c[0].training.accumulation}" for c in (family.cells, base))
        yield from _ratio(of, fewer, _cells_of(family.cells, name), _cells_of(base, name), expected)


def _cells_of(cells: Iterable[CellAnswer], reduction: str) -> dict[int, CellAnswer]:
    """Returns the cells of a reduction, by the number of examples in a step."""
    return {cell.step_examples: cell for cell in cells if cell.training.reduction == reduction}


def _ratio(
    of: str, over: str, cells: dict[int, CellAnswer], others: dict[int, CellAnswer], expected: float | None
) -> Iterator[Ratio]:
    """Yields the law of one ratio; nothing where no pair of cells differs in c."""
    pairs = [(cell, others[size]) for size, cell in sorted(cells.items()) if size in others]
    if all(cell.c == other.c for cell, other in pairs):
        return
    fitting = [(cell, other) for cell, other in pairs if cell.fits and other.fits]
    same = all(cell.cell.is_same_run_as(other.cell) for cell, other in pairs)
    found = None
    if fitting:
        log_c = np.log([cell.c / other.c for cell, other in fitting])
        found = ratio_slope(log_c, [cell.best for cell, _ in fitting if cell.best], [o.best for _, o in fitting if o.best])
    if found is not None and same and expected is not None:
        found = Interval(expected, expected, expected)
    yield Ratio(of, over, found, expected, same, any(has_uneven_steps(cell.training) for cell, _ in pairs))


def batch_ranges(plan: Plan) -> dict[str, tuple[float, float]]:
    """Returns the batch-size ranges of a plan, and a range of all batch sizes under the name `all`."""
    return {**{name: (low, high) for name, (low, high) in plan.ranges.items()}, "all": (0, math.inf)}
