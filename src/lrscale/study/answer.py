"""The answer of a study, from its records: the best lr of each cell, the ratio law, slopes and the turn-over."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from lrscale.estimate.best_lr import BestLr, best_lr, mean_slope, ratio_slope, slope
from lrscale.estimate.fits import TradeOff, TurnOver, trade_off, turn_over
from lrscale.estimate.intervals import Array, Interval
from lrscale.law import least_squares as theory
from lrscale.spec import Training, training
from lrscale.study.plan import in_words
from lrscale.study.records import CellRecord, StudyRecord, TrialRecord
from lrscale.tasks.task import Population, population
from lrscale.training.optimizers import OPTIMIZERS
from lrscale.training.quantity import Quantity
from lrscale.training.reduction import gradient_scale
from lrscale.training.results import mean_objective

NAMED = 3
"""So many of many families are named in a sentence."""
NOT_TUNED = "the lr was not tuned, and its values are cells of their own. Take 'optimizer.lr=tag(log,interval(1e-4,1))'."


@dataclass(frozen=True)
class CellAnswer:
    """One cell: its trials, its gradient scale c, its best lr, and what theory says of it (None where it says nothing)."""

    record: CellRecord
    training: Training
    trials: tuple[TrialRecord, ...]
    c: float
    best: BestLr | None
    theory_lr: float | None
    theory_edge: float | None

    @property
    def fits(self) -> bool:
        """Whether the best lr takes part in fits: it exists and is not at an edge of what was tried."""
        return self.best is not None and not self.best.at_edge

    @property
    def step_examples(self) -> int:
        return self.training.step_examples

    @property
    def tuned(self) -> bool:
        """Whether the lr was tuned in the cell, and not among what cells differ in, or fixed."""
        return any("optimizer.lr" in trial.params for trial in self.trials)

    def points(self) -> list[tuple[float, float, int]]:
        """Lr, objective and number of diverged runs of each trial, by lr."""
        rows = [
            (t.params["optimizer.lr"], mean_objective(t.objectives), sum(t.diverged))
            for t in self.trials
            if "optimizer.lr" in t.params
        ]
        return sorted(rows)

    def best_trial(self) -> TrialRecord | None:
        """The trial with the least objective; None where all have runs that diverged."""
        trials = [t for t in self.trials if math.isfinite(mean_objective(t.objectives))]
        return min(trials, key=lambda t: mean_objective(t.objectives), default=None)


@dataclass(frozen=True)
class Family:
    """Cells that differ in reduction and batch size only.

    `of`: what they share, by name. `trade_off`: of steps against examples, where steps to a target are counted.
    """

    of: Mapping[str, Any]
    cells: tuple[CellAnswer, ...]
    homogeneity: float
    ratio: Interval | None
    turn_over: TurnOver | None
    trade_off: TradeOff | None

    @property
    def name(self) -> str:
        """What its cells share, in words; empty where there is one family only."""
        return ", ".join(in_words(self.of))

    def by_reduction(self, reduction: str) -> list[CellAnswer]:
        """Cells of one reduction that take part in fits, by batch size."""
        chosen = [cell for cell in self.cells if cell.training.reduction == reduction and cell.fits]
        return sorted(chosen, key=lambda cell: cell.step_examples)

    def slope(self, reduction: str, low: float, high: float) -> Interval | None:
        """Slope of log lr* over log batch size, for batch sizes from low to high."""
        cells = [cell for cell in self.by_reduction(reduction) if low <= cell.training.batch_size <= high]
        return slope(np.log([cell.step_examples for cell in cells]), [c.best for c in cells if c.best])

    def steps(self) -> list[tuple[int, tuple[float, ...]]]:
        """Batch size and each seed's steps to the target at the best lr tried, of one reduction: both give the same."""
        cells = self.by_reduction("mean") or self.by_reduction("sum") or self.by_reduction("sum_over_nominal")
        best = [(cell, cell.best_trial()) for cell in cells if cell.training.objective == "steps_to_target"]
        return [(cell.step_examples, trial.objectives) for cell, trial in best if trial is not None]

    def steps_slope(self, low: float, high: float) -> Interval | None:
        """Slope of log steps to the target over log batch size, for batch sizes from low to high."""
        chosen = [(math.log(size), steps) for size, steps in self.steps() if low <= size <= high]
        return mean_slope(*(np.array(part) for part in zip(*chosen, strict=True))) if chosen else None

    def turns(self) -> bool:
        """Whether the turn-over lies within the batch sizes tried: beyond them it is not measured."""
        sizes = [cell.step_examples for cell in self.cells]
        return self.turn_over is not None and min(sizes) < self.turn_over.b_c.value < max(sizes)

    def reductions(self) -> list[str]:
        return list(dict.fromkeys(cell.training.reduction for cell in self.cells))


