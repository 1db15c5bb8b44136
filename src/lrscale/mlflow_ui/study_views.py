"""Makes the saved views of a study, and the curves of their charts, from the study's answer."""

import math
from collections.abc import Sequence

from lrscale.mlflow_ui.probe_views import picture_sections, probe_view
from lrscale.mlflow_ui.saved_views import BEST, BEST_TRIALS, LIMIT, SUMMARY, TRIALS, Chart, Point, Section, View, bound, key
from lrscale.report.draw import loss_name
from lrscale.study.answer import Answer
from lrscale.study.families import CellAnswer, Family
from lrscale.study.plan import in_words
from lrscale.study.records import TrialRecord
from lrscale.tracking.schema import OUTCOME
from lrscale.training.results import mean_objective

RESULT_COLUMNS = {"metrics.objective": 95, "params.lr": 85}
CHECK_COLUMNS = {f"tags.{OUTCOME}": 175, "params.steps": 70}
ESTIMATE_COLUMNS = {"metrics.lr_best": 80, "metrics.lr_low": 80, "metrics.lr_high": 80, "metrics.lr_theory": 85}
"""Columns of the views, with their widths in pixels: a trial's result, checks of it, and the estimates of its cell."""
HIDDEN = (
    "diverged", "examples", "excess_risk", "log10_lr", "log10_objective", "lr_best", "lr_high", "lr_low",
    "lr_theory", "objective", "objective_by_seed", "place", "population_risk", "train_loss", "trial",
    "claims", "claims_held", "claims_failed", "claims_untold", "log10 lr", "ratio_slope", "final/excess_risk",
    "final/population_risk", "final/train_loss", "final/minibatch_loss", "final/grad_norm", "final/valid_loss",
    "final/valid_error", "final/steps_to_target",
)  # fmt: skip
"""The metrics for which MLflow would draw charts that no view asks for."""
LOG_LR = "log10 lr"
"""The metric on the x axis of curves of objective against lr."""


def views(answer: Answer, trials: Sequence[TrialRecord], pictures: Sequence[str] = ()) -> list[View]:
    """Returns the views of a study, in the order of MLflow's menu.

    Args:
      answer: the answer of the study.
      trials: all trials of the study's experiment, also those of its other executions.
      pictures: the keys of the images of the parent run, which the summary shows first.
    """
    if not answer.families:
        return [probe_view(answer, pictures)]
    columns = {**RESULT_COLUMNS, **{f"params.{axis}": 45 + 7 * len(axis) for axis in axes(answer)}, **CHECK_COLUMNS}
    objectives = Section("log10 objective against log10 lr", (Chart(("log10_objective",), "log10_lr", points=True),))
    diverged = Section("Diverged seeds against log10 lr", (Chart(("diverged",), "log10_lr", points=True),))
    loss = _loss_section(answer)
    return [
        View(SUMMARY, "Study summary", BEST, "metrics.place", True, columns, _summary(answer, pictures)),
        View(
            "lrscale-best",
            "Best trial of each cell",
            BEST_TRIALS,
            "metrics.place",
            True,
            {**ESTIMATE_COLUMNS, **columns},
            (loss,),
        ),
        *(_reduction_view(answer, trials, reduction, columns, (objectives, loss)) for reduction in _reductions(answer)),
        _diverged_view(trials, columns, (diverged,)),
        _all_view(trials, columns, (objectives, loss)),
    ]


def axes(answer: Answer) -> list[str]:
    """Returns the names of batch size and reduction, and of all other axes in which the cells of a study differ."""
    return list(dict.fromkeys(["batch_size", "reduction", *(axis for cell in answer.cells for axis in cell.cell.scientific)]))


def _reductions(answer: Answer) -> list[str]:
    """Returns the reductions of a study's cells, in reverse alphabetical order: sum before mean."""
    return sorted({cell.training.reduction for cell in answer.cells}, reverse=True)


def _loss_section(answer: Answer) -> Section:
    """Returns the section with loss curves: the objective if it is a risk, or else the training loss."""
    name = loss_name(answer)
    title = name.replace("_", " ").capitalize()
    return Section(f"{title} against steps, and against examples", (Chart((name,)), Chart((name,), "examples")))


def _summary(answer: Answer, pictures: Sequence[str]) -> tuple[Section, ...]:
    """Returns the charts of the summary: pictures of the law, and objective against lr by reduction.

    Objective against lr has a line for each batch size, and a black line through the best lrs, which the study's run holds.
    """
    pairs = [(family, reduction) for family in answer.families for reduction in family.reductions()]
    of_objective = dict.fromkeys(_curve_key(family, reduction) for family, reduction in pairs)
    return (
        *picture_sections("The law", pictures),
        Section("Objective against log10 lr, by reduction", tuple(Chart((name,), LOG_LR) for name in of_objective)),
    )


def _reduction_view(
    answer: Answer, trials: Sequence[TrialRecord], reduction: str, columns: dict[str, int], sections: tuple[Section, ...]
) -> View:
    """Returns the view of the trials of a reduction, best first.

    The filter may let through fewer than LIMIT trials: a trial of another execution is counted, though it may have
    another reduction.

    Args:
      answer: the answer of the study.
      trials: all trials of the study's experiment.
      reduction: the reduction.
      columns: the columns of the view.
      sections: the charts of the view.
    """
    other_cells = {cell.cell.id for cell in answer.cells if cell.training.reduction != reduction}
    counted = [trial for trial in trials if trial.cell not in other_cells]
    objectives = [mean_objective(trial.objectives) for trial in counted]
    query, remark = _narrowed(f"{TRIALS} and params.reduction = '{reduction}'", "objective", objectives, "best")
    name = f"Trials with {reduction}, best first{remark}"
    return View(f"lrscale-trials-{reduction}", name, query, "metrics.objective", True, columns, sections)


