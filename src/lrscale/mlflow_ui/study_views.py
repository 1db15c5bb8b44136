"""The saved views of a study, and the curves of their charts, made from the study's answer."""

import math
from collections.abc import Callable, Sequence

from lrscale.mlflow_ui.probe_views import probe_view
from lrscale.mlflow_ui.saved_views import BEST, BEST_TRIALS, LIMIT, SUMMARY, TRIALS, Chart, Point, Section, View, bound, key
from lrscale.study.answer import Answer
from lrscale.study.families import CellAnswer, Family
from lrscale.study.plan import in_words
from lrscale.study.records import TrialRecord
from lrscale.training.results import mean_objective

RESULT = {"metrics.objective": 95, "params.lr": 85}
CHECKS = {"metrics.diverged": 80, "metrics.steps": 70}
ESTIMATE_COLUMNS = {"metrics.lr_best": 80, "metrics.lr_low": 80, "metrics.lr_high": 80, "metrics.lr_theory": 85}
HIDDEN = (
    "batch_size", "diverged", "examples", "excess_risk", "log10_lr", "log10_objective", "lr_best", "lr_high", "lr_low",
    "lr_theory", "objective", "objective_by_seed", "place", "seeds", "steps", "train_loss", "trial", "claims", "claims_held",
    "ratio_slope", "curve/log10_lr", "final/excess_risk", "final/train_loss", "final/minibatch_loss", "final/grad_norm",
    "final/valid_loss", "final/valid_error", "final/steps_to_target",
)  # fmt: skip
"""Metrics for which MLflow would draw a chart by itself."""


def views(answer: Answer, trials: Sequence[TrialRecord]) -> list[View]:
    """Returns a study's views, in the menu's order.

    Args:
      answer: the study's answer.
      trials: all trials of its experiment, also those of other executions.
    """
    if not answer.families:
        return [probe_view(answer)]
    columns = {**RESULT, **{f"params.{key}": 45 + 7 * len(key) for key in axes(answer)}, **CHECKS}
    points = Section("log10 objective against log10 lr", (Chart(("log10_objective",), "log10_lr", points=True),))
    gone = Section("Diverged seeds against log10 lr", (Chart(("diverged",), "log10_lr", points=True),))
    loss = _loss_section(answer)
    return [
        View(SUMMARY, "Study summary", BEST, "metrics.place", True, columns, _summary(answer)),
        View(
            "lrscale-best",
            "Best trial of each cell",
            BEST_TRIALS,
            "metrics.place",
            True,
            {**ESTIMATE_COLUMNS, **columns},
            (loss,),
        ),
        *(_of_reduction(answer, trials, reduction, columns, (points, loss)) for reduction in _reductions(answer)),
        _diverged(trials, columns, (gone,)),
        _all(trials, columns, (points, loss)),
    ]


def axes(answer: Answer) -> list[str]:
    """Returns batch size, reduction, and the names of the other axes in which a study's cells differ."""
    return list(dict.fromkeys(["batch_size", "reduction", *(key for cell in answer.cells for key in cell.cell.scientific)]))


def _reductions(answer: Answer) -> list[str]:
    return sorted({cell.training.reduction for cell in answer.cells}, reverse=True)


def _loss_section(answer: Answer) -> Section:
    name = "excess_risk" if answer.plan.objective == "excess_risk" else "train_loss"
    words = name.replace("_", " ").capitalize()
    return Section(f"{words} against steps, and against examples", (Chart((name,)), Chart((name,), "examples")))


def _summary(answer: Answer) -> tuple[Section, ...]:
    """Returns the charts of objective against lr, one line a batch size, and best lr against batch size, one line a reduction."""
    curves = dict.fromkeys(_curve(family, reduction) for family in answer.families for reduction in family.reductions())
    ends = []
    for family in answer.families:
        keys = {key for key, _, _ in _law_points(family)} - {_sizes(family)}
        if keys:
            ends.append(Chart(tuple(sorted(keys)), _sizes(family)))
    objective = Section("Objective against log10 lr, by reduction", tuple(Chart((key,), "curve/log10_lr") for key in curves))
    return objective, Section("Best lr against log10 batch size", tuple(ends))


def _of_reduction(
    answer: Answer, trials: Sequence[TrialRecord], reduction: str, columns: dict[str, int], sections: tuple[Section, ...]
) -> View:
    """Returns the view of a reduction's trials, best first. Trials of other executions may have any reduction."""
    others = {cell.cell.id for cell in answer.cells if cell.training.reduction != reduction}
    chosen = [trial for trial in trials if trial.cell not in others]
    objectives = [mean_objective(trial.objectives) for trial in chosen]
    query, more = _fewer(f"{TRIALS} and params.reduction = '{reduction}'", "objective", objectives, "best")
    name = f"Trials with {reduction}, best first{more}"
    return View(f"lrscale-trials-{reduction}", name, query, "metrics.objective", True, columns, sections)