class Measurement(NamedTuple):
    """A quantity that a probe measured in a cell."""

    cell: CellRecord
    quantity: Quantity


@dataclass(frozen=True)
class Answer:
    """All that a study's records say: families of cells where an lr was tuned, or what a probe measured."""

    study: StudyRecord
    families: tuple[Family, ...]
    measurements: tuple[Measurement, ...] = ()

    @property
    def cells(self) -> tuple[CellAnswer, ...]:
        return tuple(cell for family in self.families for cell in family.cells)

    def ranges(self) -> dict[str, tuple[float, float]]:
        """The declared batch-size ranges, and all batch sizes together."""
        return {**self.study.ranges, "all": (0, math.inf)}


def answer(study: StudyRecord, trials: Sequence[TrialRecord]) -> Answer:
    """Estimates everything from a study's records.

    Args:
      study: what was planned.
      trials: finished trials of its experiment; those of other cells are left aside.
    """
    by_cell: dict[str, list[TrialRecord]] = {}
    for trial in sorted(trials, key=lambda t: t.number):
        by_cell.setdefault(trial.cell, []).append(trial)
    probed = [cell for cell in study.cells if cell.config.get("probe") is not None]
    if probed:
        found = [(cell, trial) for cell in probed for trial in by_cell.get(cell.id, [])[-1:]]
        return Answer(study, (), tuple(Measurement(cell, q) for cell, trial in found for q in trial.quantities))
    families: dict[str, list[CellAnswer]] = {}
    for record in study.cells:
        shared = {k: v for k, v in record.scientific.items() if k not in ("reduction", "batch_size")}
        families.setdefault(repr(sorted(shared.items())), []).append(_cell(record, by_cell.get(record.id, [])))
    return Answer(study, tuple(_family(cells) for cells in families.values()))


def _cell(record: CellRecord, trials: list[TrialRecord]) -> CellAnswer:
    made = training(record.config)
    tuned = [t for t in trials if "optimizer.lr" in t.params]
    best = None
    if tuned:
        best = best_lr(np.array([t.params["optimizer.lr"] for t in tuned]), np.array([t.objectives for t in tuned]))
    c = float(gradient_scale(made.reduction, torch.ones(made.step_examples, dtype=torch.float64), made.batch_size))
    return CellAnswer(record, made, tuple(trials), c, best, *_theory(made, c))


def _family(cells: list[CellAnswer]) -> Family:
    shared = {k: v for k, v in cells[0].record.scientific.items() if k not in ("reduction", "batch_size")}
    family = Family(shared, tuple(cells), OPTIMIZERS[cells[0].training.optimizer.name].homogeneity, None, None, None)
    by_sum = family.by_reduction("sum")
    means = {cell.step_examples: cell for cell in family.by_reduction("mean")}
    pairs = [(s, means[s.step_examples]) for s in by_sum if s.step_examples in means]
    ratio = None
    if pairs:
        log_c = np.log([s.c / m.c for s, m in pairs])
        ratio = ratio_slope(log_c, [s.best for s, _ in pairs if s.best], [m.best for _, m in pairs if m.best])
    turn = turn_over(np.array([c.step_examples for c in by_sum], dtype=float), [c.best for c in by_sum if c.best])
    steps = family.steps()
    traded = trade_off(*(np.array(part, dtype=float) for part in zip(*steps, strict=True))) if steps else None
    return Family(family.of, family.cells, family.homogeneity, ratio, turn, traded)