def _diverged_view(trials: Sequence[TrialRecord], columns: dict[str, int], sections: tuple[Section, ...]) -> View:
    """Returns the view of the trials with a run that diverged, from the smallest lr up."""
    lrs = [math.log10(trial.params["optimizer.lr"]) for trial in trials if any(trial.diverged) and "optimizer.lr" in trial.params]
    query, remark = _narrowed(f"{TRIALS} and metrics.diverged > 0", "log10_lr", lrs, "smallest lrs,")
    # the objective of such a trial is infinite, and MLflow holds none
    with_values = {name: width for name, width in columns.items() if name != "metrics.objective"}
    return View("lrscale-diverged", f"Diverged trials{remark}", query, "metrics.log10_lr", True, with_values, sections)


def _all_view(trials: Sequence[TrialRecord], columns: dict[str, int], sections: tuple[Section, ...]) -> View:
    """Returns the view of all trials, from the smallest lr up.

    If there are more than LIMIT, it shows the first few trials of each cell, because the lrs of these are far apart.
    """
    numbers = sorted(trial.number for trial in trials)
    query, name = TRIALS, "All trials"
    if len(numbers) > LIMIT:
        first = numbers[LIMIT]
        query = f"{TRIALS} and metrics.trial < {first}" if first > 0 else f"{TRIALS} and {BEST}"
        name = f"First {first} trials of each cell" if first > 0 else "Best trial of each cell"
    return View("lrscale-all", name, query, "metrics.log10_lr", True, {**columns, "metrics.trial": 60}, sections)


def _narrowed(query: str, metric: str, values: Sequence[float], adjective: str) -> tuple[str, str]:
    """Returns a query that selects at most LIMIT trials, those with the least values of a metric, and a remark on this.

    The remark is empty, and the query unchanged, if there are no more trials than LIMIT.

    Args:
      query: the query that selects all the trials.
      metric: the name of the metric.
      values: the value of the metric for each of these trials; the query uses them with four digits.
      adjective: the words for the least values in the remark, such as `best`.
    """
    if len(values) <= LIMIT:
        return query, ""
    finite = [float(f"{value:.4g}") for value in values if math.isfinite(value)]
    limit = bound(finite)
    limit = max(finite, default=0.0) if limit is None else limit
    return f"{query} and metrics.{metric} <= {limit!r}", f" ({adjective} {min(LIMIT, len(finite))} of {len(values)})"


def shown_trials(answer: Answer) -> list[tuple[CellAnswer, TrialRecord]]:
    """Returns each cell with its best trial, in the order of families, reductions and batch sizes.

    There are at most LIMIT - 1, because the parent run is shown too.
    """
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
    """Returns what MLflow shows of each cell: its place in the order of cells, its estimates, and its curve.

    Returns:
      The points, by the run id of the cell's best trial; MLflow draws the curve in the colour of this run.
    """
    families = {cell.cell.id: family for family in answer.families for cell in family.cells}
    return {
        trial.run_id: [("place", place, 0), *_estimates(cell), *_curve_points(families[cell.cell.id], cell)]
        for place, (cell, trial) in enumerate(shown_trials(answer), start=1)
    }


def study_points(answer: Answer) -> list[Point]:
    """Returns the curves that the parent run holds: the objective at the best lrs, from the smallest batch size up."""
    points: list[Point] = []
    pairs = [(family, reduction) for family in answer.families for reduction in family.reductions()]
    for place, (family, reduction) in enumerate(pairs):
        best = [(c.step_examples, c.best) for c in family.cells if c.training.reduction == reduction and c.best and c.fits]
        for size, estimate in sorted(best, key=lambda pair: pair[0]):
            step = place * 10**9 + size  # the steps of two curves differ, because they share the metric of the x axis
            points.append((_curve_key(family, reduction), math.exp(estimate.log_objective), step))
            points.append((LOG_LR, math.log10(estimate.lr), step))
    return list(dict.fromkeys(points))


def _estimates(cell: CellAnswer) -> list[Point]:
    """Returns a cell's best lr with its interval, and the best lr in theory, as far as they are known."""
    points = [] if cell.theory_lr is None else [("lr_theory", cell.theory_lr, 0)]
    if cell.best is not None:
        points.append(("lr_best", cell.best.lr, 0))
        if interval := cell.best.interval:
            points += [("lr_low", interval.low, 0), ("lr_high", interval.high, 0)]
    return points


def _curve_points(family: Family, cell: CellAnswer) -> list[Point]:
    """Returns the points of a cell's curve: objective and log10 lr of its trials, without objectives that are infinite or 0.

    The step of a point is computed from its lr, so a study that is continued adds points and changes none.
    """
    name = _curve_key(family, cell.training.reduction)
    finite = [(math.log10(lr), o) for lr, o, _ in cell.points() if math.isfinite(o) and o > 0]
    return [point for x, o in finite for point in ((name, o, round(1e6 * x)), (LOG_LR, x, round(1e6 * x)))]


def _with_name(family: Family, text: str) -> str:
    """Returns the name of a metric: a text, with the axis values that the cells of its family share."""
    return key(" - ".join(filter(None, (text, " ".join(in_words(family.of))))))


def _curve_key(family: Family, reduction: str) -> str:
    """Returns the name of the metric that holds objectives against lr, for one reduction of a family."""
    return _with_name(family, f"objective under {reduction}")