def _diverged(trials: Sequence[TrialRecord], columns: dict[str, int], sections: tuple[Section, ...]) -> View:
    lrs = [math.log10(trial.params["optimizer.lr"]) for trial in trials if any(trial.diverged) and "optimizer.lr" in trial.params]
    query, more = _fewer(f"{TRIALS} and metrics.diverged > 0", "log10_lr", lrs, "smallest lrs,")
    finite = {key: width for key, width in columns.items() if key != "metrics.objective"}  # a diverged trial has no objective
    return View("lrscale-diverged", f"Diverged trials{more}", query, "metrics.log10_lr", True, finite, sections)


def _all(trials: Sequence[TrialRecord], columns: dict[str, int], sections: tuple[Section, ...]) -> View:
    """Returns the view of all trials, or of the first ones of each cell, whose lrs lie far apart."""
    numbers = sorted(trial.number for trial in trials)
    query, more = TRIALS, ""
    if len(numbers) > LIMIT:
        first = numbers[LIMIT]
        query = f"{TRIALS} and metrics.trial < {first}" if first > 0 else f"{TRIALS} and {BEST}"
        more = f" (first {first} of each cell, of {len(numbers)})"
    return View("lrscale-all", f"All trials{more}", query, "metrics.log10_lr", True, {**columns, "metrics.trial": 60}, sections)


def _fewer(query: str, metric: str, values: Sequence[float], words: str) -> tuple[str, str]:
    """Narrows a query to the trials with the least values of a metric if they are more than LIMIT, and says so in words."""
    if len(values) <= LIMIT:
        return query, ""
    shown = [float(f"{value:.4g}") for value in values if math.isfinite(value)]
    limit = bound(shown)
    limit = max(shown, default=0.0) if limit is None else limit
    return f"{query} and metrics.{metric} <= {limit!r}", f" ({words} {min(LIMIT, len(shown))} of {len(values)})"


def shown_trials(answer: Answer) -> list[tuple[CellAnswer, TrialRecord]]:
    """Returns the best trial of each cell, by family, reduction and batch size: at most LIMIT - 1, as the parent is shown too."""
    cells = [
        cell
        for family in answer.families
        for reduction in family.reductions()
        for cell in sorted(family.cells, key=lambda c: c.step_examples)
        if cell.training.reduction == reduction
    ]
    pairs = [(cell, trial) for cell in cells if (trial := cell.best_trial()) is not None]
    return pairs[: LIMIT - 1]


def cell_points(answer: Answer) -> dict[str, list[Point]]:
    """Returns each cell's curve and numbers, by the run id of its best trial, which carries them in its own colour."""
    families = {cell.cell.id: family for family in answer.families for cell in family.cells}
    return {
        trial.run_id: [("place", place, 0), *_numbers(cell), *_curve_points(families[cell.cell.id], cell)]
        for place, (cell, trial) in enumerate(shown_trials(answer), start=1)
    }


def study_points(answer: Answer) -> list[Point]:
    """Returns the curves of the parent run: best lr against log10 B, for each reduction."""
    return [point for family in answer.families for point in _law_points(family)]


def _numbers(cell: CellAnswer) -> list[Point]:
    numbers = [] if cell.theory_lr is None else [("lr_theory", cell.theory_lr, 0)]
    if cell.best is not None:
        interval = cell.best.interval
        numbers += [("lr_best", interval.value, 0), ("lr_low", interval.low, 0), ("lr_high", interval.high, 0)]
    return numbers


def _curve_points(family: Family, cell: CellAnswer) -> list[Point]:
    """Returns objective and log10 lr of a cell's trials. The step is made from the lr, so that a continued study adds points."""
    name = _curve(family, cell.training.reduction)
    finite = [(math.log10(lr), o) for lr, o, _ in cell.points() if math.isfinite(o) and o > 0]
    return [p for x, o in finite for p in ((name, o, round(1e6 * x)), ("curve/log10_lr", x, round(1e6 * x)))]


def _law_points(family: Family) -> list[Point]:
    points: list[Point] = []
    for reduction in family.reductions():
        lines: dict[str, Callable[[CellAnswer], float | None]] = {
            key("best_lr", _title(family), reduction): lambda c: c.best.interval.value if c.best and c.fits else None,
            key("best_lr", _title(family), f"{reduction} theory"): lambda c: c.theory_lr,
        }
        for cell in family.cells:
            if cell.training.reduction == reduction:
                b = cell.step_examples
                values = {key: line(cell) for key, line in lines.items()}
                points += [(key, value, b) for key, value in values.items() if value is not None]
                points.append((_sizes(family), math.log10(b), b))
    return list(dict.fromkeys(points))


def _title(family: Family, *more: str) -> str:
    return " ".join([*in_words(family.of), *more])


def _curve(family: Family, reduction: str) -> str:
    return key("curve", _title(family, reduction))


def _sizes(family: Family) -> str:
    return key("best_lr", _title(family), "log10_batch_size")