def _theory(made: Training, c: float) -> tuple[float | None, float | None]:
    """Best lr and mean-square edge of plain SGD on least squares, in the cell's own reduction; None elsewhere."""
    source, options = population(made), made.optimizer.options
    if source is None or made.optimizer.name != "sgd" or options["momentum"] != 0 or options["weight_decay"] != 0:
        return None, None
    spectrum, size = source.spectrum.numpy(), made.step_examples
    edge = theory.mean_square_edge(spectrum, source.bias, size) / c
    start = source.weights.numpy() ** 2
    start[: len(spectrum)] += 0.01**2
    if made.objective == "steps_to_target":
        return _soonest_lr(made, source, start) / c, edge
    if made.objective != "excess_risk":
        return None, edge
    return theory.best_lr(spectrum, source.bias, size, made.steps, start, source.noise) / c, edge


def _soonest_lr(made: Training, source: Population, start: Array) -> float:
    """Mean-reduction lr that reaches a target soonest; for one eigenvalue the closed form, whatever the target."""
    spectrum, size, target = source.spectrum.numpy(), made.step_examples, made.budget.options["target"]
    if float(spectrum.min()) == float(spectrum.max()):
        return theory.fastest_lr(spectrum, source.bias, size)
    return theory.soonest_lr(target, spectrum, source.bias, size, start)


def family_laws(families: Sequence[Family]) -> list[str]:
    """The law which each family's cells show, with its slope and interval; families without one share a sentence."""
    stated = [" ".join(filter(None, (_ratio_law(family), _trade_off_law(family)))) for family in families]
    bare = [family.name for family in families if family.ratio is None]
    tuned = any(cell.tuned for family in families for cell in family.cells)
    if bare:
        stated.append(
            f"No ratio of sum to mean can be stated{f' ({in_few(bare)})' if bare[0] else ''}: "
            + ("it takes both reductions at one batch size above 1, their best lrs not at an edge." if tuned else NOT_TUNED)
        )
    return [text for text in stated if text]


def in_few(names: Sequence[str]) -> str:
    """The first of many names, and how many more there are.

    Example:
      >>> in_few(["lr 0.1", "lr 0.2", "lr 0.3", "lr 0.4", "lr 0.5"])
      'lr 0.1, lr 0.2, lr 0.3 and 2 more'
    """
    return ", ".join(names) if len(names) <= NAMED + 1 else f"{', '.join(names[:NAMED])} and {len(names) - NAMED} more"


def _trade_off_law(family: Family) -> str:
    t = family.trade_off
    if t is None:
        return ""
    if t.at_bound:
        return "No trade-off of steps against examples shows over the batch sizes tried."
    s, b = (f"{i.value:.3g} [{i.low:.3g}, {i.high:.3g}]" for i in (t.s_min, t.b_crit))
    return f"Steps to the target are S = S_min (1 + B_crit/B), S_min = {s}, B_crit = {b}, to {t.residual:.2g} rms in ln S."


def _ratio_law(family: Family) -> str:
    """One sentence on the ratio of sum to mean, and where lr_sum* turns over."""
    where = f" ({family.name})" if family.name else ""
    r = family.ratio
    if r is None:
        return ""
    fits = "as" if r.holds(-family.homogeneity) else "not as"
    text = (
        f"lr_sum* = lr_mean* x c^{r.value:z.3f} [{r.low:z.3f}, {r.high:z.3f}]{where}, c the number of summed terms: "
        f"{fits} theory says (c^{-family.homogeneity:g})"
    )
    return f"{text}{_regime(family) if family.homogeneity == 1 else ''}."


def _regime(family: Family) -> str:
    """How lr_sum* goes with B, as the end of a sentence."""
    turn = family.turn_over
    if turn is None:
        return ""
    if family.turns():
        where = f"{turn.b_c.value:.0f} [{turn.b_c.low:.0f}, {turn.b_c.high:.0f}]"
        return f"; lr_sum* is level up to B = {where} and falls as 1/B beyond"
    largest = max(cell.step_examples for cell in family.cells)
    if turn.b_c.value > largest:
        return f"; up to B = {largest} lr_sum* has not turned over to 1/B"
    return "; lr_sum* falls as 1/B over all batch sizes tried"
